"""Show a run on the terminal: the model's figures, the ranked explainers, and the controls that they do not beat."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from xbench.results.numbers import number
from xbench.results.rows import RunHeader, ScoreRow

_CHANCE = 0.5  # AUC of a classifier that learned nothing, whatever the prevalence and the number of classes
_MODEL_FIGURES = (  # Katzmann et al., Table 1; short names beside long ones, to fit 100 columns
    {"accuracy": "accuracy", "auc": "AUC", "informedness": "informedness"},
    {"sensitivity": "sensitivity", "ppv": "PPV", "markedness": "markedness"},
    {"specificity": "specificity", "npv": "NPV", "mcc": "MCC"},
    {"balanced_accuracy": "bal. acc.", "f1": "F1"},
)
_SIGN_ORDER = {"original": 0, "absolute": 1}


def score_tables(rows: Sequence[ScoreRow], header: RunHeader) -> RenderableType:
    """Return what a run found, for a rich console (plain text if that is not a terminal).

    Each dataset and model has the classifier's test figures, and a warning if it learned nothing. Each metric has a
    table in which each sign (and subject, and metric card) is ranked for itself, the controls that an explainer does
    not beat, and the cells without a value.

    Args:
        rows: The scores of one run.
        header: The header of the same run.
    """
    parts: list[RenderableType] = []
    for (dataset, model), cells in _grouped(rows, "dataset", "model").items():
        parts += [*_model_lines(dataset, model, header), Text()]
        for scores in _grouped(cells, "metric", "target").values():
            parts += [*_metric_part(scores), Text()]
    return Group(*parts[:-1])


def _grouped(rows: Iterable[ScoreRow], *names: str) -> dict[tuple[Any, ...], list[ScoreRow]]:
    groups: dict[tuple[Any, ...], list[ScoreRow]] = {}
    for row in rows:
        groups.setdefault(tuple(getattr(row, name) for name in names), []).append(row)
    return groups


def _model_lines(dataset: str, model: str, header: RunHeader) -> Iterator[RenderableType]:
    synthetic = any(info.get("name") == dataset and info.get("synthetic") for info in header.datasets)
    facts = next((one for one in header.models if (one.get("name"), one.get("dataset")) == (model, dataset)), {})
    figures = facts.get("metrics") or {}
    line = Text.assemble((model, "bold"), " on ", (dataset, "bold"), " (phantom: rendered images)" if synthetic else "")
    if facts.get("n"):
        line.append(f": {facts['n']} test images")
    learned = has_learned(figures) is not False
    line.stylize("" if learned else "red")
    yield line
    if figures:
        yield _model_figures(figures)
    if learned:
        return
    trouble = "lies below chance (0.5): are the classes swapped?"
    if figures["auc"][2] >= _CHANCE:
        trouble = "can't be told apart from chance (0.5): it learned nothing, so there is nothing for a map to explain"
    yield Text(f"warning: {model} on {dataset}: its AUC {trouble}", style="bold red")


def _model_figures(figures: Mapping[str, Any]) -> Table:
    """Set three figures on a line, each as name, value, interval."""
    table = Table.grid(padding=(0, 1))
    for row in _MODEL_FIGURES:
        cells = []
        for name, label in row.items():
            words = (label, *_with_interval(figures[name])) if name in figures else ("", "", "")
            cells += [Text(word, style=style) for word, style in zip(words, ("dim", "", ""), strict=True)]
        table.add_row("", *cells)
    return table


def has_learned(figures: Mapping[str, Any]) -> bool | None:
    """Return whether the AUC's 95 % interval lies above chance; None if there is no AUC with an interval."""
    auc = figures.get("auc")
    if not auc or any(_undefined(figure) for figure in auc):
        return None
    return bool(auc[1] > _CHANCE)


def _with_interval(figure: Sequence[float | None]) -> tuple[str, str]:
    """Return a figure's value and its interval, each in words."""
    return number(figure[0]), f"[{number(figure[1])}, {number(figure[2])}]"


def _metric_part(rows: Sequence[ScoreRow]) -> Iterator[RenderableType]:
    first = rows[0]
    direction = "higher is better" if first.higher_is_better else "lower is better"
    yield Text.assemble((first.metric, "bold"), f"  {direction}; maps of {_target(first.target)}")
    sections = _sections(rows)
    if sections:
        yield _table(sections)
    for section in sections:
        yield from _unbeaten(section)
    for warned in dict.fromkeys(f"(!) {row.explainer}: {one_line(row.warning)}" for row in rows if row.warning):
        yield Text(warned, style="red")
    for row in rows:
        if math.isnan(row.value):
            word = "no value" if row.status == "ok" else row.status
            why = one_line(row.reason) or "undefined on these samples"
            style = "red" if row.status == "failed" else "dim"
            yield Text(f"{word}: {row.explainer} ({row.sign}): {why}", style=style)


def _sections(rows: Iterable[ScoreRow]) -> list[list[ScoreRow]]:
    """Group what was ranked together, best first: one sign, one classifier explained, one card."""
    scored = [row for row in rows if not math.isnan(row.value)]
    scored.sort(key=lambda row: (_SIGN_ORDER.get(row.sign, 2), -row.value if row.higher_is_better else row.value))
    return list(_grouped(scored, "sign", "subject", "card").values())


def _target(rule: str) -> str:
    return f"class {rule}" if rule.isdigit() else f"the {rule} class"


def _table(sections: Sequence[Sequence[ScoreRow]]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name, justify in (("rank", "right"), ("explainer", "left"), ("", "left"), ("sign", "left"), ("value", "right")):
        table.add_column(name, justify=justify, no_wrap=name != "explainer", overflow="fold")  # type: ignore[arg-type]
    for name in ("95 % CI", "n", "seconds"):
        table.add_column(name, justify="right", no_wrap=True)
    for section in sections:
        if section is not sections[0]:
            table.add_row()
        for row in section:
            table.add_row(*_table_cells(row), style="dim" if row.control else "")
    return table


def _table_cells(row: ScoreRow) -> list[Text]:
    seconds = sum(spent for spent in (row.seconds_fit, row.seconds_maps, row.seconds_metric) if not math.isnan(spent))
    return [
        Text(row.ranks),
        Text.assemble(
            (row.explainer, "" if row.control else "bold"),
            (f" = {row.same_as}" if row.same_as else "", "dim"),
            (" (!)" if row.warning else "", "bold red"),
        ),
        Text("control" if row.control else "own model" if row.subject == "self" else ""),
        Text(row.sign),
        Text(number(row.value)),
        Text(f"[{number(row.ci_low)}, {number(row.ci_high)}]"),
        Text(str(row.n)),
        Text(f"{seconds:.1f}"),
    ]


def _unbeaten(rows: Sequence[ScoreRow]) -> Iterator[Text]:
    """Name the explainers of a section that each control equals or beats; `inverted:x` is compared to x alone."""
    users = [row for row in rows if not row.control]
    for control in (row for row in rows if row.control):
        inner = control.explainer.partition(":")[2]
        rivals = [row for row in users if inner in ("", row.explainer)]
        equal = [row.explainer for row in rivals if control.explainer in row.rank_set]
        worse = [row.explainer for row in rivals if control.explainer not in row.rank_set and _beats(control, row)]
        for words, names in (("can't be told apart from", equal), ("worse than", worse)):
            if names:
                everyone = len(names) == len(users) > 1
                text = "every explainer" if everyone else ", ".join(names)
                yield Text(f"{words} {control.explainer} ({control.sign}): {text}", style="yellow")


def _beats(one: ScoreRow, other: ScoreRow) -> bool:
    return one.value > other.value if one.higher_is_better else one.value < other.value


def _undefined(value: float | None) -> bool:
    return value is None or math.isnan(value)


def one_line(text: str) -> str:
    """Write a reason in one line, without characters that would steer a terminal."""
    return "".join(letter if letter.isprintable() else " " for letter in " ".join(text.split()))
