from pathlib import Path
from typing import Any, ClassVar, Literal

import pytest

from xbench import Field, Options, PresetOptions, UserError
from xbench.contracts.options import describe_options, parse_options, suggestion


class Example(Options):
    window: int = Field(8, ge=1, description="side, in pixels")
    fill: Literal["zero", "mean"] = Field("mean", description="what replaces")
    weights: Path | None = Field(None, description="a file")
    reduction: int | Literal["all"] = Field(4, description="how deep")


def test_text_becomes_the_declared_type() -> None:
    options = parse_options(Example, {"window": "3", "weights": "a/b"}, "explainer x")
    assert options.window == 3
    assert options.weights == Path("a/b")


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"windw": 3}, "explainer x has no option 'windw'.*did you mean window"),
        ({"window": "0"}, "explainer x: option window='0' is wrong.*greater than or equal to 1"),
        ({"window": "wide"}, "window='wide'.*integer"),
        ({"fill": "black"}, "fill='black'.*'zero' or 'mean'"),
    ],
)
def test_wrong_options_name_owner_key_value_and_what_is_allowed(values: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        parse_options(Example, values, "explainer x")


def test_options_are_described_as_a_user_would_write_them() -> None:
    rows = {row["name"]: row for row in describe_options(Example)}
    assert rows["window"] == {"name": "window", "type": "int", "default": "8", "description": "side, in pixels"}
    assert rows["fill"]["type"] == "zero | mean"
    assert rows["weights"]["type"] == "Path or none"
    assert rows["reduction"]["type"] == "int or all"


def test_a_name_far_from_all_is_answered_with_the_list() -> None:
    assert suggestion("zzz", ["b", "a"]) == "known: a, b"
    assert suggestion("grad", ["gradient", "vinet"]) == "did you mean gradient?"


def test_options_say_themselves_what_the_device_decides() -> None:
    own = Example(window=3)
    assert own.resolved_on("cuda") is own  # a stranger's: the device decides nothing
    presets = {device: PresetOptions().resolved_on(device).preset for device in ("cpu", "mps", "cuda", "cuda:1")}
    assert presets == {"cpu": "tiny", "mps": "tiny", "cuda": "paper", "cuda:1": "paper"}
    for preset in ("tiny", "paper"):
        chosen = PresetOptions(preset=preset)
        assert {chosen.resolved_on(device) for device in ("cpu", "cuda")} == {chosen}


class Sized(PresetOptions):
    presets: ClassVar = {"tiny": {"width": 16, "decay": "cosine"}, "paper": {"width": 256, "decay": "none"}}

    width: int | None = Field(None, ge=1, description="channels")
    decay: str | None = Field(None, description="of the learning rate")
    steps: int = Field(5, description="of the method")


def test_presets_fill_what_the_user_left_open() -> None:
    filled = Sized().filled_on("cpu")
    assert (filled.preset, filled.width, filled.decay, filled.steps) == ("tiny", 16, "cosine", 5)
    assert Sized().filled_on("cuda:1") == Sized(preset="paper", width=256, decay="none")
    own = Sized(width=3, preset="paper").filled_on("cpu", decay="linear", steps=9)
    assert (own.preset, own.width, own.decay, own.steps) == ("paper", 3, "linear", 5)
    assert Sized().width is None


def test_presets_are_described() -> None:
    rows = {row["name"]: row["description"] for row in describe_options(Sized)}
    assert rows["width"] == "channels (tiny: 16, paper: 256)"
    assert rows["steps"] == "of the method"


@pytest.mark.parametrize(
    "presets", [{"huge": {}}, {"tiny": {"wdth": 3}}, {"paper": {"width": 0}}], ids=["name", "option", "value"]
)
def test_wrong_presets_are_refused_where_they_are_written(presets: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"preset|wdth|width"):
        type("Wrong", (Sized,), {"presets": presets, "__module__": __name__})
