"""Colours, a local style and the writing of files, shared by all figures. No pyplot, no global state."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from xbench.runtime.files import whole_file

# Okabe and Ito's palette: told apart with every kind of colour vision
BLUE = "#0072B2"
VERMILLION = "#D55E00"
GREEN = "#009E73"
PURPLE = "#CC79A7"
ORANGE = "#E69F00"
SKY = "#56B4E9"
PALETTE = (BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY)

INK = "#222222"
MUTED = "#8A8A8A"
FAINT = "#D9D9D9"

DPI = 144
"""Pixels per inch of PNG files, and of what is not vectors in SVG files."""

KINDS = ("svg", "png")
"""The kinds of files that a figure is written as; "pdf" is the third there is."""

_STYLE: Any = {
    "axes.edgecolor": MUTED,
    "axes.grid": True,
    "axes.labelcolor": INK,
    "axes.labelsize": 8,
    "axes.linewidth": 0.6,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 8,
    "figure.facecolor": "white",
    "font.family": "DejaVu Sans",
    "font.size": 8,
    "grid.color": FAINT,
    "grid.linewidth": 0.5,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "lines.linewidth": 1.4,
    "pdf.fonttype": 42,  # text stays text; publishers refuse type 3
    "svg.hashsalt": "xbench",
    "text.color": INK,
    "xtick.color": INK,
    "xtick.labelsize": 7,
    "xtick.major.size": 2.5,
    "xtick.major.width": 0.6,
    "ytick.color": INK,
    "ytick.labelsize": 7,
    "ytick.major.size": 2.5,
    "ytick.major.width": 0.6,
}

# A date in a file would make the same figure another file.
_UNDATED: dict[str, dict[str, Any]] = {
    "svg": {"metadata": {"Date": None}},
    "png": {"metadata": {"Software": None}, "pil_kwargs": {"compress_level": 4}},
    "pdf": {"metadata": {"CreationDate": None, "ModDate": None}},
}


@contextmanager
def drawing(width: float, height: float, title: str = "") -> Iterator[Figure]:
    """Open an empty figure of so many inches, which is drawn in xbench's style while the context is open."""
    with mpl.rc_context():
        mpl.rcdefaults()  # the user's matplotlibrc must not reach our files; rc_context gives it back
        mpl.rcParams.update(_STYLE)
        figure = Figure(figsize=(width, height))
        FigureCanvasAgg(figure)
        if title:
            figure.text(0.1 / width, 1 - 0.08 / height, title, ha="left", va="top", fontsize=10, fontweight="bold")
        yield figure


def save(figure: Figure, stem: Path, kinds: Sequence[str] = KINDS) -> list[Path]:
    """Write `<stem>.svg` and `<stem>.png`, or other kinds: the same figure gives the same bytes."""
    paths = [stem.with_name(f"{stem.name}.{kind}") for kind in kinds]
    for kind, path in zip(kinds, paths, strict=True):
        with whole_file(path) as file:
            figure.savefig(file, format=kind, dpi=DPI, **_UNDATED[kind])
    return paths


def wrapped(name: str, width: int) -> str:
    """Break a long name into lines, at colons, hyphens and underscores first."""
    spaced = name.replace(":", ": ").replace("_", "_ ")
    lines = textwrap.wrap(spaced, width, break_long_words=True, break_on_hyphens=True)
    return "\n".join(line.replace(": ", ":").replace("_ ", "_") for line in lines)
