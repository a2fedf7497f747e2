"""The records that plugins register: a name, a summary, and the path of a factory that is imported on first use."""

from __future__ import annotations

import importlib
import importlib.util
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

from xbench.errors import PluginError

_NAME = re.compile(r"[a-z][a-z0-9]*(?:[-_][a-z0-9]+)*")


@dataclass(frozen=True)
class Spec:
    """One item of a plugin.

    Attributes:
        name: The name that users type: lower case, digits, "-" or "_".
        summary: One line about the item.
        factory: "package.module:Class", imported on first use; empty for a suite, which is a file.
        options: "package.module:Options", the class of the options, importable without torch; empty for none.
        argument: Description of what may follow the name ("a timm classifier" in `timm:resnet18`); empty for nothing.
            The value "explainer" makes it a reference to another explainer (`blurred:vinet`).
        requires: Import names of packages that must be installed. Results are cached under their versions.
        reference: The paper, with the equation or section.
        depends_on: Everything else that the item's results depend on, besides its distribution, its options and
            `requires`. A `Path` is a file, or a folder with all files under it. It must be absolute, beside the
            plugin's sources (`Path(__file__).parent / "table.csv"`). A string is the name of a module or package. All
            of these count by content.
    """

    kind: ClassVar[str] = "item"

    name: str
    summary: str
    factory: str
    options: str = ""
    argument: str = ""
    requires: tuple[str, ...] = ()
    reference: str = ""
    depends_on: tuple[str | Path, ...] = ()

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise PluginError(f"{self.kind} name {self.name!r} is not allowed", "use lower-case words joined by - or _")
        for path in filter(None, (self.factory, self.options)):
            if path.count(":") != 1:
                raise PluginError(f"{self.kind} {self.name}: {path!r} is not of the form 'package.module:Name'")
        for wanted in self.depends_on:
            _check_dependency(wanted, f"{self.kind} {self.name}")

    @property
    def usage(self) -> str:
        """The form in which users write the item, such as `timm:<a timm classifier>`."""
        return f"{self.name}:<{self.argument}>" if self.argument else self.name

    def load(self) -> Any:
        """Import and return the factory, which is called with (options, argument).

        Raises:
            PluginError: The factory can't be imported. If a required package is missing, the error says how to install
                it.
        """
        for name in self.requires:
            if importlib.util.find_spec(name) is None:
                raise PluginError(f"{self.kind} {self.name} needs {name}", f"pip install {name}")
        return self._import(self.factory)

    def load_options(self) -> Any:
        """Import and return the class of the options, or `Options` where the item declares none."""
        from xbench.contracts.options import Options

        return self._import(self.options) if self.options else Options

    def _import(self, path: str) -> Any:
        module, _, attribute = path.partition(":")
        try:
            return getattr(importlib.import_module(module), attribute)
        except Exception as error:
            raise PluginError(
                f"{self.kind} {self.name}: can't import {path}: {type(error).__name__}: {error}"
            ) from error


def _check_dependency(wanted: str | Path, owner: str) -> None:
    """Refuse a path that is not absolute, and a string that can't name a module."""
    if isinstance(wanted, Path):
        if not wanted.is_absolute():
            raise PluginError(f"{owner}: depends_on {str(wanted)!r} is not absolute", 'Path(__file__).parent / "..."')
    elif not all(part.isidentifier() for part in wanted.split(".")):
        raise PluginError(f"{owner}: depends_on {wanted!r} is not the name of a module", "give files as Path(...)")


@dataclass(frozen=True)
class DatasetSpec(Spec):
    """A dataset."""

    kind: ClassVar[str] = "dataset"


@dataclass(frozen=True)
class ModelSpec(Spec):
    """A classifier."""

    kind: ClassVar[str] = "model"


@dataclass(frozen=True)
class MetricSpec(Spec):
    """A metric."""

    kind: ClassVar[str] = "metric"


@dataclass(frozen=True)
class ExplainerSpec(Spec):
    """An explainer.

    Attributes:
        control: Whether it is a control, which should lose (or, for the expert's mask, shows what the mask is worth).
            Controls are marked in every table.
        joins: "run": added to every run automatically; "explainer": added for every explainer of the user (as
            `inverted:<explainer>`); "no": only when asked for.
        default: The argument that is used where none is given (`xrai` means `xrai:integrated-gradients-bw`).
        model: Requirements on a model in words, such as "ReLU activations"; empty for none.
    """

    kind: ClassVar[str] = "explainer"

    control: bool = False
    joins: Literal["no", "run", "explainer"] = "no"
    default: str = ""
    model: str = ""

    @property
    def usage(self) -> str:
        """The form in which users write the explainer, with brackets around a part that may be left out."""
        return f"{self.name}[:<{self.argument}>]" if self.default else super().usage


@dataclass(frozen=True)
class SuiteSpec(Spec):
    """A suite: the file that runs a whole table of a paper.

    Attributes:
        path: Absolute path of the TOML file, beside the plugin's sources (`Path(__file__).parent / "mine.toml"`).
    """

    kind: ClassVar[str] = "suite"

    factory: str = field(init=False, default="")
    path: Path = Path()

    @classmethod
    def of(cls, path: Path) -> SuiteSpec:
        """Return the record of a file, with the name, summary and reference that stand in the file.

        Raises:
            PluginError: The file can't be read, or has no name or no summary.
        """
        try:
            words = tomllib.loads(path.read_text(encoding="utf-8"))
            return cls(str(words["name"]), str(words["summary"]), path=path, reference=str(words.get("reference", "")))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise PluginError(f"suite {path} can't be read: {error}") from error
        except KeyError as error:
            raise PluginError(f"suite {path} has no {error.args[0]}") from None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.path.is_absolute():
            hint = 'path=Path(__file__).parent / "mine.toml"'
            raise PluginError(f"suite {self.name}: path {str(self.path)!r} is not absolute", hint)

    def load(self) -> Path:
        """Return the path of the file. A suite has no code to import: `xbench.request.suites` reads the file."""
        return self.path


SPECS: Mapping[str, type[Spec]] = {
    spec.kind: spec for spec in (DatasetSpec, ModelSpec, ExplainerSpec, MetricSpec, SuiteSpec)
}
"""The record of each kind, in the order in which kinds are listed. The hook of a kind is `xbench_<kind>s`."""
KINDS = tuple(SPECS)
CELL_KINDS = tuple(kind for kind in KINDS if kind != SuiteSpec.kind)
"""The kinds of items that make up a cell of a run."""
