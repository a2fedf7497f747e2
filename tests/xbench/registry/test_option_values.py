from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, RootModel

from xbench import Field, Options, UserError
from xbench.provenance import digest, file_digest
from xbench.registry.option_values import by_content


class Inner(BaseModel):
    table: Path | None = None
    width: int = 3


class Several(RootModel[list[Path]]):
    """A list as a model."""


@dataclass(frozen=True)
class Pair:
    table: Path
    width: int = 3


class PathOptions(Options):
    data: Path | None = Field(None, description="a file or a folder")
    several: tuple[Path, ...] = Field((), description="files")
    unordered: frozenset[Path] = Field(frozenset(), description="files")
    named: dict[str, Path] = Field({}, description="files")
    inner: Inner = Field(Inner(), description="a model")
    root: Several = Field(Several([]), description="a model of files")
    pair: Pair | None = Field(None, description="a dataclass")
    pairs: frozenset[tuple[Path, int]] = Field(frozenset(), description="files with a number")
    by_file: dict[Path, int] = Field({}, description="a number of each file")
    words: frozenset[str] = Field(frozenset(), description="texts")
    text: str = Field("a", description="a text")
    share: float = Field(0.5, description="a number")


def values(**options: Any) -> Any:
    return by_content(PathOptions(**options), "dataset mine")


def test_a_file_counts_by_content_whatever_it_is_called(tmp_path: Path) -> None:
    one, two = tmp_path / "one.csv", tmp_path / "two.csv"
    one.write_bytes(b"1")
    two.write_bytes(b"1")
    assert values(data=one)["data"] == {"sha256": file_digest(one)}
    assert values(data=one) == values(data=two)
    two.write_bytes(b"2")
    assert values(data=one) != values(data=two)


def test_a_folder_counts_by_all_files_under_it(tmp_path: Path) -> None:
    deep = tmp_path / "data" / "patient" / "slice.bin"
    deep.parent.mkdir(parents=True)
    deep.write_bytes(b"1")
    before = values(data=tmp_path / "data")
    deep.write_bytes(b"2")
    edited = values(data=tmp_path / "data")
    deep.rename(deep.with_name("other.bin"))
    renamed = values(data=tmp_path / "data")
    (tmp_path / "data" / "empty").write_bytes(b"")
    assert len({str(one["data"]) for one in (before, edited, renamed, values(data=tmp_path / "data"))}) == 4


def test_a_relative_path_is_that_of_the_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.csv").write_bytes(b"1")
    monkeypatch.chdir(tmp_path)
    assert values(data="a.csv") == values(data=tmp_path / "a.csv")


@pytest.mark.parametrize(
    "wrapped",
    [
        lambda path: {"several": (path, path)},
        lambda path: {"unordered": frozenset({path})},
        lambda path: {"named": {"a": path}},
        lambda path: {"inner": Inner(table=path)},
        lambda path: {"root": Several([path])},
        lambda path: {"pair": Pair(path)},
        lambda path: {"pairs": frozenset({(path, 1), (path, 2)})},
        lambda path: {"by_file": {path: 1}},
    ],
    ids=["tuple", "set", "table", "model", "root model", "dataclass", "nested set", "key"],
)
def test_paths_inside_other_values_count_by_content_too(tmp_path: Path, wrapped: Callable[..., Any]) -> None:
    path, other = tmp_path / "a.csv", tmp_path / "b.csv"
    path.write_bytes(b"1")
    other.write_bytes(b"1")
    before = values(**wrapped(path))
    assert before == values(**wrapped(other))
    path.write_bytes(b"2")
    assert before != values(**wrapped(path))


def test_a_path_that_leads_nowhere_is_its_text_and_no_file(tmp_path: Path) -> None:
    gone = tmp_path / "gone.csv"
    assert values(data=gone)["data"] == {"absent": str(gone)}
    assert values(data=gone) != values(data=tmp_path / "other.csv")
    gone.write_bytes(b"")
    assert "absent" not in values(data=gone)["data"]


def test_a_set_counts_the_same_in_any_order() -> None:
    """The order of a set of texts changes from process to process."""
    words = [f"word {number}" for number in range(20)]
    assert values(words=words)["words"] == values(words=words[::-1])["words"]
    assert values(words=words)["words"] == sorted(words, key=digest)


def test_other_options_stay_as_they_are() -> None:
    assert values() == PathOptions().model_dump(mode="json")


def test_a_file_that_can_not_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b"1")

    def refuse(path: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("xbench.registry.option_values.content_digest", refuse)
    with pytest.raises(UserError, match=r"dataset mine: option data: .*a\.csv can't be read: .*Permission denied"):
        values(data=path)
