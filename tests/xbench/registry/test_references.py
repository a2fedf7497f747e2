from pathlib import Path
from typing import Self

import pytest

from xbench import Field, Options, PluginError, UserError
from xbench.contracts.specs import ExplainerSpec, ModelSpec
from xbench.registry.entries import Entry, Registry
from xbench.registry.references import Choice, choose

_FACTORY = "xbench.contracts.model:Model"
_HERE = "xbench.contracts.model:ModelOptions"


@pytest.fixture
def registry() -> Registry:
    specs = [
        ModelSpec("timm", "s", factory=_FACTORY, options=_HERE, argument="a timm classifier"),
        ModelSpec("convnet", "s", factory=_FACTORY, options=_HERE),
        ExplainerSpec("vinet", "s", factory=_FACTORY, options="xbench.contracts.model:Schedule"),
        ExplainerSpec("preset", "s", factory=_FACTORY, options="xbench.contracts.options:PresetOptions"),
        ExplainerSpec(
            "blurred",
            "s",
            factory=_FACTORY,
            options="xbench.contracts.model:Schedule",
            argument="explainer",
        ),
    ]
    return Registry.collect([Entry(spec, "xbench", "1") for spec in specs])


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("model", "convnet"),
        ("model", "convnet:epochs=3"),
        ("model", "timm:resnet18"),
        ("model", "timm:resnet18:epochs=3,patience=2"),
        ("explainer", "blurred:vinet"),
        ("explainer", "blurred:epochs=2:vinet:patience=4"),
        ("explainer", "blurred:blurred:vinet"),
    ],
)
def test_a_label_is_a_reference_to_the_same_choice(kind: str, text: str, registry: Registry) -> None:
    choice = choose(kind, text, registry)
    assert choice.label == text
    again = choose(kind, choice.label, registry)
    assert again == choice


def test_defaults_spelt_out_give_the_same_choice(registry: Registry) -> None:
    assert choose("model", "convnet:epochs=100", registry) == choose("model", "convnet", registry)


def test_a_table_says_the_same_as_the_text(registry: Registry) -> None:
    table = {"name": "timm", "argument": "resnet18", "epochs": 3}
    assert choose("model", table, registry) == choose("model", "timm:resnet18:epochs=3", registry)


def test_values_may_hold_colons_and_commas(registry: Registry, tmp_path: Path) -> None:
    path = tmp_path / "a,b:c.safetensors"
    path.write_bytes(b"x")
    choice = choose("model", f"convnet:weights={path},epochs=2", registry)
    assert choice.options.weights == path
    assert choice.options.epochs == 2


def test_the_content_of_a_file_option_enters_the_identity(registry: Registry, tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    path.write_bytes(b"one")
    before = choose("model", f"convnet:weights={path}", registry).identity()
    path.write_bytes(b"two")
    assert choose("model", f"convnet:weights={path}", registry).identity() != before


@pytest.mark.parametrize(
    ("kind", "text", "words"),
    [
        ("model", "convent", "did you mean convnet"),
        ("model", "convnet:epoch=3", "did you mean epochs"),
        ("model", "convnet:epochs=many", "epochs='many'"),
        ("model", "convnet:epochs=-1", "greater than or equal to 0"),
        ("model", "convnet:resnet18", "takes no argument"),
        ("model", "timm", "needs an argument"),
        ("explainer", "blurred", "needs an argument"),
        ("explainer", "blurred:nothing", "no explainer named 'nothing'"),
        ("explainer", "vinet:epochs=3,fast", "epochs='3,fast'"),
    ],
)
def test_wrong_references_name_the_key_the_value_and_the_fix(
    kind: str, text: str, words: str, registry: Registry
) -> None:
    with pytest.raises(UserError, match=words):
        choose(kind, text, registry)


@pytest.mark.parametrize(
    ("text", "resolved"),
    [
        ("preset", "preset:preset=paper"),
        ("preset:preset=tiny", "preset:preset=tiny"),
        ("blurred:preset", "blurred:preset:preset=paper"),
        ("blurred:epochs=2:blurred:preset", "blurred:epochs=2:blurred:preset:preset=paper"),
        ("vinet:epochs=2", "vinet:epochs=2"),
    ],
)
def test_a_choice_on_a_device_leaves_nothing_open_inner_explainers_included(
    text: str, resolved: str, registry: Registry
) -> None:
    choice = choose("explainer", text, registry)
    found = choice.on("cuda:1")
    assert found.label == resolved
    assert found == found.on("cpu") == choose("explainer", resolved, registry)  # whoever spells it out gets the same
    assert choice.label == text


class Raising(Options):
    def resolved_on(self, device: str) -> Self:
        raise KeyError(device)


class Forgetful(Options):
    def resolved_on(self, device: str) -> Self:
        pass


class Limited(Options):
    size: int = Field(1, ge=0, le=3)

    def resolved_on(self, device: str) -> Self:
        return self.model_copy(update={"size": -7})


class Restless(Options):
    size: int = Field(1, ge=0)

    def resolved_on(self, device: str) -> Self:
        return self.model_copy(update={"size": self.size + 1})


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (Limited(), r"preset \(xbench 1\): resolved_on gave options that are not allowed: .*size=-7 is wrong"),
        (Restless(), r"preset \(xbench 1\): resolved_on changes what it gave itself: size=2 into size=3"),
        (Raising(), r"preset \(xbench 1\) raised in resolved_on: KeyError: 'cuda'"),
        (Forgetful(), r"preset \(xbench 1\): resolved_on gave NoneType, not Forgetful"),
    ],
)
def test_options_that_can_not_be_resolved_are_their_plugins_fault(
    options: Limited | Restless | Raising | Forgetful, words: str, registry: Registry
) -> None:
    with pytest.raises(PluginError, match=words):
        Choice(registry.get("explainer", "preset"), "", options).on("cuda")
