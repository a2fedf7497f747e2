"""The score chart: every explainer's value with its 95 % interval, best first."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from xbench.report.canvas import BLUE, FAINT, INK, KINDS, MUTED, VERMILLION, drawing, save
from xbench.results.rows import ScoreRow

_SIGNS = {"original": ("o", BLUE), "absolute": ("D", VERMILLION)}


def score_chart(stem: Path, title: str, rows: Sequence[ScoreRow], kinds: Sequence[str] = KINDS) -> list[Path]:
    """Draw the values and intervals of one metric on one dataset and model.

    Both signs of a map share a line, and controls are grey. The band is the interval of the random control. Cells
    without a value stand below, with the reason in a word.

    Args:
        stem: Path without suffix.
        title: The heading of the figure.
        rows: The scores of one metric, dataset and model.
        kinds: Which files to write.

    Returns:
        The files, by default SVG and PNG; none without rows.
    """
    if not rows:
        return []
    names = _ranked(rows)
    signs = [sign for sign in _SIGNS if any(row.sign == sign for row in rows)]
    longest = max(len(name) for name in names)
    left, right = max(0.9, 0.35 + 0.075 * longest), 1.2
    width, height = left + 3.6 + right, 0.21 * len(names) + 1.2
    with drawing(width, height, title) as figure:
        panel = figure.add_axes((left / width, 0.5 / height, 3.6 / width, 1 - 1.2 / height))
        _random_band(panel, rows)
        for row in rows:
            _dot(panel, row, names.index(row.explainer) + (signs.index(row.sign) - (len(signs) - 1) / 2) * 0.34)
        _axes(panel, rows, names)
        for name in names:
            _note(panel, names.index(name), [row for row in rows if row.explainer == name])
        panel.text(
            1.02, -0.95, "rank, 95 %", transform=panel.get_yaxis_transform(), color=MUTED, fontsize=7, va="center"
        )
        markers: list[Artist] = [
            Line2D([], [], color=_SIGNS[sign][1], marker=_SIGNS[sign][0], markersize=4, label=f"{sign} map")
            for sign in signs
        ]
        if any(row.control for row in rows):
            markers.append(Line2D([], [], color=MUTED, marker="o", markersize=4, label="control"))
        if any(_is_random(row) for row in rows):
            markers.append(Patch(facecolor=FAINT, alpha=0.55, label="95 % interval of random"))
        corner = (0.02 / width, 1 - 0.27 / height)
        figure.legend(handles=markers, loc="upper left", bbox_to_anchor=corner, ncols=len(markers), handlelength=1.8)
        return save(figure, stem, kinds)


def _ranked(rows: Sequence[ScoreRow]) -> list[str]:
    """Sort the explainers by their better sign, best first, and those without any value last."""
    best: dict[str, float] = {}
    for row in rows:
        worth = -math.inf if math.isnan(row.value) else row.value if row.higher_is_better else -row.value
        best[row.explainer] = max(worth, best.get(row.explainer, -math.inf))
    return sorted(best, key=lambda name: (-best[name], name))


def _dot(panel: Axes, row: ScoreRow, height: float) -> None:
    if math.isnan(row.value):
        return
    marker, colour = _SIGNS[row.sign]
    colour = MUTED if row.control else colour
    if not math.isnan(row.ci_low + row.ci_high):
        panel.plot([row.ci_low, row.ci_high], [height, height], color=colour, linewidth=1.6, solid_capstyle="butt")
    panel.plot(row.value, height, marker, color=colour, markersize=4.2, markeredgecolor="white", markeredgewidth=0.6)


def _is_random(row: ScoreRow) -> bool:
    return row.control and row.explainer == "random" and not math.isnan(row.ci_low + row.ci_high)


def _random_band(panel: Axes, rows: Sequence[ScoreRow]) -> None:
    random = [row for row in rows if _is_random(row)]
    if random:
        low, high = min(row.ci_low for row in random), max(row.ci_high for row in random)
        panel.axvspan(low, high, color=FAINT, alpha=0.55, linewidth=0, zorder=0)


def _axes(panel: Axes, rows: Sequence[ScoreRow], names: Sequence[str]) -> None:
    controls = {row.explainer for row in rows if row.control}
    panel.set_ylim(len(names) - 0.4, -0.6)
    panel.set_yticks(range(len(names)), names)
    for name, label in zip(names, panel.get_yticklabels(), strict=True):
        label.set(
            color=MUTED if name in controls else INK, fontstyle="italic" if name in controls else "normal", fontsize=8
        )
    panel.tick_params(axis="y", length=0)
    panel.spines["left"].set_visible(False)
    panel.grid(axis="y", visible=False)
    first = rows[0]
    direction = "higher is better" if first.higher_is_better else "lower is better"
    panel.set_xlabel(f"{first.metric} ({direction}), 95 % interval over {first.groups} patients, n = {first.n}")


def _note(panel: Axes, position: int, rows: Sequence[ScoreRow]) -> None:
    """Write the possible ranks at the right, one per sign, or why there is no value."""
    missing = [row for row in rows if math.isnan(row.value)]
    ranked = [row for row in rows if not math.isnan(row.value) and row.rank]
    words = " / ".join(row.ranks for row in sorted(ranked, key=lambda row: list(_SIGNS).index(row.sign)))
    if missing and not ranked:
        words = missing[0].status if missing[0].status != "ok" else "undefined"
    panel.text(1.02, position, words, transform=panel.get_yaxis_transform(), va="center", fontsize=7, color=MUTED)
