"""Files that are no submission: wrong bytes, cut off, too large, not a file; each is refused by file and line."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from xbench.errors import UserError
from xbench.leaderboard import build

_FORMS = {
    "byte-order mark": (lambda raw: b"\xef\xbb\xbf" + raw, "byte-order mark"),
    "not UTF-8": (lambda raw: raw.replace(b"gradient", b"gr\xe4dient", 1), "(line 1) is wrong"),
    "UTF-16": (lambda raw: raw.decode().encode("utf-16"), "not UTF-8"),
    "empty": (lambda raw: b"", "empty or cut off"),
    "cut inside a line": (lambda raw: raw[:-40], "empty or cut off"),
    "cut between lines": (lambda raw: b"".join(raw.splitlines(True)[:-2]), "line 1, rows: 9 rows are promised and 7"),
    "header only": (lambda raw: raw.splitlines(True)[0], "line 1, rows: there is no row"),
    "cut line with an end": (lambda raw: raw[:-40] + b"\n", "line 10: not JSON at column"),
    "blank line": (lambda raw: raw.replace(b"\n", b"\n\n", 1), "line 2: not JSON at column 1"),
    "a list": (lambda raw: raw + b"[1]\n", "line 11: a list, not an object"),
    "NaN": (lambda raw: raw.replace(b'"ci_low":0', b'"ci_low":NaN,"x":0', 1), "line 2: NaN is no JSON"),
    "infinity": (lambda raw: raw.replace(b'"ci_low":0', b'"ci_low":-Infinity,"x":0', 1), "line 2: -Infinity"),
    "overflow": (lambda raw: raw.replace(b'"ci_low":0', b'"ci_low":1e999,"x":0', 1), "line 2: '1e999' is no finite"),
    "digits": (lambda raw: raw.replace(b'"n":60', b'"n":' + b"9" * 5000, 1), "line 2: not JSON: "),
    "large integer": (lambda raw: raw.replace(b'"n":60', b'"n":' + b"9" * 400, 1), "line 2, n: "),
    "large number": (lambda raw: raw.replace(b'"ci_low":', b'"ci_low":' + b"9" * 400 + b',"x":', 1), "line 2"),
    "duplicate key": (lambda raw: raw.replace(b'"n":60', b'"n":60,"n":61', 1), "line 2, n: key 'n' is there twice"),
    "nested": (lambda raw: raw.replace(b'"note":""', b'"note":' + b"[" * 30 + b"]" * 30, 1), "more than 20 deep"),
    "deeply nested": (lambda raw: b"[" * 100_000 + b"\n", "nested too deeply"),
    "edited value": (lambda raw: raw.replace(b'"value":0', b'"value":1', 1), "line 1, digest: does not fit"),
    "long row": (lambda raw: raw + b'{"x":"' + b"x" * 300_000 + b'"}\n', "line 11: a row of 300008 characters"),
}


@pytest.mark.parametrize("name", _FORMS)
def test_wrong_bytes_are_refused(handed_in: Path, name: str, findings: Callable[..., list[str]]) -> None:
    change, expected = _FORMS[name]
    handed_in.write_bytes(change(handed_in.read_bytes()))
    found = findings(handed_in)
    assert any(expected in text for text in found), found
    assert all(text.startswith(str(handed_in)) for text in found)
    with pytest.raises(UserError, match=handed_in.name):
        build(handed_in.parent.parent)


def test_links_folders_and_huge_files_are_not_read(
    handed_in: Path, monkeypatch: pytest.MonkeyPatch, findings: Callable[..., list[str]]
) -> None:
    link = handed_in.with_name("quick-v1-s0-000000000000.jsonl")
    link.symlink_to("/etc/passwd")
    assert findings(link) == [f"{link}: it is a symbolic link; a submission is a plain file"]
    folder = handed_in.with_name("folder.jsonl")
    folder.mkdir()
    assert "it is not a file" in findings(folder)[0]
    assert "No such file" in findings(handed_in.with_name("nowhere.jsonl"))[0]
    huge = handed_in.with_name("huge.jsonl")
    with huge.open("wb") as file:
        os.truncate(file.fileno(), 40 << 20)
    assert "40 MiB are more than the 32 MiB allowed" in findings(huge)[0]
    monkeypatch.setattr("xbench.leaderboard.reading.MOST_ROWS", 3)
    assert "9 rows are more than the 3 allowed" in findings(handed_in)[0]
