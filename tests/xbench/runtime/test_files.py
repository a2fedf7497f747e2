"""Files and folders are there whole or not at all."""

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from xbench.runtime.files import PARTIAL, folder_beside, replace_folder, whole_file, write_text
from xbench.runtime.mapped import writing


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_takes_its_name_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.txt"
    with whole_file(path) as file:
        file.write(b"half")
        assert not path.exists()
        assert all(name.startswith(".") and name.endswith(PARTIAL) for name in names(path.parent))
    assert names(path.parent) == ["a.txt"]
    assert path.read_bytes() == b"half"


def test_what_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "old\r\n")
    with pytest.raises(TypeError), whole_file(path) as file:
        file.writelines([b"half", None])
    with pytest.raises(RuntimeError), writing(path, "<f4", (2,)):
        raise RuntimeError
    assert names(tmp_path) == ["a.txt"]
    assert path.read_bytes() == b"old\r\n"


def test_two_writers_of_one_file_do_not_mix(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    with whole_file(path) as first, whole_file(path) as second:
        first.write(b"first")
        second.write(b"2")
    assert path.read_bytes() == b"first"  # the one that ends last
    assert names(tmp_path) == ["a.txt"]


def test_a_kill_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "old")
    script = f"""
        import os, signal
        from pathlib import Path
        from xbench.runtime.files import whole_file
        with whole_file(Path({str(path)!r})) as file:
            file.write(b"half")
            file.flush()
            os.kill(os.getpid(), signal.SIGKILL)
    """
    ended = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=False, env=os.environ)
    assert ended.returncode == -signal.SIGKILL
    assert path.read_text() == "old"
    assert [name for name in names(tmp_path) if not name.startswith(".")] == ["a.txt"]


def test_a_folder_is_filled_beside_and_replaces_another(tmp_path: Path) -> None:
    target = tmp_path / "report"
    for text in ("one", "two"):
        with folder_beside(target) as partial:
            write_text(partial / text, text)
            replace_folder(partial, target)
        assert names(target) == [text]
    with pytest.raises(OSError, match="half"), folder_beside(target) as partial:
        (partial / "half").read_bytes()
    assert names(tmp_path) == ["report"]
    assert names(target) == ["two"]
