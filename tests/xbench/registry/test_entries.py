import pytest

from xbench import ExplainerSpec, PluginError, UserError
from xbench.registry.entries import BrokenPlugin, Entry, Registry


def _entry(name: str, distribution: str, version: str = "1") -> Entry:
    return Entry(ExplainerSpec(name, "s", factory="m:C"), distribution, version)


def test_unknown_name_is_answered_with_suggestions_and_broken_plugins() -> None:
    broken = BrokenPlugin("mine", "my-package", "can't be imported")
    registry = Registry.collect([_entry("gradient", "xbench"), _entry("vinet", "xbench")], [broken])
    with pytest.raises(UserError) as error:
        registry.get("explainer", "gradeint")
    assert "did you mean gradient?" in str(error.value)
    assert "mine of my-package" in str(error.value)


def test_a_built_in_keeps_its_name_and_the_third_party_is_reported() -> None:
    registry = Registry.collect([_entry("gradient", "xbench"), _entry("gradient", "intruder", "7")])
    assert registry.get("explainer", "gradient").distribution == "xbench"
    assert "intruder 7" in registry.broken[0].reason
    assert "xbench 1" in registry.broken[0].reason


def test_two_third_parties_of_one_name_are_an_error_naming_both_and_spare_the_rest() -> None:
    registry = Registry.collect([_entry("mine", "a"), _entry("mine", "b"), _entry("other", "b")])
    with pytest.raises(PluginError, match="claimed by a 1 and b 1"):
        registry.get("explainer", "mine")
    assert registry.names("explainer") == ["other"]


@pytest.mark.parametrize("name", ["Upper", "with space", "a:b", "", "a,b", "../x"])
def test_names_that_would_break_references_or_paths_are_refused(name: str) -> None:
    with pytest.raises(PluginError, match="not allowed"):
        ExplainerSpec(name, "s", factory="m:C")
