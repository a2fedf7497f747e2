"""Rankings as files: CSV for a spreadsheet, LaTeX (booktabs) for a paper."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from xbench.report.page.rankings import Place, best
from xbench.results.cells import csv_text
from xbench.results.numbers import number

if TYPE_CHECKING:
    from xbench.comparison import Ranking, Standing

COLUMNS: dict[str, type] = {
    "dataset": str,
    "model": str,
    "metric": str,
    "sign": str,
    "subject": str,
    "explainer": str,
    "control": bool,
    "same_as": str,
    "n": int,
    "groups": int,
    "value": float,
    "ci_low": float,
    "ci_high": float,
    "higher_is_better": bool,
    "rank": int,
    "rank_high": int,
    "rank_set": str,
    "reference": str,
    "difference": float,
    "difference_low": float,
    "difference_high": float,
    "p_holm": float,
    "warning": str,
}
"""Of the CSV tables."""

_LATEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "–": "--",
}


def csv_table(rankings: Iterable[Ranking]) -> str:
    """All rows of the rankings; NaN is an empty cell, what a spreadsheet would execute is defused."""
    records = [_record(ranking, standing) for ranking in rankings for standing in ranking.standings]
    return csv_text(COLUMNS, (dict(zip(COLUMNS, record, strict=True)) for record in records))


def _record(ranking: Ranking, standing: Standing) -> tuple[object, ...]:
    row, setting, found = standing.entry.row, ranking.group.setting, standing.difference
    return (
        setting.dataset,
        setting.model,
        setting.metric,
        setting.sign,
        setting.subject,
        standing.entry.label,
        row.control,
        standing.same_as,
        row.n,
        row.groups,
        row.value,
        row.ci_low,
        row.ci_high,
        row.higher_is_better,
        standing.rank,
        standing.rank_high,
        "|".join(standing.rank_set),
        ranking.reference,
        *((found.value, found.low, found.high, found.p_holm) if found else (math.nan,) * 4),
        row.warning,
    )


def latex_ranking(ranking: Ranking) -> str:
    """One ranking: rank, explainer, value with its interval; bold as in `best`, controls in italics."""
    setting, first = ranking.group.setting, ranking.standings[0].entry.row
    bold, arrow = best(ranking), _arrow(ranking)
    lines = []
    for standing in ranking.standings:
        row = standing.entry.row
        cells = [latex(standing.ranks), _name(standing), _value(standing, standing.entry.label in bold)]
        lines.append(" & ".join([*cells, f"$[{_plain(row.ci_low)}, {_plain(row.ci_high)}]$"]))
    about = (
        f"{latex(setting.metric)} of {latex(setting.sign)} maps on {latex(setting.dataset)}, {latex(setting.model)}; "
        f"{first.n} samples of {first.groups} patients."
    )
    heads = f"Rank & Explainer & {latex(setting.metric)} {arrow} & 95\\,\\% CI"
    return _latex("rlrl", heads, lines, about)


def latex_overview(place: Place, sign: str) -> str:
    """One dataset, model and sign: a row per explainer, a column per ranking."""
    rankings = [one for one in place.rankings if one.group.setting.sign == sign]
    explainers: dict[str, Standing] = {}
    cells: dict[tuple[str, int], str] = {}
    for column, ranking in enumerate(rankings):
        bold = best(ranking)
        for standing in ranking.standings:
            label = standing.entry.label
            explainers.setdefault(label, standing)
            row = standing.entry.row
            interval = rf" {{\scriptsize$[{_plain(row.ci_low)}, {_plain(row.ci_high)}]$}}"
            cells[label, column] = _value(standing, label in bold) + interval
    ordered = sorted(explainers, key=lambda label: explainers[label].entry.row.control)
    lines = [
        " & ".join([_name(explainers[label]), *(cells.get((label, at), "--") for at in range(len(rankings)))])
        for label in ordered
    ]
    heads = " & ".join(["Explainer", *(f"{latex(one.group.setting.metric)} {_arrow(one)}" for one in rankings)])
    about = f"{latex(sign).capitalize()} maps on {latex(place.dataset)}, {latex(place.model)}."
    return _latex("l" * (len(rankings) + 1), heads, lines, about)


def _latex(columns: str, heads: str, lines: Sequence[str], about: str) -> str:
    note = (
        "Values with 95\\,\\% bootstrap intervals over patients. Bold: the best explainer and those that can't be told "
        "from it (paired tests, Holm); controls in italics."
    )
    body = "\n".join(f"    {line} \\\\" for line in lines)
    return (
        "% needs \\usepackage{booktabs}\n\\begin{table}\n  \\centering\n"
        f"  \\caption{{{about} {note}}}\n  \\begin{{tabular}}{{{columns}}}\n    \\toprule\n    {heads} \\\\\n"
        f"    \\midrule\n{body}\n    \\bottomrule\n  \\end{{tabular}}\n\\end{{table}}\n"
    )


def _arrow(ranking: Ranking) -> str:
    return r"$\uparrow$" if ranking.group.higher_is_better else r"$\downarrow$"


def _name(standing: Standing) -> str:
    name = latex(standing.entry.label)
    return rf"\textit{{{name}}}" if standing.entry.row.control else name


def _value(standing: Standing, bold: bool) -> str:
    text = _plain(standing.entry.row.value)
    return rf"$\mathbf{{{text}}}$" if bold else f"${text}$"


def _plain(value: float) -> str:
    """For math mode: a dash where undefined, 1.2e-05 as a power of ten."""
    text = number(value)
    if "e" not in text:
        return text if text != "–" else r"\mbox{--}"
    mantissa, _, power = text.partition("e")
    return rf"{mantissa}\cdot 10^{{{int(power)}}}"


def latex(text: str) -> str:
    """Text in which LaTeX finds no command."""
    return "".join(_LATEX.get(letter, letter) for letter in " ".join(text.split()))
