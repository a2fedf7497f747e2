"""Whatever a plugin computes with is in the fingerprint of what it computes, however it is installed."""

import importlib
import importlib.metadata
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from xbench import ExplainerSpec, PluginError
from xbench.registry import libraries, plugin_code
from xbench.registry.discovery import discover
from xbench.registry.entries import Entry
from xbench.registry.references import choose

SOURCE = "from xbench import hookimpl\n"


class Place:
    """A folder on the import path, with distributions in it that a test writes file by file."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def write(self, files: dict[str, str]) -> None:
        """Write files: path to text."""
        for name, text in files.items():
            path = self.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    def describe(self, name: str, requires: Sequence[str] = (), **more: Any) -> None:
        """The metadata of a distribution whose entry point is the module of its name; `more`: further files."""
        info = f"{name}-1.0.dist-info"
        lines = [f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0", *(f"Requires-Dist: {one}" for one in requires)]
        self.write({f"{info}/METADATA": "\n".join(lines) + "\n"})
        self.write({f"{info}/entry_points.txt": f"[xbench]\n{name} = {name}\n"})
        self.write({f"{info}/{file}": text for file, text in more.items()})


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    folder = tmp_path / "place"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    before = set(sys.modules)
    yield Place(folder)
    for name in set(sys.modules) - before:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]
    forget()


def forget() -> None:
    for cached in (plugin_code._source, plugin_code._libraries, plugin_code._dependencies, libraries._all_providing):
        cached.cache_clear()
    importlib.invalidate_caches()


def code(distribution: str = "mine", factory: str = "mine:Mine", **more: Any) -> Any:
    """The code of an item, as a new process finds it."""
    forget()
    return plugin_code.code_of(
        Entry(ExplainerSpec("mine", "a stranger's", factory=factory, **more), distribution, "1.0")
    )


def test_a_single_module_counts_and_its_neighbours_do_not(place: Place) -> None:
    place.write({"mine.py": SOURCE, "other.py": SOURCE})
    place.describe("mine")
    before = code()
    place.write({"other.py": "x = 1\n"})
    assert code() == before
    place.write({"mine.py": SOURCE + "x = 1\n"})
    assert code() != before


def test_data_of_a_package_counts_and_what_python_compiled_does_not(place: Place) -> None:
    place.write({"mine/__init__.py": SOURCE, "mine/data/table.csv": "1", "mine/deep/inner.py": ""})
    place.describe("mine")
    before = code()
    place.write({"mine/__pycache__/x.pyc": "1", "mine/deep/__pycache__/y.txt": "1", "mine/z.pyc": "1"})
    assert code() == before
    for changed in ("mine/data/table.csv", "mine/deep/inner.py"):
        text = (place.folder / changed).read_text()
        place.write({changed: text + "2"})
        assert code() != before
        place.write({changed: text})
    place.write({"mine/data/another.csv": ""})
    assert code() != before


def test_a_plain_folder_counts_all_that_the_modules_import(place: Place) -> None:
    imports = "def f():\n    from mine_core.deep import thing\n    import single\n    import not_installed\n"
    place.write(
        {"mine/__init__.py": SOURCE + imports, "mine_core/__init__.py": "", "mine_core/deep.py": "import third"}
    )
    place.write({"single.py": "", "third.py": "", "unrelated.py": ""})
    place.describe("mine")
    before = code()
    place.write({"unrelated.py": "x = 1"})
    assert code() == before
    for changed in ("mine_core/deep.py", "mine_core/__init__.py", "single.py", "third.py"):
        text = (place.folder / changed).read_text()
        place.write({changed: text + "\nx = 1\n"})
        assert code() != before, changed
        place.write({changed: text})
    assert code() == before


def test_rooms_of_xbench_that_compute_nothing_count_for_who_imports_them(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.write({"mine.py": "from xbench.testing import fakes"})
    place.describe("mine")
    whole, brought = plugin_code._imported_files, set()

    def watched(*given: Any) -> Any:
        imported = whole(*given)
        brought.update("/".join(Path(path).parts[:2]) for path in imported)
        return imported

    monkeypatch.setattr(plugin_code, "_imported_files", watched)
    code()
    assert brought == {"xbench/testing"}


@pytest.mark.parametrize("kind", ["file", "folder", "module", "package"])
def test_what_an_item_declares_counts_by_content(place: Place, tmp_path: Path, kind: str) -> None:
    place.write({"mine.py": SOURCE, "helper.py": "", "helpers_of/__init__.py": "", "helpers_of/deep.py": ""})
    place.describe("mine")
    data = Place(tmp_path / "data")
    data.write({"table.csv": "1", "folder/deep/a.bin": "1"})
    wanted, where, changed = {
        "file": (data.folder / "table.csv", data, "table.csv"),
        "folder": (data.folder / "folder", data, "folder/deep/a.bin"),
        "module": ("helper", place, "helper.py"),
        "package": ("helpers_of", place, "helpers_of/deep.py"),
    }[kind]
    before = code(depends_on=(wanted,))
    assert before != code()
    where.write({changed: "x = 2"})
    assert code(depends_on=(wanted,)) != before
    assert code(depends_on=(wanted,))["source"] == before["source"]


@pytest.mark.parametrize(
    ("wanted", "words"),
    [("gone.csv", "'.*gone.csv' does not exist"), ("empty", "no file of empty can be hashed")],
)
def test_a_declared_file_that_is_not_there_is_the_plugins_fault(
    place: Place, tmp_path: Path, wanted: str, words: str
) -> None:
    place.write({"mine.py": SOURCE})
    (tmp_path / "empty").mkdir()
    with pytest.raises(PluginError, match=words):
        code(depends_on=(tmp_path / wanted,))


@pytest.mark.parametrize("wanted", ["data/table.csv", "table.csv ", ""])
def test_a_string_that_names_no_module_is_refused(wanted: str) -> None:
    with pytest.raises(PluginError, match="is not the name of a module"):
        ExplainerSpec("mine", "s", factory="mine:Mine", depends_on=(wanted,))


def test_a_relative_path_is_refused(tmp_path: Path) -> None:
    relative = type(tmp_path)("table.csv")
    with pytest.raises(PluginError, match=r"'table\.csv' is not absolute"):
        ExplainerSpec("mine", "s", factory="mine:Mine", depends_on=(relative,))


def test_code_without_a_file_is_no_empty_hash(place: Place) -> None:
    with pytest.raises(PluginError, match=r"explainer mine \(mine 1.0\) .* module mine can't be found"):
        code()
    with pytest.raises(PluginError, match="no file of module itertools can be hashed: its origin is built-in"):
        code(factory="itertools:chain")
    place.write({"folder/notes.txt": ""})
    with pytest.raises(PluginError, match="folder is a folder without a module"):
        code(factory="folder:Mine")


def test_an_item_whose_code_can_not_be_hashed_is_not_made(place: Place, tmp_path: Path) -> None:
    spec = f"""ExplainerSpec("bare", "s", factory="mine:Mine", depends_on=(Path({str(tmp_path / "gone")!r}),))"""
    place.write(
        {
            "mine.py": "from pathlib import Path\nfrom xbench import Explainer, ExplainerSpec, hookimpl\n"
            f"@hookimpl\ndef xbench_explainers():\n    yield {spec}\n"
            "class Mine(Explainer):\n    def attribute(self, model, images, targets):\n        return images\n"
        }
    )
    place.describe("mine")
    forget()
    choice = choose("explainer", "bare", discover())
    for ask in (choice.create, choice.identity):
        with pytest.raises(
            PluginError, match=r"the code of explainer bare \(mine 1.0\) can't be hashed, so its results can't be kept"
        ):
            ask()


def test_a_built_in_counts_its_own_libraries_and_not_those_of_others(monkeypatch: pytest.MonkeyPatch) -> None:
    registry = discover()

    def identities() -> list[Any]:
        forget()
        items = (("metric", "quantus:Sparseness"), ("explainer", "gradient"), ("metric", "fidelity"))
        return [choose(*item, registry).identity() for item in items]

    quantus, *others = identities()
    names = ("quantus", "scikit-image", "opencv-python", "scikit-learn")  # what Quantus computes with
    assert quantus["libraries"] == {name: importlib.metadata.version(name) for name in names}
    version = importlib.metadata.version
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "99" if name == "quantus" else version(name))
    changed, *same = identities()
    assert changed != quantus
    assert same == others
    monkeypatch.undo()
    forget()


def test_the_working_folder_is_not_read_for_a_name_in_a_docstring(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.write({"mine.py": '"""\nfrom data import nothing\n"""\n', "data/huge.bin": "1"})
    place.describe("mine")
    before = code()
    monkeypatch.chdir(place.folder)
    place.write({"data" + os.sep + "huge.bin": "2"})
    assert code() == before
