"""Classifier shift: do counterfactual images move the classifier where they should?"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from scipy.stats import t as student

from xbench import Batch, Case, DatasetInfo, Explanation, Metric, Observations, PluginError, probabilities
from xbench.compute.filters import gaussian_blur
from xbench.compute.similarity import dssim
from xbench.runtime.devices import widest
from xbench.runtime.randomness import isolated, normal_field
from xbench.statistics.resampling import interval, resamples
from xbench_metrics.options import ShiftOptions
from xbench_metrics.retraining.testers import build, trained, unfit
from xbench_metrics.subsample import live_explainer, mean_of_defined

_JUDGE = "judge."
Judge = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""Images (n, C, *spatial) and their samples' seeds (n,) to logits (n, K)."""


class ClassifierShift(Metric):
    """How far the images G_c(x), changed toward class c, move the classifier (Katzmann et al., sections 3.3 and 4.1).

    Two classes, G+ toward class 1 and G- toward class 0:

        shift = mean P(1 | G+(x)) - mean P(1 | G-(x))

    K classes: the mean over c of P(c | G_c(x)) minus the mean over j != c of P(c | G_j(x)), which is the same for two.
    In [-1, 1], higher is better: 1 for a perfect transfer, 0 for one that changes nothing, or nothing that the
    classifier sees; below 0 it moves images the wrong way. Defined for any sample, also of one class.

    The size of the change is no part of the value: an explainer that replaces the image reaches 1. It is observed
    beside it (`l1`, `dssim`), and `shift_report` gives the paper's table.

    Nor does the value tell a change that means something from an adversarial pattern. Another `judge`, `blur` and
    `noise` do: the share of the shift that is left under them is what is not merely an attack on this one classifier.
    All probabilities are the judge's then, those of the original images included, which are blurred alike and get the
    same noise.
    """

    needs = frozenset({"transfer"})
    options: ShiftOptions

    def __init__(self, options: ShiftOptions | None = None, argument: str = "") -> None:
        super().__init__(options or ShiftOptions(), argument)

    def supports(self, info: DatasetInfo) -> str | None:
        """Refuses a judge that timm does not have, or that does not take such images."""
        return None if self._explained_judges else unfit(self.options.judge, info)

    def prepare(self, case: Case) -> dict[str, np.ndarray]:
        """Another judge's weights, trained once for all explainers.

        Returns:
            Its state dict, each name behind "judge."; empty where the classifier explained judges.
        """
        if self._explained_judges:
            return {}
        if case.training is None:
            raise PluginError("classifier_shift was given no training split")
        judge = trained(self.options.judge, self.options, case.training, case.info.channels, case.info, case.session)
        return {_JUDGE + name: value.numpy() for name, value in judge.state_dict().items()}

    def observe(self, case: Case) -> dict[str, np.ndarray]:
        """Probabilities before and after, and how large the change is.

        Returns:
            original: float64 (N, K), P(k | x).
            toward: float64 (N, K, K), P(k | G_c(x)) at [:, c, k].
            shift: float64 (N,), a sample's own value.
            flipped: float64 (N, K), 1 where G_c(x) is classified as c and x was not; NaN where x was already.
            l1, dssim: float64 (N, K), mean |G_c(x) - x| of a pixel, and (1 - SSIM(G_c(x), x)) / 2.
        """
        judged = self._judge(case)
        original = self._original(case, judged)

        def moved(start: int, stop: int) -> dict[str, np.ndarray]:
            batch = case.split.batch(np.arange(start, stop)).to(case.session.device)
            each = [_moved(live_explainer(case), judged, batch, index) for index in range(original.shape[1])]
            # Classes come first here, samples in the arrays.
            logits, sizes = (torch.stack(parts).cpu().double() for parts in zip(*each, strict=True))
            after = np.stack([_probabilities(of_class) for of_class in logits], axis=1)
            l1, dissimilar = sizes.permute(1, 2, 0).numpy()
            return {"toward": after, "l1": l1, "dssim": dissimilar}

        seen = case.observed(moved, "classifier shift")
        toward = seen["toward"]
        return {"original": original, "shift": _shift(toward), "flipped": _flipped(original, toward), **seen}

    def summarise(self, observations: Observations) -> float:
        """The mean of the samples' shifts."""
        return mean_of_defined(observations["shift"])

    @property
    def _explained_judges(self) -> bool:
        return self.options.judge == "explained"

    def _judge(self, case: Case) -> Judge:
        score = case.logits_of if self._explained_judges else _restored(self.options.judge, case)

        def judged(images: torch.Tensor, seeds: torch.Tensor) -> torch.Tensor:
            if self.options.blur:
                images = gaussian_blur(images, self.options.blur)
            if self.options.noise:
                images = (images + self.options.noise * normal_field(seeds, images.shape[1:])).clamp(0, 1)
            return score(images)

        return judged

    def _original(self, case: Case, judged: Judge) -> np.ndarray:
        """float64 (N, K)."""
        if self._explained_judges and not self.options.blur and not self.options.noise:
            return _probabilities(torch.from_numpy(np.array(case.logits)))

        def of_originals(start: int, stop: int) -> np.ndarray:
            batch = case.split.batch(np.arange(start, stop)).to(case.session.device)
            return _probabilities(judged(batch.images, batch.seeds).cpu())

        return np.concatenate([found for _, found in case.session.batched(len(case.split), of_originals)])

    def card(self, info: DatasetInfo) -> dict[str, Any]:
        """What the shift means."""
        return {
            "judge": "the classifier explained" if self._explained_judges else "another, trained on the same images",
            "score": "probability (softmax; sigmoid for one logit)",
            "target": "none: every image is changed toward every class, its own included",
            "value": "mean over c of P(c | G_c) - mean over j != c of P(c | G_j)",
            "classes": len(info.classes),
            "aggregation": "mean over the samples, both classes together as they come",
        }


def shift_report(
    observations: Observations, groups: Sequence[str] | None = None, seed: int = 0
) -> dict[str, dict[str, float]]:
    """The table of Katzmann et al., section 4.1, from the observations of `classifier_shift`.

    Paired two-tailed t tests of each transfer against the original images, d_i = p_i' - p_i over the n samples: t =
    mean(d) / (sd(d) / sqrt(n)) with n - 1 degrees of freedom, Cohen's d_z = mean(d) / sd(d), sd with n - 1. They take
    samples for independent; the intervals of the means are resampled by patient. Where all d are equal sd is 0: t = 0,
    p = 1 where they are 0, else t is infinite and p = 0.

    Args:
        observations: Of any subset of samples.
        groups: The patient of each sample; each its own where not given.
        seed: Of the resamples.

    Returns:
        For two classes "original", "minus" (toward class 0) and "plus" (toward class 1), all in P(1). For more,
        "original c" and "toward c" in P(c), for each c. Each with "mean", "low" and "high" (95 %); the transfers also
        with "t", "df", "p", "d_z", "flipped" (share, of the samples that were not of that class), "l1" and "dssim".
    """
    original, toward = observations["original"], observations["toward"]
    names = [str(index) for index in range(len(original))] if groups is None else groups
    drawn = resamples(names, seed=seed)
    if original.shape[1] == 2:
        columns = {"minus": (0, 1), "plus": (1, 1)}
        report = {"original": _mean_with_interval(original[:, 1], drawn)}
    else:
        columns = {f"toward {index}": (index, index) for index in range(original.shape[1])}
        report = {f"original {index}": _mean_with_interval(p, drawn) for index, p in enumerate(original.T)}
    for name, (aim, judged) in columns.items():
        after = toward[:, aim, judged]
        sizes = {key: mean_of_defined(observations[key][:, aim]) for key in ("flipped", "l1", "dssim")}
        report[name] = _mean_with_interval(after, drawn) | _paired_t(after - original[:, judged]) | sizes
    return report


def _mean_with_interval(values: np.ndarray, drawn: Sequence[np.ndarray]) -> dict[str, float]:
    low, high = interval(np.array([values[rows].mean() for rows in drawn]))
    return {"mean": float(values.mean()), "low": low, "high": high}


def _paired_t(differences: np.ndarray) -> dict[str, float]:
    """t, df, p, d_z of differences (n,); all but df NaN for one sample."""
    n, mean = len(differences), float(differences.mean())
    if n < 2:
        return {"t": math.nan, "df": n - 1, "p": math.nan, "d_z": math.nan}
    if np.ptp(differences) > 0:
        d_z = mean / float(differences.std(ddof=1))
    else:  # not left to sd, whose rounding is not 0
        d_z = math.copysign(math.inf, mean) if mean else 0.0
    statistic = d_z * math.sqrt(n)
    return {"t": statistic, "df": n - 1, "p": float(2 * student.sf(abs(statistic), n - 1)), "d_z": d_z}


def _restored(judge: str, case: Case) -> Callable[[torch.Tensor], torch.Tensor]:
    with isolated(case.session.seed, "judge"):
        network = build(judge, case.info.channels, case.info)
    weights = {
        name.removeprefix(_JUDGE): torch.from_numpy(np.array(value))
        for name, value in case.prepared.items()
        if name.startswith(_JUDGE)
    }
    network.load_state_dict(weights)
    network.to(case.session.device).eval()

    @torch.inference_mode()
    def score(images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = network(images)
        return logits

    return score


def _moved(explanation: Explanation, judged: Judge, batch: Batch, index: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Images changed toward a class: the judge's logits (n, K), and the size of the change, l1 and dssim: (2, n)."""
    moved = explanation.transfer(batch.images, torch.full_like(batch.labels, index)).detach()
    change = (moved - batch.images).abs().flatten(1)
    return judged(moved, batch.seeds), torch.stack([_mean(change), dssim(moved, batch.images)])


def _mean(values: torch.Tensor) -> torch.Tensor:
    mean: torch.Tensor = values.to(widest(values.device)).mean(1)
    return mean


def _probabilities(logits: torch.Tensor) -> np.ndarray:
    """float64 (n, K), of logits on the CPU."""
    result: np.ndarray = probabilities(logits.double()).numpy()
    return result


def _shift(toward: np.ndarray) -> np.ndarray:
    """(N, K, K) -> (N,)."""
    classes = toward.shape[1]
    aimed = np.einsum("nkk->n", toward)
    shift: np.ndarray = (aimed - (toward.sum((1, 2)) - aimed) / (classes - 1)) / classes
    return shift


def _flipped(original: np.ndarray, toward: np.ndarray) -> np.ndarray:
    """float64 (N, K): 1, 0, or NaN where there was nothing to flip."""
    aims = np.arange(original.shape[1])
    before, after = original.argmax(1)[:, None] == aims, toward.argmax(2) == aims
    return np.where(before, np.nan, after.astype(np.float64))
