"""Validation of the generators on unseen images, and whether they can be trusted."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from xbench import Session, Split
from xbench.runtime.devices import no_autocast, upload
from xbench.runtime.randomness import normal_field
from xbench_cyclegan_am.losses import Dssim, cycle_loss, gaussian_means, log_probabilities

BLUR, NOISE = 1.0, 0.05  # pixels; intensity
_REACH = 3


@dataclass(frozen=True)
class Trial:
    """The generators with the classifier that judges their images.

    Attributes:
        generators: One generator per class, in eval mode.
        classifier: Classifier, frozen, in eval mode.
        dssim: Dissimilarity of images.
    """

    generators: Sequence[nn.Module]
    classifier: nn.Module
    dssim: Dssim

    def smoothed(self, images: torch.Tensor, seeds: torch.Tensor) -> torch.Tensor:
        """Return the logarithm of the mean probability of a blurred and a noisy copy: (N, K).

        The copies have Gaussian blur of 1 pixel (mirrored at the borders), and Gaussian noise of 0.05, which is the
        same every time for an image. What a classifier sees in an image survives both, but an adversarial pattern does
        not.

        Args:
            images: (N, C, H, W).
            seeds: Seeds of the noise, int64 (N,).
        """
        noisy = (images + NOISE * normal_field(seeds, images.shape[1:])).clamp(0, 1)
        both = torch.stack([log_probabilities(self.classifier(copy)) for copy in (blurred(images), noisy)])
        return both.logsumexp(0) - math.log(2)


def blurred(images: torch.Tensor, sigma: float = BLUR) -> torch.Tensor:
    """Return Gaussian means of the same size, of images (N, C, H, W) that are more than 3 pixels wide and high."""
    with no_autocast(images.device):
        return gaussian_means(F.pad(images.float(), [_REACH] * 4, mode="reflect"), sigma, _REACH)


def figures(trial: Trial, split: Split, session: Session) -> dict[str, float]:
    """Return means over a split.

    Returns:
        shift: Like the metric `classifier_shift`: mean over k of P(k | G_k) - mean over j != k of P(k | G_j).
        smoothed_shift: The same for the smoothed classifier.
        toward_<k>: P(k | G_k(x)). For two classes P(1 | G+(x)) is toward_1, and P(1 | G-(x)) is 1 - toward_0.
        smoothed_activation: -log P(k | G_k(x)) of the smoothed classifier.
        cycle_l1: Mean |x - G_j(G_k(x))| of a pixel, j = k + 1 modulo K. cycle, similarity: The losses with these names.
        ssim: SSIM of x and G_k(x). variety_<k>: Variance of a pixel over G_k of all images, divided by that over the
            images; 0 if all become the same.
    """
    totals: dict[str, torch.Tensor] = {}

    def sums(start: int, stop: int) -> dict[str, torch.Tensor]:
        batch = split.batch(np.arange(start, stop))
        images, seeds = upload(batch.images, session.device), upload(batch.seeds, session.device)
        with torch.inference_mode(), session.autocast():
            return _of_batch(trial, images, seeds)

    for _, batch_sums in session.batched(len(split), sums):
        for name, value in batch_sums.items():
            totals[name] = totals[name] + value if name in totals else value
    return _means(totals, len(split))


def _of_batch(trial: Trial, images: torch.Tensor, seeds: torch.Tensor) -> dict[str, torch.Tensor]:
    """Return sums over the batch, including sums and squares of pixels for the varieties."""
    count, classes = len(images), len(trial.generators)
    changed = [generator(images) for generator in trial.generators]
    back = [trial.generators[(k + 1) % classes](moved) for k, moved in enumerate(changed)]
    sure = torch.stack([log_probabilities(trial.classifier(moved)) for moved in changed], dim=1)  # (N, moved to, class)
    robust = torch.stack([trial.smoothed(moved, seeds) for moved in changed], dim=1)
    dissimilar = torch.stack([trial.dssim(images, moved) for moved in changed]).mean()
    means = {
        "shift": shift(sure.exp()).mean(),
        "smoothed_shift": shift(robust.exp()).mean(),
        **{f"toward_{k}": sure[:, k, k].exp().mean() for k in range(classes)},
        "smoothed_activation": -robust.diagonal(dim1=1, dim2=2).mean(),
        "cycle_l1": torch.stack([(images - cycled).abs().mean() for cycled in back]).mean(),
        "cycle": torch.stack([cycle_loss(images, cycled, trial.dssim) for cycled in back]).mean(),
        "similarity": dissimilar,
        "ssim": 1 - 2 * (dissimilar - trial.dssim.offset),
    }
    pixels = {
        f"{name}{kind}": moment
        for name, batch in [("images", images), *((f"toward_{k}", moved) for k, moved in enumerate(changed))]
        for kind, moment in (("+", batch.float().sum(0)), ("++", (batch.float() ** 2).sum(0)))
    }
    return {name: count * value.float() for name, value in means.items()} | pixels


def _means(totals: Mapping[str, torch.Tensor], count: int) -> dict[str, float]:
    means = {name: float(value / count) for name, value in totals.items() if not name.endswith("+")}
    variance = {
        name.rstrip("+"): float((value / count - (totals[name[:-1]] / count) ** 2).clamp_min(0).mean())
        for name, value in totals.items()
        if name.endswith("++")
    }
    natural = variance.pop("images")
    return means | {
        name.replace("toward", "variety"): value / natural if natural > 0 else 1.0 for name, value in variance.items()
    }


def shift(probabilities: torch.Tensor) -> torch.Tensor:
    """Return the mean over k of P(k | G_k) - mean over j != k of P(k | G_j): (N, K moved to, K class) -> (N,)."""
    classes = probabilities.shape[1]
    aimed = probabilities.diagonal(dim1=1, dim2=2).sum(1)
    return (aimed - (probabilities.sum((1, 2)) - aimed) / (classes - 1)) / classes


_MOVED = 0.25  # of the way from P(k | x) to 1
_SURVIVES = 0.5
_VARIETY = 0.25
_SSIM = 0.5
_CYCLE_L1 = 0.1


def distrust(means: Mapping[str, float], original: Sequence[float]) -> str:
    """Return why generators with these figures can't be trusted, or an empty string.

    Args:
        means: Means from `figures`.
        original: Mean P(k | x) of each class.
    """
    reasons = []
    for k, before in enumerate(original):
        after = means[f"toward_{k}"]
        if after - before < _MOVED * (1 - before):
            reasons.append(f"toward class {k} it hardly moves the classifier (mean P from {before:.2f} to {after:.2f})")
        if means[f"variety_{k}"] < _VARIETY:
            reasons.append(f"toward class {k} images become alike (variance {means[f'variety_{k}']:.2f} of before)")
    if means["smoothed_shift"] < _SURVIVES * means["shift"]:
        reasons.append(
            f"slight blur and noise undo the shift ({means['shift']:.2f} to {means['smoothed_shift']:.2f}): adversarial"
        )
    if means["ssim"] < _SSIM:
        reasons.append(f"the images are changed beyond recognition (SSIM {means['ssim']:.2f})")
    if means["cycle_l1"] > _CYCLE_L1:
        reasons.append(f"there is no way back (cycle L1 {means['cycle_l1']:.2f})")
    return "; ".join(reasons)
