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
"""Function from images (n, C, *spatial) and their samples' seeds (n,) to logits (n, K)."""


class ClassifierShift(Metric):
    """How far the images G_c(x), changed toward class c, move the classifier (Katzmann et al., sections 3.3 and 4.1).

    Two classes, G+ toward class 1 and G- toward class 0:

        shift = mean P(1 | G+(x)) - mean P(1 | G-(x))

    K classes: the mean over c of P(c | G_c(x)) minus the mean over j != c of P(c | G_j(x)), which is the same for two.
    The value lies in [-1, 1], and higher is better. 1 is a perfect transfer. 0 is a transfer that changes nothing, or
    nothing that the classifier sees. Below 0, it moves images the wrong way. It is defined for any samples, even if all
    are of one class.

    The size of the change is not part of the value: an explainer that replaces the whole image reaches 1. The size is
    observed separately (`l1`, `dssim`), and `shift_report` gives the paper's table.

    The value does not tell a meaningful change from an adversarial pattern either. The options `judge`, `blur` and
    `noise` do: the share of the shift that remains under them is more than an attack on this one classifier. All
    probabilities are then the judge's, also those of the original images, which get the same blur and the same noise.
    """

    needs = frozenset({"transfer"})
    options: ShiftOptions

    def __init__(self, options: ShiftOptions | None = None, argument: str = "") -> None:
        super().__init__(options or ShiftOptions(), argument)

    def supports(self, info: DatasetInfo) -> str | None:
        """Return a reason for a judge that timm does not have, or that can't take such images."""
        return None if self._explained_judges else unfit(self.options.judge, info)

    def prepare(self, case: Case) -> dict[str, np.ndarray]:
        """Train the judge, once for all explainers, and return its weights.

        Returns:
            The judge's state dict, with "judge." before each name. Empty if the explained classifier is the judge.
        """
        if self._explained_judges:
            return {}
        if case.training is None:
            raise PluginError("classifier_shift was given no training split")
        judge = trained(self.options.judge, self.options, case.training, case.info.channels, case.info, case.session)
        return {_JUDGE + name: value.numpy() for name, value in judge.state_dict().items()}

    def observe(self, case: Case) -> dict[str, np.ndarray]:
        """Return the probabilities before and after the change, and the size of the change.

        Returns:
            original: P(k | x), float64 (N, K).
            toward: P(k | G_c(x)) at [:, c, k], float64 (N, K, K).
            shift: Value of each sample, float64 (N,).
            flipped: 1 where G_c(x) is classified as c, else 0; NaN where x already was. float64 (N, K).
            l1: Mean of |G_c(x) - x| over the pixels, float64 (N, K).
            dssim: (1 - SSIM(G_c(x), x)) / 2, float64 (N, K).
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
        """Return the mean of the samples' shifts."""
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
        """Return the probabilities of the original images, float64 (N, K)."""
        if self._explained_judges and not self.options.blur and not self.options.noise:
            return _probabilities(torch.from_numpy(np.array(case.logits)))

        def of_originals(start: int, stop: int) -> np.ndarray:
            batch = case.split.batch(np.arange(start, stop)).to(case.session.device)
            return _probabilities(judged(batch.images, batch.seeds).cpu())

        return np.concatenate([found for _, found in case.session.batched(len(case.split), of_originals)])

    def card(self, info: DatasetInfo) -> dict[str, Any]:
        """Return what the shift means."""
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
    """Return the table of Katzmann et al., section 4.1, from the observations of `classifier_shift`.

    Each transfer is compared with the original images by a paired two-tailed t test. With d_i = p_i' - p_i over the n
    samples, t = mean(d) / (sd(d) / sqrt(n)) with n - 1 degrees of freedom, and Cohen's d_z = mean(d) / sd(d), where sd
    divides by n - 1. The tests treat samples as independent, whereas the intervals of the means are resampled by
    patient. If all d are equal, sd is 0: then t = 0 and p = 1 if they are 0, else t is infinite and p = 0.

    Args:
        observations: Observations of any subset of samples.
        groups: The patient of each sample. Without it, each sample is its own patient.
        seed: Seed of the resamples.

    Returns:
        The figures of each row. Two classes have the rows "original", "minus" (toward class 0) and "plus" (toward class
        1), all in P(1). More classes have the rows "original c" and "toward c" in P(c), for each c. Each row has
        "mean", "low" and "high" (95 %). Transfers also have "t", "df", "p", "d_z", "l1", "dssim" and "flipped", the
        share of the samples not classified as that class before.
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
    """Return t, df, p and d_z of differences (n,). For one sample, all but df are NaN."""
    n, mean = len(differences), float(differences.mean())
    if n < 2:
        return {"t": math.nan, "df": n - 1, "p": math.nan, "d_z": math.nan}
    if np.ptp(differences) > 0:
        d_z = mean / float(differences.std(ddof=1))
    else:  # rounding would leave an sd above 0
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
    """Change images toward a class. Return the judge's logits (n, K), and the l1 and dssim of the change, (2, n)."""
    moved = explanation.transfer(batch.images, torch.full_like(batch.labels, index)).detach()
    change = (moved - batch.images).abs().flatten(1)
    return judged(moved, batch.seeds), torch.stack([_mean(change), dssim(moved, batch.images)])


def _mean(values: torch.Tensor) -> torch.Tensor:
    mean: torch.Tensor = values.to(widest(values.device)).mean(1)
    return mean


def _probabilities(logits: torch.Tensor) -> np.ndarray:
    """Return the probabilities of logits on the CPU, float64 (n, K)."""
    result: np.ndarray = probabilities(logits.double()).numpy()
    return result


def _shift(toward: np.ndarray) -> np.ndarray:
    """Return the shift of each sample: (N, K, K) -> (N,)."""
    classes = toward.shape[1]
    aimed = np.einsum("nkk->n", toward)
    shift: np.ndarray = (aimed - (toward.sum((1, 2)) - aimed) / (classes - 1)) / classes
    return shift


def _flipped(original: np.ndarray, toward: np.ndarray) -> np.ndarray:
    """Return 1 where the class was reached, else 0, or NaN where there was nothing to flip: float64 (N, K)."""
    aims = np.arange(original.shape[1])
    before, after = original.argmax(1)[:, None] == aims, toward.argmax(2) == aims
    return np.where(before, np.nan, after.astype(np.float64))
