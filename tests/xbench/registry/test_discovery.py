from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from xbench import PluginError, UserError
from xbench.registry.discovery import discover

if TYPE_CHECKING:
    from tests.conftest import Shelf


GOOD = """
    from xbench import ExplainerSpec, hookimpl

    @hookimpl
    def xbench_explainers():
        yield ExplainerSpec("{name}", "a stranger's", factory="nowhere:Nothing")
"""


def test_built_ins_come_through_the_door() -> None:
    registry = discover()
    assert {"vinet", "gradient", "random", "mask", "inverted"} <= set(registry.names("explainer"))
    assert "lidc-phantom" in registry.names("dataset")
    assert {"convnet", "timm"} <= set(registry.names("model"))
    assert "fidelity" in registry.names("metric")
    assert {entry.distribution for entry in registry.entries.values()} == {"xbench"}
    assert registry.broken == ()


def test_a_stranger_comes_through_the_same_door(shelf: Shelf) -> None:
    shelf.install("stranger", GOOD.format(name="strange"), version="2.1")
    entry = discover().get("explainer", "strange")
    assert (entry.distribution, entry.version) == ("stranger", "2.1")
    with pytest.raises(PluginError, match="explainer strange: can't import nowhere:Nothing"):
        entry.spec.load()


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("import not_installed_anywhere", "ModuleNotFoundError"),
        ("raise RuntimeError('on import')", "on import"),
        ("def broken(:", "SyntaxError"),
        ("from xbench import hookimpl\n@hookimpl\ndef xbench_explainer():\n    return []", "unknown hook"),
        ("from xbench import hookimpl\n@hookimpl\ndef xbench_explainers():\n    return ['name']", "gave a str"),
        (
            "from xbench import hookimpl\n@hookimpl\ndef xbench_explainers(extra):\n    return []",
            "PluginValidationError",
        ),
        (
            "from xbench import hookimpl\n@hookimpl\ndef xbench_models():\n    raise KeyError('inside')",
            "KeyError: 'inside'",
        ),
    ],
)
def test_a_broken_plugin_is_kept_with_its_reason_and_spares_the_others(shelf: Shelf, source: str, words: str) -> None:
    shelf.install("broken_one", source)
    shelf.install("stranger", GOOD.format(name="strange"))
    registry = discover()
    assert registry.get("explainer", "strange").distribution == "stranger"
    assert registry.get("explainer", "gradient").distribution == "xbench"
    (fault,) = registry.broken
    assert fault.distribution == "broken-one"
    assert words in fault.reason
    assert "Traceback" in fault.details
    with pytest.raises(UserError, match="not loaded: broken_one of broken-one"):
        registry.get("explainer", "brokn")


def test_two_distributions_may_use_one_entry_point_name(shelf: Shelf) -> None:
    shelf.install("first", GOOD.format(name="one"), entry_point="same")
    shelf.install("second", GOOD.format(name="two"), entry_point="same")
    registry = discover()
    assert registry.get("explainer", "one").distribution == "first"
    assert registry.get("explainer", "two").distribution == "second"


def test_a_taken_name_is_reported_with_both_distributions(shelf: Shelf) -> None:
    shelf.install("intruder", GOOD.format(name="vinet"))
    registry = discover()
    assert registry.get("explainer", "vinet").distribution == "xbench"
    assert "intruder 1.0" in registry.broken[0].reason
    assert "xbench 0" in registry.broken[0].reason
