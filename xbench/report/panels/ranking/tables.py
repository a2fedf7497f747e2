"""Rankings as files: CSV for a spreadsheet, LaTeX (booktabs) for a paper."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from xbench.report.page.places import Place
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
"""The columns of the CSV tables, with the type of their cells."""

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
    """Write all rows of the rankings; NaN is an empty cell, and what a spreadsheet would execute is defused."""
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
    """Write one ranking: rank, explainer, value with its interval; bold as in `best`, controls in italics."""
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
    """Write one dataset, model and sign: a row per explainer, a column per ranking."""
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


def best(ranking: Ranking) -> set[str]:
    """Return the labels of the best explainer that is no control, and of those that it can't be told apart from."""
    users = [one for one in ranking.standings if not one.entry.row.control and not math.isnan(one.entry.row.value)]
    if not users:
        return set()
    names = {users[0].entry.label, *users[0].rank_set}
    return {one.entry.label for one in users if one.entry.label in names or one.same_as in names}


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
    """Write a value for math mode: a dash where undefined, 1.2e-05 as a power of ten."""
    text = number(value)
    if "e" not in text:
        return text if text != "–" else r"\mbox{--}"
    mantissa, _, power = text.partition("e")
    return rf"{mantissa}\cdot 10^{{{int(power)}}}"


def latex(text: str) -> str:
    """Return the text such that LaTeX finds no command in it."""
    return "".join(_LATEX.get(letter, letter) for letter in " ".join(text.split()))
