"""How an item is named on the command line: `name`, `name:argument`, `name:key=value,key=value`, and combinations.

vinet:importance=deeplabv3plus,classifier=resnet18
timm:resnet18:pretrained=true
blurred:sigma=3:vinet:importance=unet        (an explainer of another explainer)
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from xbench.contracts.options import Options, parse_options
from xbench.contracts.specs import ExplainerSpec
from xbench.errors import PluginError, UserError, XbenchError
from xbench.registry.entries import Entry, Registry
from xbench.registry.option_values import by_content
from xbench.registry.plugin_code import code_of

_OPTIONS = re.compile(r"[A-Za-z_]\w*=")
_NEXT_OPTION = re.compile(r",(?=[A-Za-z_]\w*=)")


@dataclass(frozen=True)
class Choice:
    """An item with its argument and validated options.

    Attributes:
        entry: The registered item.
        argument: The argument that follows the name.
        options: The validated options.
        inner: The explainer whose maps it changes, for `inverted:` and its kind.
    """

    entry: Entry
    argument: str
    options: Options
    inner: Choice | None = None

    @property
    def name(self) -> str:
        """The registered name."""
        return self.entry.spec.name

    @property
    def label(self) -> str:
        """The shortest reference that gives this choice again: options at their defaults are left out."""
        changed = {
            key: value
            for key, value in self.options.model_dump(mode="json").items()
            if getattr(self.options, key) != type(self.options).model_fields[key].default
        }
        words = [self.name]
        if self.argument and not self.inner:
            words.append(self.argument)
        if changed:
            words.append(",".join(f"{key}={_word(value)}" for key, value in changed.items()))
        if self.inner:
            words.append(self.inner.label)
        return ":".join(words)

    def on(self, device: str) -> Choice:
        """Return the choice with everything settled that depends on the device, inner explainers included.

        `vinet` on "cuda" is `vinet:preset=paper`, and `blurred:vinet` is `blurred:vinet:preset=paper`.

        Raises:
            PluginError: Its options raised, gave something else than valid options, or would be resolved further; the
                distribution is named.
        """
        try:
            options = self.options.resolved_on(device)
            again = options.resolved_on(device) if type(options) is type(self.options) else None
        except XbenchError:
            raise
        except Exception as error:
            raise PluginError(f"{self.entry.owner} raised in resolved_on: {type(error).__name__}: {error}") from error
        if again is None:
            wanted, found = type(self.options).__name__, type(options).__name__
            raise PluginError(f"{self.entry.owner}: resolved_on gave {found}, not {wanted}")
        if again != options:
            raise PluginError(f"{self.entry.owner}: resolved_on changes what it gave itself: {options} into {again}")
        try:
            parse_options(type(options), options.model_dump(), self.entry.owner)
        except UserError as error:
            raise PluginError(f"{self.entry.owner}: resolved_on gave options that are not allowed: {error}") from error
        inner = self.inner.on(device) if self.inner else None
        return replace(self, options=options, inner=inner, argument=inner.label if inner else self.argument)

    def create(self) -> Any:
        """Return the plugin object.

        Raises:
            PluginError: Its factory raised, or its code can't be hashed; the distribution is named.
        """
        factory = self.entry.spec.load()
        code_of(self.entry)
        try:
            if self.entry.spec.argument:
                return factory(self.options, self.argument)
            return factory(self.options)
        except XbenchError:
            raise
        except Exception as error:
            raise PluginError(f"{self.entry.owner} can't be made: {type(error).__name__}: {error}") from error

    def contents(self) -> dict[str, Any]:
        """Return the options as JSON values, with files and folders by their content.

        Raises:
            UserError: A file that an option names can't be read.
        """
        return by_content(self.options, self.entry.owner)

    def identity(self) -> dict[str, Any]:
        """Return everything that determines what this item computes, for a fingerprint.

        Raises:
            PluginError: Its code can't be hashed.
            UserError: A file that an option names can't be read.
        """
        return {
            "name": self.name,
            "argument": self.argument,
            "options": self.contents(),
            "distribution": self.entry.distribution,
            **code_of(self.entry),
        }


def choose(kind: str, reference: str | Mapping[str, Any], registry: Registry) -> Choice:
    """Resolve a reference.

    Args:
        kind: "dataset", "model", "explainer" or "metric".
        reference: Text as on the command line, or a table {"name": ..., "argument": ..., key: value} from a TOML file.
        registry: The installed items.

    Raises:
        UserError: Unknown name, missing or superfluous argument, wrong option.
    """
    if isinstance(reference, Mapping):
        values = dict(reference)
        text = str(values.pop("name", ""))
        if "argument" in values:
            text += f":{values.pop('argument')}"
        name, _, rest = text.partition(":")
    else:
        values = {}
        name, _, rest = reference.partition(":")
    entry = registry.get(kind, name)
    if entry.spec.argument == "explainer":
        written, rest = _leading_options(rest)
    elif entry.spec.argument:
        rest, written = _trailing_options(rest)
    else:
        written, rest = (rest, "") if _OPTIONS.match(rest) else ("", rest)
    if not rest and isinstance(entry.spec, ExplainerSpec):
        rest = entry.spec.default
    _check_argument(entry, rest)
    values |= _parse_pairs(written, entry)
    inner = choose("explainer", rest, registry) if entry.spec.argument == "explainer" else None
    options = parse_options(entry.spec.load_options(), values, f"{kind} {name}")
    return Choice(entry, inner.label if inner else rest, options, inner)


def _leading_options(rest: str) -> tuple[str, str]:
    if _OPTIONS.match(rest):
        written, _, rest = rest.partition(":")
        return written, rest
    return "", rest


def _trailing_options(rest: str) -> tuple[str, str]:
    argument, _, written = rest.partition(":")
    return argument, written


def _check_argument(entry: Entry, argument: str) -> None:
    spec = entry.spec
    if argument and not spec.argument:
        raise UserError(
            f"{spec.kind} {spec.name} takes no argument, got {argument!r}", f"options: {spec.name}:key=value"
        )
    if spec.argument and not argument:
        raise UserError(f"{spec.kind} {spec.name} needs an argument", f"{spec.name}:<{spec.argument}>")


def _parse_pairs(text: str, entry: Entry) -> dict[str, str]:
    pairs = {}
    for pair in filter(None, _NEXT_OPTION.split(text)):
        key, sign, value = pair.partition("=")
        if not sign:
            raise UserError(f"{entry.spec.kind} {entry.spec.name}: {pair!r} is not of the form key=value")
        pairs[key] = value
    return pairs


def _word(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) or value is None else str(value)
