"""Write a leaderboard's folder of pages, whole or not at all."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from xbench.errors import UserError
from xbench.leaderboard.records import Submission
from xbench.leaderboard.site.editions import Edition, editions
from xbench.leaderboard.site.pages import Links, render_edition, render_index
from xbench.leaderboard.site.place_data import Origins, differences_data, rankings_data
from xbench.leaderboard.tables import derived
from xbench.report.page.scripts import data_script
from xbench.results.naming import file_name
from xbench.runtime.files import folder_beside, replace_folder, write_text

REPORTS = "reports"
"""Folder of a leaderboard that may hold reports: `reports/<name of a submission's file, without .jsonl>/`."""

_MARK = "assets/site.js"  # the file by which a folder is known to be a site, which another may replace
_ASSETS = {
    "xbench.report.page": ("base.css", "page.css", "table.js"),
    "xbench.leaderboard.site": ("site.css", "site.js", "rankings.js", "compare.js", "details.js"),
}


def write_site(submissions: Sequence[Submission], out: Path, reports: Path | None = None) -> Path:
    """Write the pages of a leaderboard; a folder that holds such pages is replaced.

    Args:
        submissions: Submissions in the order in which they were handed in.
        out: The folder.
        reports: Folder of reports, one a submission, to be copied and linked; what else is in it is left alone.

    Returns:
        The page that lists the suites, `out`/index.html.

    Raises:
        UserError: `out` is something else than a site, or can't be written.
    """
    if out.exists() and not (out / _MARK).is_file() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} exists and is not a leaderboard's site", "name another with --out")
    try:
        with folder_beside(out) as partial:
            _write(submissions, partial, reports)
            replace_folder(partial, out)
    except OSError as error:
        where = error.filename or out
        raise UserError(f"can't write {where}: {error.strerror or error}", "name another place with --out") from error
    return out / "index.html"


def _write(submissions: Sequence[Submission], folder: Path, reports: Path | None) -> None:
    _copy_assets(folder)
    for name, text in derived(submissions).items():
        write_text(folder / file_name(name), text)
    links = {submission.digest: _copy_report(submission, folder, reports) for submission in submissions}
    every = editions(submissions)
    for edition in every:
        _write_edition(edition, folder, links)
    write_text(folder / "index.html", render_index(every))


def _copy_assets(folder: Path) -> None:
    (folder / "assets").mkdir()
    for package, names in _ASSETS.items():
        for name in names:
            content = resources.files(package).joinpath("assets", name).read_bytes()
            (folder / "assets" / name).write_bytes(content)


def _copy_report(submission: Submission, folder: Path, reports: Path | None) -> Links:
    """Copy a submission's report and return links to it; none where there is no report, or it lies elsewhere."""
    name = file_name(submission.name.removesuffix(".jsonl"))
    if reports is None or reports.is_symlink() or (reports / name).is_symlink():
        return Links()
    if not (reports / name / "index.html").is_file():
        return Links()
    shutil.copytree(reports / name, folder / REPORTS / name, ignore=_symlinks)
    gallery = any((folder / REPORTS / name / "data").glob("gallery-*.js"))
    page = f"{REPORTS}/{name}/index.html"
    return Links(page, f"{page}#gallery" if gallery else "")


def _symlinks(folder: str, names: list[str]) -> list[str]:
    """Return the names that must not be published: a link may lead anywhere on this machine."""
    return [name for name in names if (Path(folder) / name).is_symlink()]


def _write_edition(edition: Edition, folder: Path, links: dict[str, Links]) -> None:
    stem, origins = edition.stem, Origins(edition.submissions)
    places: list[dict[str, Any]] = []
    for at, place in enumerate(edition.places):
        name = f"data/{stem}/place-{at}"
        texts = {"rankings": rankings_data(place, origins), "differences": differences_data(place)}
        for kind, data in texts.items():
            write_text(folder / f"{name}-{kind}.js", data_script(f"place-{at}-{kind}", data))
        places.append({"dataset": place.dataset, "model": place.model, "path": name})
    runs = [
        {
            "name": submission.name,
            "submitter": submission.submitter,
            "submitted": submission.submitted,
            "seed": submission.seed,
            "computed": "{} at precision {}".format(*submission.entries[0].row.computed),
            "note": submission.note,
            "report": links[submission.digest].report,
            "gallery": links[submission.digest].gallery,
        }
        for submission in edition.submissions
    ]
    index = {"places": places, "runs": runs, "origins": origins.records}
    write_text(folder / f"data/{stem}/suite.js", data_script("suite", index))
    write_text(folder / f"{stem}.html", render_edition(edition, links))
