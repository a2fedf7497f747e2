"""The reliability diagram: how often a classifier is right, over how sure it is."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from xbench.report.canvas import BLUE, FAINT, INK, MUTED, VERMILLION, drawing, save
from xbench.results.numbers import number

_WIDTH, _HEIGHT = 3.9, 4.6  # inches


def calibration_chart(stem: Path, title: str, calibration: Mapping[str, Any]) -> list[Path]:
    """Draw accuracy over confidence by bin, the gap to the diagonal, and below it how many samples each bin holds.

    Args:
        stem: Path without suffix.
        title: The heading of the figure.
        calibration: The entry "calibration" of a model in a run's header. It has the fields of
            `xbench.statistics.reliability.Calibration`, with figures as [value, low, high].

    Returns:
        The SVG and the PNG file.
    """
    edges = np.asarray(calibration["edges"], dtype=np.float64)
    count = np.asarray(calibration["count"], dtype=np.int64)
    filled = count > 0
    accuracy, confidence = (
        np.asarray(calibration[name], dtype=np.float64)[filled] for name in ("accuracy", "confidence")
    )
    left, width = edges[:-1][filled], np.diff(edges)[filled]
    with drawing(_WIDTH, _HEIGHT, title) as figure:
        panel = figure.add_axes((0.14, 0.38, 0.82, 0.5))
        panel.plot([0, 1], [0, 1], color=MUTED, linewidth=0.8, linestyle="--", label="perfectly calibrated")
        panel.bar(left, accuracy, width, align="edge", color=BLUE, alpha=0.75, edgecolor="white", linewidth=0.6)
        panel.vlines(confidence, accuracy, confidence, color=VERMILLION, linewidth=1.2, label="gap")
        panel.plot(confidence, accuracy, "o", color=BLUE, markersize=3.2, label="accuracy at mean confidence")
        panel.set(xlim=(edges[0], edges[-1]), ylim=(0, 1), ylabel="accuracy")
        panel.tick_params(labelbottom=False)
        panel.set_axisbelow(True)
        panel.legend(
            loc="lower left", bbox_to_anchor=(-0.02, 1), ncols=3, handlelength=1.2, columnspacing=1, fontsize=6.5
        )
        below = figure.add_axes((0.14, 0.185, 0.82, 0.155), sharex=panel)
        _counts(below, left, width, count[filled])
        figure.text(0.14, 0.015, _figures(calibration), fontsize=7, va="bottom", linespacing=1.4)
        return save(figure, stem)


def _counts(panel: Axes, left: np.ndarray, width: np.ndarray, count: np.ndarray) -> None:
    panel.bar(left, count, width, align="edge", color=FAINT, edgecolor="white", linewidth=0.6)
    for x, each in zip(left + width / 2, count, strict=True):
        panel.text(x, each, str(each), ha="center", va="bottom", fontsize=6, color=INK)
    panel.set(ylim=(0, 1.25 * count.max()), ylabel="samples", xlabel="probability of the predicted class")
    panel.grid(visible=False)


def _figures(calibration: Mapping[str, Any]) -> str:
    names = {"expected_calibration_error": "expected calibration error", "brier_score": "Brier score"}
    return "\n".join(
        f"{label} {number(value)} [{number(low)}, {number(high)}]"
        for name, label in names.items()
        for value, low, high in [calibration[name]]
    )
