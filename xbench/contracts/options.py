"""Options of plugins: typed, described and printed by `xbench show`. Unknown keys are refused with a suggestion."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Literal, Self, TypeVar, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from xbench.errors import UserError

__all__ = ["Field", "Options", "OptionsType", "PresetOptions", "parse_options", "suggestion"]


class Options(BaseModel):
    """Base of every plugin's options.

    Declare each option as an annotated field with a default and a description:

        class OcclusionOptions(Options):
            window: int = Field(8, ge=1, description="side of the occluded square, in pixels")
    """

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    def resolved_on(self, device: str) -> Self:
        """Return the options with every choice that depends on the device made (such as "auto").

        By default nothing depends on the device, and the options are returned as they are. An explainer is created with
        the result, cached under it and named by it, so that different networks on two devices never share a name.
        Resolved options must resolve to themselves on every device.

        Args:
            device: Name of the device: "cpu", "cuda", "cuda:1", "mps".
        """
        del device
        return self

    @classmethod
    def description_of(cls, name: str) -> str:
        """Return what an option does, for `xbench show`."""
        return cls.model_fields[name].description or ""


class PresetOptions(Options):
    """Base of options with a preset for laptops and one from the paper. "auto" chooses between them by device.

    Options that the presets decide have the default None. Their values in each preset are in `presets`:

        class MineOptions(PresetOptions):
            presets = {"tiny": {"width": 16}, "paper": {"width": 256}}

            width: int | None = Field(None, ge=1, description="channels of the first layer")

    `xbench show` adds the values of the presets to the description. The explainer calls `filled_on` before it builds
    its networks.

    Attributes:
        presets: Name of the preset -> option -> value.
    """

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {}

    preset: Literal["auto", "tiny", "paper"] = Field(
        "auto", description="tiny: minutes on a laptop; paper: the paper's networks; auto: paper on a GPU, else tiny"
    )

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        """Refuse presets with unknown names, unknown options or values that are not allowed.

        Raises:
            ValueError: The class declares a wrong preset. pydantic's message names the option.
        """
        super().__pydantic_init_subclass__(**kwargs)
        for name, values in cls.presets.items():
            cls(preset=name, **values)

    def resolved_on(self, device: str) -> Self:
        """Return the options with `auto` replaced: "paper" on a CUDA device, else "tiny"."""
        if self.preset != "auto":
            return self
        return self.model_copy(update={"preset": "paper" if device.startswith("cuda") else "tiny"})

    def filled_on(self, device: str, **instead: Any) -> Self:
        """Return the complete options: the user's value where there is one, else the preset's.

        Args:
            device: The device, which decides what `auto` means.
            instead: Values to take in place of the preset's, for example because the dataset asks for them.
        """
        resolved = self.resolved_on(device)
        values = {**self.presets.get(resolved.preset, {}), **instead}
        return resolved.model_copy(update={key: value for key, value in values.items() if getattr(self, key) is None})

    @classmethod
    def description_of(cls, name: str) -> str:
        """Return what an option does, and what each preset takes for it."""
        values = [f"{preset}: {taken[name]}" for preset, taken in cls.presets.items() if name in taken]
        text = super().description_of(name)
        return f"{text} ({', '.join(values)})" if values else text


OptionsType = TypeVar("OptionsType", bound=Options)


def suggestion(name: str, known: Iterable[str]) -> str:
    """Return a hint for an unknown name: the most similar known names, else all of them."""
    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.6)
    if near:
        return "did you mean " + " or ".join(near) + "?"
    return "known: " + (", ".join(known) if known else "none")


def parse_options(options: type[OptionsType], values: Mapping[str, Any], owner: str) -> OptionsType:
    """Validate `values` for `owner`.

    Args:
        options: Class of the declared options.
        values: Key -> value. Strings are converted to the declared type.
        owner: Plugin that the options belong to, for messages ("explainer vinet").

    Raises:
        UserError: A key is unknown or a value is wrong. The message names the key, the value and what is allowed.
    """
    try:
        return options(**values)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            raise UserError(f"{owner} has no option {key!r}", suggestion(key, options.model_fields)) from None
        raise UserError(f"{owner}: option {key}={first['input']!r} is wrong", first["msg"]) from None


def describe_options(options: type[Options]) -> list[dict[str, str]]:
    """Return one row per option: name, type, default, description."""
    return [
        {
            "name": name,
            "type": _type_name(field.annotation),
            "default": str(field.default),
            "description": options.description_of(name),
        }
        for name, field in options.model_fields.items()
    ]


def _type_name(annotation: Any) -> str:
    """Return a type as a user would write it: "int", "softplus | sigmoid", "float or none"."""
    arguments = [argument for argument in get_args(annotation) if argument is not type(None)]
    if get_origin(annotation) is Literal:
        return " | ".join(str(argument) for argument in arguments)
    if arguments:
        names = " or ".join(_type_name(argument) for argument in arguments)
        return f"{names} or none" if type(None) in get_args(annotation) else names
    return annotation.__name__ if isinstance(annotation, type) else str(annotation)
