from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from xbench.contracts.session import Progress, Session
from xbench.jobs.store import Store

if TYPE_CHECKING:
    from tests.conftest import Shelf


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from xbench.cli import main\n"
        "try: main(['--help'])\nexcept SystemExit: pass\n"
        "heavy = {'torch', 'numpy', 'pandas', 'pydantic', 'rich', 'pluggy', 'timm'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "xbench run --explainer vinet --metric fidelity" in done.stdout


@pytest.mark.parametrize("words", [("list",), ("show", "explainer", "vinet"), ("run", "--help"), ("cache", "--help")])
def test_looking_around_imports_no_torch(words: tuple[str, ...]) -> None:
    code = (
        f"import sys; from xbench.cli import main\ntry: main({list(words)})\n"
        "except SystemExit as end: assert not end.code\nassert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_list_names_everything_and_who_brought_it(
    command: Callable[..., subprocess.CompletedProcess[str]], shelf: Shelf
) -> None:
    shelf.install("broken_one", "import nothing_of_that_name")
    done = command("list")
    assert done.returncode == 0
    for name in ("lidc-phantom", "convnet", "timm:<a timm classifier>", "vinet", "blurred:<explainer>", "fidelity"):
        assert name in done.stdout
    assert "broken_one of broken-one can't be used" in done.stdout


def test_show_gives_options_defaults_and_reference(command: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    done = command("show", "metric", "fidelity")
    assert done.returncode == 0
    assert re.search(r"step\s+float\s+0\.025", done.stdout)
    assert "Brocki" in done.stdout


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("show", "explainer", "vinett"), "did you mean vinet?"),
        (("rum",), "did you mean run?"),
        (("run", "--explainr", "vinet"), "--explainer"),
        (("run",), "Usage"),
        (("cache", "prune"), "say what to delete"),
        (("supports", "--model", "timm:restnet"), "did you mean resnet"),
        (("supports", "--model", "convnet", "--classes", "1"), "x>=2"),
        (("supports", "--model", "convnet", "--markdown", "/nowhere/of/that/name/x.md"), "make it first"),
    ],
)
def test_mistakes_exit_with_2_and_no_traceback(
    command: Callable[..., subprocess.CompletedProcess[str]], words: tuple[str, ...], expected: str
) -> None:
    done = command(*words)
    assert done.returncode == (2 if words != ("run",) else done.returncode)
    assert expected in done.stderr + done.stdout
    assert "Traceback" not in done.stderr


class _Item:
    kind, label = "toy", "a toy"

    def __init__(self) -> None:
        from xbench.provenance import digest

        self.fingerprint = digest(self.recipe())

    def recipe(self) -> dict[str, Any]:
        return {"toy": 1}

    def session(self, folder: Path, progress: Progress) -> Session:
        return Session(folder, progress=progress)

    def build(self, session: Session) -> None:
        (session.folder / "file.bin").write_bytes(b"x" * 1_000_000)


def test_cache_lists_verifies_and_prunes(
    command: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    store, item = Store(tmp_path / "cache"), _Item()
    store.ensure(item)
    assert "a toy" in command("cache", "list").stdout
    assert re.search(r"total\s+1\.0 MB", command("cache", "size").stdout)
    assert "1 artifacts, 0 damaged" in command("cache", "verify").stdout
    (store.folder(item) / "file.bin").write_bytes(b"y" * 1_000_000)
    verified = command("cache", "verify")
    assert verified.returncode == 1
    assert "file.bin was altered" in verified.stdout
    assert "would delete" in command("cache", "prune", "--everything", "--dry-run").stdout
    assert store.has(item)
    assert command("cache", "prune", "--everything").returncode == 0
    assert not store.has(item)
