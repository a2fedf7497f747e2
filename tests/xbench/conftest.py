"""Run folders made by hand: what a run leaves, from arrays of per-sample values."""

import dataclasses
import typing

import numpy as np
import pytest

from xbench.comparison import REPLICATES, Replicates, sampling, write_replicates
from xbench.results import RunHeader, ScoreRow, write_header, write_scores
from xbench.statistics import interval, rank_sets, resamples

_EMPTY = {str: "", int: 0, float: 0.0, bool: False}
_HINTS = typing.get_type_hints(ScoreRow)
_REQUIRED = [field.name for field in dataclasses.fields(ScoreRow) if field.default is dataclasses.MISSING]
_BLANK = {name: _EMPTY.get(_HINTS[name], ()) for name in _REQUIRED}


@pytest.fixture
def run_folder(tmp_path):
    """run_folder("a", {"fidelity": {"gradient": values, ...}}, ...): a metric's value is the mean over samples."""

    def build(name, metrics, groups=None, cards=None, with_replicates=True, count=500, controls=("random",), **changes):
        folder = tmp_path / name
        folder.mkdir()
        first = next(iter(next(iter(metrics.values())).values()))
        groups = groups or [f"p{index}" for index in range(len(first))]
        common = {"dataset": "phantom", "model": "net", "split": "test", "sign": "original", "target": "predicted"}
        common |= {"subject": "shared", "higher_is_better": True, "seed": 0} | changes
        drawn = resamples(groups, count, common["seed"])
        rows, kept, contents = [], {}, {}
        for metric, explainers in metrics.items():
            content = {"metric": metric.partition(":")[0], "sign": common["sign"]} | (cards or {}).get(metric, {})
            card = format(abs(hash(repr(sorted(content.items())))), "016x")[:16]
            contents[card] = content
            replicates = [np.array([np.mean(values[where]) for where in drawn]) for values in explainers.values()]
            values = np.array([np.mean(values) for values in explainers.values()])
            ranks = rank_sets(values, np.stack(replicates), common["higher_is_better"], patients=len(set(groups)))
            for index, explainer in enumerate(explainers):
                place = f"{common['dataset']}-{common['model']}-{common['sign']}"
                low, high = interval(replicates[index])
                own = {
                    "metric": metric,
                    "card": card,
                    "explainer": explainer,
                    "control": explainer in controls,
                    "value": float(values[index]),
                    "ci_low": low,
                    "ci_high": high,
                    "rank": ranks[index].low,
                    "rank_high": ranks[index].high,
                    "rank_set": tuple(list(explainers)[at] for at in sorted(ranks[index].tied) if at != index),
                    "n": len(first),
                    "groups": len(set(groups)),
                    "fingerprint": f"{place}-{card}-{explainer}-{hash(explainers[explainer].tobytes())}",
                    "dataset_fingerprint": f"data of {common['dataset']}",
                    "model_fingerprint": f"weights of {common['model']}",
                }
                rows.append(ScoreRow(**_BLANK | own | common))
                ids = [f"s{index}" for index in range(len(groups))]
                kept[rows[-1].fingerprint] = Replicates(replicates[index], sampling(ids, groups, common["seed"]))
        write_scores(rows, folder / "scores.csv")
        write_header(RunHeader(created="2026-01-02T03:04:05+00:00", cards=contents), folder / "run.json")
        if with_replicates:
            write_replicates(kept, folder / REPLICATES)
        return folder

    return build


@pytest.fixture
def spread():
    """spread(0.2, 0.5, ...): explainers a, b, ... of those means over 100 samples, noise common to all and their own."""

    def build(*means, seed=0, size=100, noise=0.05):
        draw = np.random.default_rng(seed)
        shared = draw.normal(size=size)
        return {
            chr(ord("a") + index): mean + 0.1 * shared + noise * draw.normal(size=size)
            for index, mean in enumerate(means)
        }

    return build
