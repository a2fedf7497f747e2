"""Figure of how metrics agree: a heat map of rank correlations, and each explainer's rank under every metric."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from scipy.cluster.hierarchy import leaves_list, linkage
from scipy.spatial.distance import squareform

from xbench.report.canvas import BLUE, FAINT, INK, KINDS, MUTED, PALETTE, VERMILLION, drawing, save, wrapped
from xbench.statistics.agreement import Agreement
from xbench.statistics.ranking import LEVEL

_COLOURS = LinearSegmentedColormap.from_list("agreement", [VERMILLION, "#FFFFFF", BLUE])
_CELL = 0.62  # inches, of the heat map
_LINE = 0.24  # inches, between two ranks
_STEP = 1.15  # inches, between two metrics of the bump chart
_UPRIGHT = 4  # metrics, up to which their names need not be turned
_MANY = 12  # explainers, from which on the grey lines step back
_NOTE = f"above the diagonal Spearman's rho, below it Kendall's tau-b; * p < {LEVEL} by permutation"


def agreement_chart(folder: Path, agreement: Agreement, kinds: Sequence[str] = KINDS) -> list[Path]:
    """Draw a heat map beside a bump chart, as `agreement--<place>.svg` and `.png`.

    Metrics that agree stand side by side. An explainer's line is broken where a metric has no value for it; the
    explainers whose rank moves most are coloured, the others grey.

    Args:
        folder: Where to write.
        agreement: The agreement of metrics for one dataset, model and sign.
        kinds: Which files to write.

    Returns:
        The files, by default SVG and PNG.
    """
    agreement = _seriated(agreement)
    count, lines = len(agreement.metrics), len(agreement.explainers)
    names = [wrapped(name, 14) for name in agreement.metrics]
    longest = 0.075 * max(len(part) for name in names for part in name.split("\n"))
    left = 0.25 + longest
    side = _CELL * count
    text = 0.2 + 0.068 * max(len(name) for name in agreement.explainers)
    across = max(_STEP * (count - 1), 1.2)
    head = 0.5 + (longest if count > _UPRIGHT else 0.25 + 0.11 * max(name.count("\n") for name in names))
    tall = max(side, _LINE * lines)
    width, height = left + side + 0.45 + text + across + text + 0.1, head + tall + 0.45
    width = max(width, 6.0)
    with drawing(width, height, f"Agreement of metrics, {agreement.place}") as figure:
        heat = _box(figure, left, height - head - side, side, side)
        _heat_map(heat, agreement, names)
        figure.text(0.1 / width, 0.1 / height, _NOTE, fontsize=6.5, color=MUTED)
        bump = _box(figure, left + side + 0.45 + text, height - head - tall, across, tall)
        _bump_chart(bump, agreement, names)
        return save(figure, folder / f"agreement--{_file_name(agreement.place)}", kinds)


def _seriated(agreement: Agreement) -> Agreement:
    """Put similar metrics next to each other (average linkage, optimal leaf order); two stay as they are."""
    if len(agreement.metrics) < 3:
        return agreement
    apart = 1 - np.nan_to_num(agreement.matrix("spearman"))
    np.fill_diagonal(apart, 0)
    order = leaves_list(linkage(squareform(np.maximum(apart, 0), checks=False), "average", optimal_ordering=True))
    if 2 * order.tolist().index(0) >= len(order):  # mirrored it is as good: keep the metric named first at the left
        order = order[::-1]
    metrics = tuple(agreement.metrics[index] for index in order)
    return dataclasses.replace(agreement, metrics=metrics, ranks=agreement.ranks[order])


def _box(figure: Figure, left: float, bottom: float, width: float, height: float) -> Axes:
    """Add axes at a place in inches."""
    wide, tall = figure.get_size_inches()
    return figure.add_axes((left / wide, bottom / tall, width / wide, height / tall))


def _file_name(words: str) -> str:
    kept = "".join(letter if letter.isalnum() or letter in "-_." else "-" for letter in words)
    return "-".join(part for part in kept.split("-") if part)


def _heat_map(panel: Axes, agreement: Agreement, names: list[str]) -> None:
    shown = np.triu(agreement.matrix("spearman")) + np.tril(agreement.matrix("kendall"), -1)
    np.fill_diagonal(shown, math.nan)
    colours = _COLOURS.with_extremes(bad=FAINT)
    panel.imshow(np.ma.masked_invalid(shown), cmap=colours, vmin=-1, vmax=1, aspect="auto")
    sure = _sure(agreement)
    for row, column in zip(*np.nonzero(~np.eye(len(names), dtype=bool)), strict=True):
        value = shown[row, column]
        words = "–" if math.isnan(value) else f"{value:.2f}" + ("*" if sure[row, column] else "")
        ink = "white" if abs(value) > 0.6 else INK
        panel.text(column, row, words, ha="center", va="center", fontsize=7, color=ink)
    panel.set_xticks(range(len(names)), names, rotation=90 if len(names) > _UPRIGHT else 0, fontsize=7)
    panel.set_yticks(range(len(names)), names, fontsize=7)
    panel.xaxis.tick_top()
    panel.tick_params(length=0)
    panel.grid(visible=False)
    for spine in panel.spines.values():
        spine.set_visible(False)
    panel.set_xticks(np.arange(len(names) - 1) + 0.5, minor=True)
    panel.set_yticks(np.arange(len(names) - 1) + 0.5, minor=True)
    panel.grid(which="minor", color="white", linewidth=1.5)
    panel.tick_params(which="minor", length=0)


def _sure(agreement: Agreement) -> np.ndarray:
    """Return where p is below `LEVEL`, in the heat map's layout."""
    sure = np.zeros((len(agreement.metrics),) * 2, dtype=bool)
    for pair in agreement.pairs:
        first, second = agreement.metrics.index(pair.first), agreement.metrics.index(pair.second)
        sure[first, second], sure[second, first] = pair.spearman.p < LEVEL, pair.kendall.p < LEVEL
    return sure


def _bump_chart(panel: Axes, agreement: Agreement, names: list[str]) -> None:
    ranks, places = agreement.ranks, np.arange(len(names))
    colours = _line_colours(ranks)
    for index, explainer in enumerate(agreement.explainers):
        heights = ranks[:, index]
        colour = colours[index]
        order, width = (3, 1.5) if colour != MUTED else (2, 1.3 if len(agreement.explainers) < _MANY else 0.6)
        panel.plot(places, heights, "o-", color=colour, markersize=4, linewidth=width, zorder=order, clip_on=False)
        for end, offset, side in ((0, -5, "right"), (len(names) - 1, 5, "left")):
            if not math.isnan(heights[end]):
                at = _spread(ranks[end])[index]
                panel.annotate(
                    explainer,
                    (end, at),
                    xytext=(offset, 0),
                    textcoords="offset points",
                    ha=side,
                    va="center",
                    fontsize=7,
                    color=colour if colour != MUTED else INK,
                    annotation_clip=False,
                )
    panel.set_xticks(places, names, fontsize=7)
    panel.xaxis.tick_top()
    panel.tick_params(length=0)
    panel.set_yticks([])
    panel.set_ylim(len(agreement.explainers) + 0.5, 0.5)
    panel.set_xlim(-0.02, len(names) - 0.98)
    panel.grid(axis="y", visible=False)
    for spine in panel.spines.values():
        spine.set_visible(False)
    panel.set_xlabel("rank of each explainer, 1 at the top", fontsize=7, color=MUTED)


def _spread(ranks: np.ndarray) -> np.ndarray:
    """Return where the names stand: ties share a rank, but not a line."""
    return np.argsort(np.argsort(ranks, kind="stable"), kind="stable") + 1.0


def _line_colours(ranks: np.ndarray) -> list[str]:
    """Return the colour of each explainer: the ones that move most get one of their own."""
    moves = np.array([np.ptp(column[~np.isnan(column)]) if (~np.isnan(column)).any() else 0 for column in ranks.T])
    colours = [MUTED] * len(moves)
    chosen = [index for index in np.argsort(-moves, kind="stable")[: len(PALETTE)] if moves[index] > 0]
    for colour, index in zip(PALETTE, chosen, strict=False):
        colours[int(index)] = colour
    return colours
