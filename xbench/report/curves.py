"""Curves: what perturbing the image by a map's order does to the model, and how a training went."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from xbench.report.canvas import BLUE, GREEN, INK, KINDS, MUTED, VERMILLION, drawing, save, wrapped
from xbench.results.curves import CurveSeries
from xbench.results.naming import bare_name

_DASHES: tuple[Any, ...] = ("-", (0, (4, 1.5)), (0, (1, 1)), (0, (5, 1, 1, 1)))
# The four looks of a curve. `.curve-0` to `.curve-3` of the page's curves are the same, in its own shades.
_COLOURS = (VERMILLION, BLUE, GREEN, INK)
_STYLE_OF_ROLE = {"most_first": 0, "least_first": 1}
_PARTS = {"training": True, "validation": False}
_PANEL = (1.75, 1.5)  # inches


def perturbation_curves(
    stem: Path, title: str, series: Sequence[CurveSeries], x_label: str, y_label: str, kinds: Sequence[str] = KINDS
) -> list[Path]:
    """Draw one small panel per explainer, all to the same scale, with the random control as grey reference in each.

    Twenty explainers in one panel can't be told apart. In panels of their own the shaded area can be compared at a
    glance: it is blue where removing the least important pixels first keeps the higher score (the map's order is
    right), and vermillion where it is the other way round. The order is the caller's, but controls come last.

    Args:
        stem: Path without suffix.
        title: The heading of the figure.
        series: The curves of each explainer.
        x_label: The quantity with its unit.
        y_label: The quantity with its unit.
        kinds: Which files to write.

    Returns:
        The files, by default SVG and PNG; none without explainers.
    """
    if not series:
        return []
    ordered = sorted(series, key=lambda one: one.control)
    reference = next((one for one in ordered if one.control and bare_name(one.label) == "random"), None)
    columns = min(len(ordered), max(3, min(6, math.ceil(math.sqrt(len(ordered) * 1.6)))))
    rows = math.ceil(len(ordered) / columns)
    width, height = max(6.2, columns * _PANEL[0] + 0.7), rows * _PANEL[1] + 1.15
    with drawing(width, height, title) as figure:
        # Axes that matplotlib shares are scaled anew, all of them, for every curve that is drawn in one of them.
        limits = _limits(ordered)
        panels = figure.subplots(rows, columns, squeeze=False, subplot_kw=limits)
        figure.subplots_adjust(
            left=0.58 / width,
            right=1 - 0.15 / width,
            bottom=0.5 / height,
            top=1 - 0.8 / height,
            wspace=0.1,
            hspace=0.28,
        )
        for panel, one in zip(panels.flat, ordered, strict=False):
            _perturbation_panel(panel, one, reference)
            panel.label_outer()
        for index in range(len(ordered), rows * columns):
            panels.flat[index].set_axis_off()
            panels.flat[index - columns].tick_params(labelbottom=True)
        figure.text(0.58 / width, 0.1 / height, x_label, ha="left", va="bottom")
        figure.text(0.1 / width, 1 - 0.8 / height, y_label, ha="left", va="top", rotation=90)
        _curve_legend(figure, ordered, reference, width, height)
        return save(figure, stem, kinds)


def _perturbation_panel(panel: Axes, one: CurveSeries, reference: CurveSeries | None) -> None:
    styles = curve_styles(one)
    if reference is not None and one is not reference:
        for values in reference.curves.values():
            panel.plot(reference.x, values, color=MUTED, linewidth=0.8, zorder=1.5)
    if len(one.curves) == 2:
        lower, upper = sorted(one.curves, key=styles.__getitem__)
        low, high = one.curves[lower], one.curves[upper]
        below, above = _colour(one, styles[lower]), _colour(one, styles[upper])
        panel.fill_between(one.x, low, high, where=high >= low, interpolate=True, color=above, alpha=0.14, lw=0)
        panel.fill_between(one.x, low, high, where=high <= low, interpolate=True, color=below, alpha=0.22, lw=0)
    for name, values in one.curves.items():
        panel.plot(one.x, values, color=_colour(one, styles[name]), linestyle=_DASHES[styles[name]])
    title = wrapped(one.label, 24)
    panel.set_title(title, pad=3, color=MUTED if one.control else INK, fontstyle="italic" if one.control else "normal")


def _limits(series: Sequence[CurveSeries]) -> dict[str, tuple[float, float]]:
    """Return the limits of both axes that hold all curves, with a little air."""

    def padded(values: np.ndarray, air: float) -> tuple[float, float]:
        finite = values[np.isfinite(values)]
        low, high = (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 1.0)
        more = air * (high - low) or 0.05 * abs(high) or 0.05
        return low - more, high + more

    positions = np.concatenate([one.x for one in series])
    heights = np.concatenate([values for one in series for values in one.curves.values()])
    return {"xlim": padded(positions, 0.02), "ylim": padded(heights, 0.05)}


def curve_styles(series: CurveSeries) -> dict[str, int]:
    """Return which of the four looks each curve has, in the figure and on the page of the report alike.

    The two orders of removal have a look of their own, in whatever order and under whatever name a metric gives them:
    vermillion from the most important pixel on (0), dashed blue from the least important (1). Other curves take the
    looks that are left, in their order, and begin again after the last.
    """
    fixed = {name: _STYLE_OF_ROLE[role] for name, role in series.roles.items() if role in _STYLE_OF_ROLE}
    left = [style for style in range(len(_COLOURS)) if style not in fixed.values()]
    others = dict(zip((name for name in series.curves if name not in fixed), itertools.cycle(left), strict=False))
    return {name: fixed[name] if name in fixed else others[name] for name in series.curves}


def _colour(series: CurveSeries, style: int) -> str:
    return "#555555" if series.control else _COLOURS[style]


def _curve_legend(
    figure: Figure, ordered: Sequence[CurveSeries], reference: CurveSeries | None, width: float, height: float
) -> None:
    first = ordered[0]
    lines = [
        Line2D([], [], color=_colour(first, style), linestyle=_DASHES[style], label=name)
        for name, style in curve_styles(first).items()
    ]
    if reference is not None:
        lines.append(Line2D([], [], color=MUTED, linewidth=0.8, label="control: random"))
    figure.legend(
        handles=lines,
        loc="upper left",
        bbox_to_anchor=(0.02 / width, 1 - 0.28 / height),
        ncols=len(lines),
        columnspacing=1.5,
        handlelength=2.2,
    )


def training_curves(
    stem: Path, title: str, history: Sequence[Mapping[str, Any]], chance: float | None = None
) -> list[Path]:
    """Draw losses, accuracy and every further figure of a training per epoch, with the best epoch marked.

    Args:
        stem: Path without suffix.
        title: The heading of the figure.
        history: One row for each epoch, as in `history.csv` (numbers or their text): epoch, train_*, validation_*.
            The best epoch is the one of the lowest validation_criterion.
        chance: The accuracy of always predicting the commonest class, drawn as a line.

    Returns:
        The SVG and the PNG file.
    """
    epochs = _column(history, "epoch")
    panels = _training_panels(history)
    columns = min(3, len(panels))
    rows = math.ceil(len(panels) / columns)
    width, height = columns * 2.9 + 0.3, rows * 2.0 + 0.4
    criterion = _column(history, "validation_criterion")
    best = int(np.nanargmin(criterion)) if np.isfinite(criterion).any() else None
    with drawing(width, height, title) as figure:
        axes = figure.subplots(rows, columns, squeeze=False)
        figure.subplots_adjust(
            left=0.5 / width,
            right=1 - 0.2 / width,
            bottom=0.45 / height,
            top=1 - 0.55 / height,
            wspace=0.26,
            hspace=0.42,
        )
        for panel, (name, keys) in zip(axes.flat, panels.items(), strict=False):
            _training_panel(panel, name, epochs, {key: _column(history, key) for key in keys}, best)
        for panel in axes.flat[len(panels) :]:
            panel.set_axis_off()
        if chance is not None and "accuracy" in panels:
            _chance_line(axes.flat[list(panels).index("accuracy")], chance)
        lines = [Line2D([], [], **_line(training), label=name) for name, training in _PARTS.items()]
        figure.legend(handles=lines, loc="upper right", bbox_to_anchor=(1 - 0.1 / width, 1 - 0.02 / height), ncols=2)
        return save(figure, stem)


def _column(history: Sequence[Mapping[str, Any]], key: str) -> np.ndarray:
    values = (row.get(key) for row in history)
    return np.array([math.nan if value in (None, "") else float(value) for value in values])


def _training_panels(history: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    """Map the title of each panel to its columns; a term has one panel for training and validation."""
    keys = list(dict.fromkeys(key for row in history for key in row if key != "epoch"))
    panels: dict[str, list[str]] = {"loss": [key for key in ("train_loss", "validation_criterion") if key in keys]}
    panels["accuracy"] = [key for key in keys if key.endswith("_accuracy")]
    loss = _column(history, "train_loss")
    for key in keys:
        if key in panels["loss"] + panels["accuracy"]:
            continue
        if not (key.startswith("train_") and np.array_equal(_column(history, key), loss, equal_nan=True)):
            panels.setdefault(key.removeprefix("train_").removeprefix("validation_").replace("_", " "), []).append(key)
    return {name: columns for name, columns in panels.items() if columns} or {"loss": []}


def _training_panel(
    panel: Axes, name: str, epochs: np.ndarray, columns: Mapping[str, np.ndarray], best: int | None
) -> None:
    for key, values in columns.items():
        style = _line(training=key.startswith("train_"))
        panel.plot(epochs, values, marker="o" if len(epochs) < 3 else "", markersize=3, **style)
        if best is not None:
            panel.plot(epochs[best], values[best], "o", color=style["color"], markersize=4.5)
    if name == "accuracy":
        lowest = min((np.nanmin(values, initial=1) for values in columns.values()), default=0)
        panel.set_ylim(min(0.45, lowest) - 0.04, 1.02)
    if best is not None:
        panel.axvline(epochs[best], color=MUTED, linewidth=0.8, linestyle=":", zorder=1)
        found = next((values[best] for key, values in columns.items() if key.startswith("validation_")), None)
        at = f"best epoch {epochs[best]:g}" + ("" if found is None else f": {found:.3f}")
        panel.set_title(at, loc="right", color=MUTED, fontsize=7, pad=3)
    panel.set_title(name, pad=3, fontweight="bold")
    panel.set_xlabel("epoch", labelpad=1)
    panel.xaxis.set_major_locator(MaxNLocator(integer=True))


def _line(training: bool) -> dict[str, Any]:
    return {"color": VERMILLION, "linestyle": _DASHES[1]} if training else {"color": BLUE, "linestyle": _DASHES[0]}


def _chance_line(panel: Axes, chance: float) -> None:
    panel.axhline(chance, color=INK, linewidth=0.8, linestyle=_DASHES[2])
    panel.annotate(
        "always the commonest class",
        (1, chance),
        xycoords=("axes fraction", "data"),
        xytext=(0, -2),
        textcoords="offset points",
        ha="right",
        va="top",
        fontsize=7,
    )
