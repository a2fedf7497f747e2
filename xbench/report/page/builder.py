"""A report's folder: data, tables, figures and the page; written beside and put in place whole."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xbench.errors import UserError
from xbench.report.page.html import render
from xbench.report.page.rankings import Place, place_data, places
from xbench.report.page.scripts import data_script
from xbench.report.page.sprites import gallery_data, ramps, strip_data
from xbench.report.page.tables import csv_table, latex_overview, latex_ranking
from xbench.results.counterfactuals import read_counterfactuals
from xbench.results.curves import read_curves
from xbench.results.gallery import read_galleries
from xbench.results.naming import file_name
from xbench.runtime.files import folder_beside, replace_folder, write_text

if TYPE_CHECKING:
    from xbench.comparison import Comparison
    from xbench.report.page.source import Source

MARK = "data/report.js"
"""The file by which a folder is known to be a report, which another report may replace."""

_WORDS = {"models": "What each class would like to see", "training": "Losses and accuracy by epoch"}


def write_report(
    comparison: Comparison,
    sources: Sequence[Source],
    out: Path,
    title: str = "",
    figures: bool = True,
    note: Callable[[str], None] = lambda _: None,
) -> Path:
    """Write the report of one or several runs; a folder that holds a report is replaced.

    Args:
        comparison: All that can be said of the runs' differences.
        sources: The runs compared, in the same order.
        out: The folder.
        title: Of the page; made from the runs if empty.
        figures: Whether to draw the figures for papers (SVG and PDF), which takes the most time.
        note: Told what is being done.

    Returns:
        The page, `out`/index.html.

    Raises:
        UserError: `out` is something else than a report, can't be written, or a file of a run can't be read.
    """
    if out.exists() and not (out / MARK).is_file() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} exists and is not a report", "name another with --out")
    try:
        with folder_beside(out) as partial:
            _Writer(comparison, sources, partial, note).write(title, figures)
            replace_folder(partial, out)
    except OSError as error:
        where = error.filename or out
        raise UserError(f"can't write {where}: {error.strerror or error}", "name another place with --out") from error
    return out / "index.html"


class _Writer:
    """What the parts of one report share.

    Args:
        comparison: Of the runs.
        sources: The runs.
        folder: Where to write.
        note: Told what is being done.
    """

    def __init__(
        self, comparison: Comparison, sources: Sequence[Source], folder: Path, note: Callable[[str], None]
    ) -> None:
        self.comparison, self.sources, self.folder, self.note = comparison, sources, folder, note
        curves = ((source.name, table) for source in sources for table in read_curves(source.folder))
        self.places = places(comparison, curves)
        self.stems: set[str] = set()

    def write(self, title: str, figures: bool) -> None:
        """Everything, the page last."""
        _copy_assets(self.folder)
        drawn = [self._place(at, place, figures) for at, place in enumerate(self.places)]
        write_text(self.folder / "tables" / "scores.csv", csv_table(self.comparison.rankings))
        index = {
            "places": drawn,
            "galleries": self._galleries(),
            "strips": self._strips(),
            "ramps": ramps(),
        }
        write_text(self.folder / MARK, data_script("report", index))
        page = render(self.comparison, self.sources, self.places, title, self._pictures(), index)
        write_text(self.folder / "index.html", page)

    def _place(self, at: int, place: Place, figures: bool) -> dict[str, Any]:
        """Data, tables and figures of a place; what the page knows of it before it loads the data."""
        files: dict[int, dict[str, str]] = {}
        for number, ranking in enumerate(place.rankings):
            setting = ranking.group.setting
            stem = self._stem(place.dataset, place.model, setting.metric, setting.sign)
            files[number] = {
                "csv": self._text(f"tables/{stem}.csv", csv_table([ranking])),
                "tex": self._text(f"tables/{stem}.tex", latex_ranking(ranking)),
            }
        overviews = {
            sign: self._text(
                f"tables/{self._stem(place.dataset, place.model, 'all-metrics', sign)}.tex",
                latex_overview(place, sign),
            )
            for sign in place.signs
        }
        drawings: Mapping[tuple[str, str], dict[str, str]] = {}
        if figures:
            from xbench.report.page.figures import draw_figures

            drawings = draw_figures(place, self.folder, self.note)
            for number, ranking in enumerate(place.rankings):
                files[number] |= drawings.get(("scores", ranking.group.setting.metric), {})
        runs = self.comparison.runs
        data = place_data(place, runs, files)
        for table in data["curves"]:
            table["files"] = drawings.get(("curves", f"{table['metric']} {table['sign']}"), {})
        for agreement in data["agreements"]:
            agreement["files"] = drawings.get(("agreement", agreement["place"]), {})
        script = self._text(f"data/place-{at}.js", data_script(f"place-{at}", data))
        return {
            "dataset": place.dataset,
            "model": place.model,
            "signs": place.signs,
            "metrics": place.metrics,
            "overviews": overviews,
            "script": script,
        }

    def _galleries(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        for source in self.sources:
            for arrays in read_galleries(source.folder):
                self.note(f"gallery of {arrays.dataset} / {arrays.model}")
                name = f"gallery-{len(found)}"
                script = self._text(f"data/{name}.js", data_script(name, gallery_data(arrays)))
                found.append({"run": source.name, "dataset": arrays.dataset, "model": arrays.model, "script": script})
        return found

    def _strips(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        for source in self.sources:
            for arrays in read_counterfactuals(source.folder):
                self.note(f"counterfactuals of {arrays.explainer}")
                name = f"strips-{len(found)}"
                script = self._text(f"data/{name}.js", data_script(name, strip_data(arrays)))
                about = {"run": source.name, "dataset": arrays.dataset, "model": arrays.model}
                found.append(about | {"explainer": arrays.explainer, "script": script})
        return found

    def _pictures(self) -> dict[str, list[dict[str, str]]]:
        """Figures of the runs that the page shows as they are: class views and trainings, by run."""
        found: dict[str, list[dict[str, str]]] = {}
        for source in self.sources:
            for kind, usual in _WORDS.items():
                for path in sorted((source.folder / kind).glob("*.svg")):
                    target = self.folder / "pictures" / f"{self._stem(kind, path.stem)}.svg"
                    target.parent.mkdir(exist_ok=True)
                    shutil.copyfile(path, target)
                    words = "Calibration" if path.stem.endswith("--calibration") else usual
                    about = {"words": words, "name": path.stem, "path": target.relative_to(self.folder).as_posix()}
                    found.setdefault(source.name, []).append(about)
        return found

    def _stem(self, *words: str) -> str:
        """A file name that nothing else in this report has."""
        stem = wanted = file_name(*words)
        number = 1
        while stem.lower() in self.stems:  # some file systems don't tell a from A
            number += 1
            stem = f"{wanted}-{number}"
        self.stems.add(stem.lower())
        return stem

    def _text(self, name: str, text: str) -> str:
        write_text(self.folder / name, text)
        return name


def _copy_assets(folder: Path) -> None:
    target = folder / "assets"
    target.mkdir()
    for asset in resources.files("xbench.report.page").joinpath("assets").iterdir():
        if asset.name.endswith((".css", ".js")):
            (target / asset.name).write_bytes(asset.read_bytes())
