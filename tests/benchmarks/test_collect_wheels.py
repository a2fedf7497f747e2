from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType

import pytest

# Made-up distributions: name -> what each requires.
SHELF = {
    "root": [
        "plain>=1",
        "torch>=2",
        "windows-only; sys_platform == 'win32'",
        "old-python; python_version < '3.12'",
        "tester>=8; extra == 'test'",
        "arm-only; platform_machine == 'aarch64'",
    ],
    "plain": ["Deep_Name<3", "with-extra[fast]"],
    "deep-name": ["plain"],  # a circle
    "with-extra": ["slow; extra == 'slow'", "quick; extra == 'fast'"],
    "torch": ["nvidia-cudnn", "shared"],
    "tester": ["shared>=2"],
}


@pytest.fixture
def wheels(script: Callable[[str], ModuleType]) -> ModuleType:
    return script("collect_wheels")


@pytest.fixture
def names(wheels: ModuleType) -> Callable[..., set[str]]:
    """What has to be carried to a machine."""

    def find(
        *wanted: str, have: Sequence[str] = (), python: str = "3.12", platform: str = "manylinux_2_28_x86_64"
    ) -> set[str]:
        target = wheels.environment(python, platform)
        return set(wheels.closure(wanted, have, lambda name: SHELF.get(name, []), target))

    return find


def test_everything_is_followed_through_circles_other_spellings_and_extras(names: Callable[..., set[str]]) -> None:
    assert names("root", have=["torch"]) == {"root", "plain", "deep-name", "with-extra", "quick"}


def test_what_is_there_is_left_out_and_so_is_what_nothing_else_needs(names: Callable[..., set[str]]) -> None:
    assert {"nvidia-cudnn", "shared", "torch"} <= names("root")
    assert not {"nvidia-cudnn", "shared", "torch"} & names("root", have=["Torch"])
    assert "shared" in names("root[test]", have=["torch"])  # the tests need it too


def test_markers_are_those_of_the_other_machine(names: Callable[..., set[str]]) -> None:
    assert "old-python" in names("root", python="3.11")
    assert "old-python" not in names("root", python="3.12")
    assert "windows-only" in names("root", platform="win_amd64")
    assert "arm-only" in names("root", platform="manylinux_2_28_aarch64")
    assert not {"windows-only", "arm-only"} & names("root")


def test_an_extra_is_followed_only_where_it_is_asked_for(names: Callable[..., set[str]]) -> None:
    assert "tester" not in names("root")
    assert "tester" in names("root[test]")
    assert "slow" not in names("root")


def test_all_requirements_of_a_distribution_are_known(wheels: ModuleType) -> None:
    target = wheels.environment("3.12", "manylinux_2_28_x86_64")
    found = wheels.closure(["root[test]"], [], lambda name: SHELF.get(name, []), target)
    assert {str(one.specifier) for one in found["shared"]} == {"", ">=2"}


def test_the_same_modules_under_another_name_are_there_too(wheels: ModuleType) -> None:
    target = wheels.environment("3.12", "manylinux_2_28_x86_64")
    assert wheels.closure(["opencv-python"], ["opencv-python-headless"], lambda name: [], target) == {}


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("torch, numpy", ["torch", "numpy"]),
        ("Package    Version\n---------- -------\ntorch      2.11.0+cu130\nPy_YAML 6.0\n", ["torch", "Py_YAML"]),
        ("torch,numpy,\nPy_YAML\n", ["torch", "numpy", "Py_YAML"]),
        ("torch==2.11.0\nmine @ file:///tmp/mine\n-e /some/where\n# a comment\n", ["torch", "mine"]),
    ],
)
def test_what_is_there_comes_as_a_list_or_from_pips_own_output(
    wheels: ModuleType, text: str, names: list[str], tmp_path: Path
) -> None:
    if "\n" in text:
        path = tmp_path / "have.txt"
        path.write_text(text)
        text = str(path)
    assert wheels.names_in(text) == names


def test_a_platform_takes_wheels_of_older_ones(wheels: ModuleType) -> None:
    tags = wheels.tags("manylinux_2_28_x86_64")
    assert tags[0] == "manylinux_2_28_x86_64"
    assert {"manylinux_2_17_x86_64", "manylinux2014_x86_64", "manylinux1_x86_64"} <= set(tags)
    assert "manylinux_2_31_x86_64" not in tags
    assert wheels.tags("win_amd64") == ["win_amd64"]
