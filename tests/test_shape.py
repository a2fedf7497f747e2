"""The house rules that a reader can't see from one file."""

import configparser
import importlib.metadata
import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent
SOURCES = [*ROOT.glob("xbench/**/*.py"), *ROOT.glob("plugins/**/*.py")]


def test_no_file_is_too_long_and_none_is_a_dumping_ground():
    assert len(SOURCES) > 50
    for path in SOURCES:
        assert path.read_text().count("\n") <= 350, path
        assert not re.fullmatch(r"(utils?|helpers?|common|misc)", path.stem), path


def test_every_plugin_folder_is_an_entry_point_and_installed():
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]["xbench"]
    folders = {path.name for path in (ROOT / "plugins").iterdir() if (path / "__init__.py").exists()}
    assert set(declared.values()) == folders
    installed = {
        point.value
        for point in importlib.metadata.entry_points(group="xbench")
        if point.dist and point.dist.name == "xbench"
    }
    assert installed == folders, "install again: pip install -e ."


def test_the_import_contracts_know_every_plugin():
    text = (ROOT / ".importlinter").read_text()
    for folder in (ROOT / "plugins").iterdir():
        if (folder / "__init__.py").exists():
            assert text.count(folder.name) == 4, folder.name


def test_plugins_name_their_papers():
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


def test_the_hooks_of_a_commit_are_the_checks_of_the_lint_environment():
    tox = configparser.ConfigParser()
    tox.read(ROOT / "tox.ini")
    checks = tox["testenv:lint"]["commands"].split("\n")
    hooks = re.findall(r"^ +entry: (.+)$", (ROOT / ".pre-commit-config.yaml").read_text(), re.M)
    assert hooks == [check for check in checks if check]


def test_the_citation_names_whom_and_what_the_package_names():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    citation = (ROOT / "CITATION.cff").read_text()
    assert re.findall(r"^  - name: (.+)$", citation, re.M) == [author["name"] for author in project["authors"]]
    assert re.findall(r"^  - ([^:\n]+)$", citation, re.M) == project["keywords"]
    assert f"license: {project['license']}\n" in citation
