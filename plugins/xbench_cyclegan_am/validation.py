"""How the generators do on images they have not seen, and whether they can be trusted."""

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
    """The generators before the classifier.

    Attributes:
        generators: One a class, in eval mode.
        classifier: Frozen, in eval mode.
        dssim: Of images.
    """

    generators: Sequence[nn.Module]
    classifier: nn.Module
    dssim: Dssim

    def smoothed(self, images: torch.Tensor, seeds: torch.Tensor) -> torch.Tensor:
        """Logarithm of the mean probability that the classifier gives a blurred and a noisy copy: (N, K).

        Gaussian blur of 1 pixel (mirrored at the borders) and Gaussian noise of 0.05, the same for an image every time.
        What a classifier sees in an image survives both; an adversarial pattern does not.

        Args:
            images: (N, C, H, W).
            seeds: int64 (N,), of the noise.
        """
        noisy = (images + NOISE * normal_field(seeds, images.shape[1:])).clamp(0, 1)
        both = torch.stack([log_probabilities(self.classifier(copy)) for copy in (blurred(images), noisy)])
        return both.logsumexp(0) - math.log(2)


def blurred(images: torch.Tensor, sigma: float = BLUR) -> torch.Tensor:
    """Gaussian means, of the same size: (N, C, H, W), which is more than 3 pixels wide and high."""
    with no_autocast(images.device):
        return gaussian_means(F.pad(images.float(), [_REACH] * 4, mode="reflect"), sigma, _REACH)


def figures(trial: Trial, split: Split, session: Session) -> dict[str, float]:
    """Means over a split.

    Returns:
        shift: As of the metric `classifier_shift`: mean over k of P(k | G_k) - mean over j != k of P(k | G_j).
        smoothed_shift: The same of the smoothed classifier.
        toward_<k>: P(k | G_k(x)). For two classes P(1 | G+(x)) is toward_1, and P(1 | G-(x)) is 1 - toward_0.
        smoothed_activation: -log P(k | G_k(x)) of the smoothed classifier.
        cycle_l1: mean |x - G_j(G_k(x))| of a pixel, j = k + 1 modulo K.
        cycle, similarity: The losses of these names.
        ssim: of x and G_k(x).
        variety_<k>: variance of a pixel over G_k of all images, over that of the images: 0 where all become one.
    """
    totals: dict[str, torch.Tensor] = {}

    def sums(start: int, stop: int) -> dict[str, torch.Tensor]:
        batch = split.batch(np.arange(start, stop))
        images, seeds = upload(batch.images, session.device), upload(batch.seeds, session.device)
        with torch.inference_mode(), session.autocast():
            return _of_batch(trial, images, seeds)

    for _, found in session.batched(len(split), sums):
        for name, value in found.items():
            totals[name] = totals[name] + value if name in totals else value
    return _means(totals, len(split))


def _of_batch(trial: Trial, images: torch.Tensor, seeds: torch.Tensor) -> dict[str, torch.Tensor]:
    """Sums over the batch; the sums and squares of pixels for the varieties."""
    count, classes = len(images), len(trial.generators)
    changed = [generator(images) for generator in trial.generators]
    back = [trial.generators[(k + 1) % classes](one) for k, one in enumerate(changed)]
    sure = torch.stack([log_probabilities(trial.classifier(one)) for one in changed], dim=1)  # (N, moved to, class)
    robust = torch.stack([trial.smoothed(one, seeds) for one in changed], dim=1)
    dissimilar = torch.stack([trial.dssim(images, one) for one in changed]).mean()
    means = {
        "shift": shift(sure.exp()).mean(),
        "smoothed_shift": shift(robust.exp()).mean(),
        **{f"toward_{k}": sure[:, k, k].exp().mean() for k in range(classes)},
        "smoothed_activation": -robust.diagonal(dim1=1, dim2=2).mean(),
        "cycle_l1": torch.stack([(images - one).abs().mean() for one in back]).mean(),
        "cycle": torch.stack([cycle_loss(images, one, trial.dssim) for one in back]).mean(),
        "similarity": dissimilar,
        "ssim": 1 - 2 * (dissimilar - trial.dssim.offset),
    }
    pixels = {
        f"{name}{kind}": moment
        for name, batch in [("images", images), *((f"toward_{k}", one) for k, one in enumerate(changed))]
        for kind, moment in (("+", batch.float().sum(0)), ("++", (batch.float() ** 2).sum(0)))
    }
    return {name: count * value.float() for name, value in means.items()} | pixels


def _means(totals: Mapping[str, torch.Tensor], count: int) -> dict[str, float]:
    found = {name: float(value / count) for name, value in totals.items() if not name.endswith("+")}
    variance = {
        name.rstrip("+"): float((value / count - (totals[name[:-1]] / count) ** 2).clamp_min(0).mean())
        for name, value in totals.items()
        if name.endswith("++")
    }
    natural = variance.pop("images")
    return found | {
        name.replace("toward", "variety"): value / natural if natural > 0 else 1.0 for name, value in variance.items()
    }


def shift(probabilities: torch.Tensor) -> torch.Tensor:
    """(N, K moved to, K class) -> (N,): mean over k of P(k | G_k) - mean over j != k of P(k | G_j)."""
    classes = probabilities.shape[1]
    aimed = probabilities.diagonal(dim1=1, dim2=2).sum(1)
    return (aimed - (probabilities.sum((1, 2)) - aimed) / (classes - 1)) / classes


_MOVED = 0.25  # of the way from P(k | x) to 1
_SURVIVES = 0.5
_VARIETY = 0.25
_SSIM = 0.5
_CYCLE_L1 = 0.1


def distrust(found: Mapping[str, float], original: Sequence[float]) -> str:
    """Why generators with these figures should not be believed, in words; empty if there is no reason.

    Args:
        found: As of `figures`.
        original: mean P(k | x), of each class.
    """
    reasons = []
    for k, before in enumerate(original):
        after = found[f"toward_{k}"]
        if after - before < _MOVED * (1 - before):
            reasons.append(f"toward class {k} it hardly moves the classifier (mean P from {before:.2f} to {after:.2f})")
        if found[f"variety_{k}"] < _VARIETY:
            reasons.append(f"toward class {k} images become alike (variance {found[f'variety_{k}']:.2f} of before)")
    if found["smoothed_shift"] < _SURVIVES * found["shift"]:
        reasons.append(
            f"slight blur and noise undo the shift ({found['shift']:.2f} to {found['smoothed_shift']:.2f}): adversarial"
        )
    if found["ssim"] < _SSIM:
        reasons.append(f"the images are changed beyond recognition (SSIM {found['ssim']:.2f})")
    if found["cycle_l1"] > _CYCLE_L1:
        reasons.append(f"there is no way back (cycle L1 {found['cycle_l1']:.2f})")
    return "; ".join(reasons)
