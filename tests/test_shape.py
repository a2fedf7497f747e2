"""The house rules that a reader can't see from one file."""

import configparser
import importlib
import importlib.metadata
import pkgutil
import re
import runpy
import tomllib
from pathlib import Path

import xbench
from xbench.contracts import hookspecs
from xbench.contracts.specs import KINDS
from xbench.version import __version__

ROOT = Path(__file__).parent.parent
SOURCES = [*ROOT.glob("xbench/**/*.py"), *ROOT.glob("plugins/**/*.py")]


def _tox() -> configparser.ConfigParser:
    tox = configparser.ConfigParser()
    tox.read(ROOT / "tox.ini")
    return tox


def _commands(environment: str = "") -> list[str]:
    """Return what tox runs in an environment, by default in those of the tests."""
    return _tox()[f"testenv:{environment}" if environment else "testenv"]["commands"].strip().split("\n")


def test_no_file_is_too_long_and_none_is_a_dumping_ground() -> None:
    assert len(SOURCES) > 50
    for path in SOURCES:
        assert path.read_text().count("\n") <= 350, path
        assert not re.fullmatch(r"(utils?|helpers?|common|misc)", path.stem), path


def test_every_plugin_folder_is_an_entry_point_and_installed() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]["xbench"]
    folders = {path.name for path in (ROOT / "plugins").iterdir() if (path / "__init__.py").exists()}
    assert set(declared.values()) == folders
    installed = {
        point.value
        for point in importlib.metadata.entry_points(group="xbench")
        if point.dist and point.dist.name == "xbench"
    }
    assert installed == folders, "install again: pip install -e ."


def test_the_import_contracts_and_the_type_checker_know_every_plugin() -> None:
    layers = runpy.run_path(str(ROOT / "tests" / "layers.py"))
    text, typed = (
        layers["contracts"](),
        [
            path
            for pattern in tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["mypy"]["files"]
            for path in ROOT.glob(pattern)
        ],
    )
    for folder in (ROOT / "plugins").iterdir():
        if (folder / "__init__.py").exists():
            assert text.count(f"    {folder.name}\n") == 4, folder.name
            assert folder in typed, folder.name
    assert ROOT / "xbench" in typed
    assert "(plugins)" not in text.partition("\n")[2]
    assert "python tests/layers.py" in _commands("lint")
    assert "mypy" in _commands()


def test_every_room_of_the_core_has_its_layer() -> None:
    contracts = configparser.ConfigParser()
    contracts.read(ROOT / ".importlinter")
    ordered = re.split(r"[\s|]+", contracts["importlinter:contract:core"]["layers"].strip())
    rooms = [f"xbench.{module.name}" for module in pkgutil.iter_modules(xbench.__path__)]
    assert sorted(ordered) == sorted(rooms)


def test_no_room_of_the_core_names_another_in_a_string_where_no_contract_sees_it() -> None:
    for path in ROOT.glob("xbench/*/**/*.py"):
        named = set(re.findall(r"""["']xbench\.(\w+)[\w.]*:\w+["']""", path.read_text()))
        assert named <= {path.relative_to(ROOT / "xbench").parts[0]}, path


def test_tox_has_an_environment_for_every_python_that_is_promised() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    promised = re.findall(r"Python :: 3\.(\d+)", "\n".join(project["classifiers"]))
    assert project["requires-python"] == f">=3.{promised[0]}"
    tox = _tox()["tox"]
    assert tox["env_list"].split(", ") == ["lint", *(f"py3{minor}" for minor in promised)]
    assert tox["skip_missing_interpreters"] == "true"  # else a machine with one Python can't pass
    assert any(command.startswith("pytest ") for command in _commands())


def test_every_kind_has_its_hook() -> None:
    hooks = [name for name in vars(hookspecs) if name.startswith("xbench_")]
    assert hooks == [f"xbench_{kind}s" for kind in KINDS]


def test_every_family_lists_its_own_items_and_the_plugin_hands_them_all_over() -> None:
    from xbench.registry.discovery import discover

    offered = [entry.spec for entry in discover().entries.values()]
    lists = sorted((ROOT / "plugins").glob("**/specs.py"))
    assert len(lists) > 5
    for path in lists:
        package = ".".join(path.parent.relative_to(ROOT / "plugins").parts)
        for spec in importlib.import_module(f"{package}.specs").SPECS:
            assert spec in offered, f"{package} lists {spec.name}, the plugin does not"
            assert spec.factory.partition(":")[0].rpartition(".")[0] == package, spec.name


def test_plugins_name_their_papers() -> None:
    from xbench.contracts.specs import ExplainerSpec
    from xbench.registry.discovery import discover

    for entry in discover().entries.values():
        spec = entry.spec
        assert spec.summary
        control = isinstance(spec, ExplainerSpec) and spec.control
        if not control and spec.name not in ("quick", "phantoms", "full"):  # suites of no paper
            assert spec.reference, spec.name
        spec.load()
        spec.load_options()


def test_the_hooks_of_a_commit_are_the_checks_of_tox_but_for_the_tests() -> None:
    checks = [*_commands("lint"), *(command for command in _commands() if not command.startswith("pytest "))]
    assert re.findall(r"^ +entry: (.+)$", (ROOT / ".pre-commit-config.yaml").read_text(), re.M) == checks


def test_the_citation_names_whom_and_what_the_package_names() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    citation = (ROOT / "CITATION.cff").read_text()
    assert re.findall(r"^  - name: (.+)$", citation, re.M) == [author["name"] for author in project["authors"]]
    assert re.findall(r"^  - ([^:\n]+)$", citation, re.M) == project["keywords"]
    assert f"license: {project['license']}\n" in citation
    assert f"version: {__version__}\n" in citation
