"""Brocki et al., Tables 1 to 3, with captum, Quantus, scikit-learn and the XRAI authors' package.

There are two versions. The documented one is written as users would write it today, with the calls that the libraries'
documentation shows (`quantus_fidelity`, `documented_dice`). The other one is tuned (`fidelity`, `dice`): perturbed
images stay tensors, and an image's segments are made once for all maps. Both use the same maps, which are batched where
possible. Each map is made once for both signs.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence

import numpy as np
import quantus
import torch
from captum import attr
from saliency.core import xrai
from sklearn.metrics import roc_auc_score
from torch import nn

STEPS = 32  # Quantus removes a whole number of pixels at a time: 64 x 64 and 224 x 224 are multiples of 32
AREAS = (*range(1, 11), 12, 15, 20, 30, 50, 70, 100)
Maps = Mapping[str, np.ndarray]


def captum_maps(
    model: nn.Module, images: torch.Tensor, targets: torch.Tensor, pool: torch.Tensor, rows: int, samples: int
) -> dict[str, np.ndarray]:
    """Return the maps of the eight estimators by name, (N, H, W) each."""

    def batched(explain: attr.Attribution, size: int = rows, **options: object) -> np.ndarray:
        parts = [
            explain.attribute(images[at : at + size], target=targets[at : at + size], **options).detach()
            for at in range(0, len(images), size)
        ]
        return torch.cat(parts).sum(1).cpu().numpy()

    path = functools.partial(
        batched, attr.IntegratedGradients(model), n_steps=25, method="riemann_right", internal_batch_size=rows
    )
    black, white = path(baselines=0.0), path(baselines=1.0)
    noise = attr.NoiseTunnel(attr.Saliency(model))
    spans = images.flatten(1)
    strength = 0.15 * float((spans.amax(1) - spans.amin(1)).mean())  # one for the batch is what it takes
    smooth = {"nt_samples": 15, "stdevs": strength, "abs": False}
    few = max(1, rows // 15)
    expected = attr.GradientShap(model)
    one_by_one = {"baselines": pool, "n_samples": samples, "stdevs": 0.0}
    generator = np.random.default_rng(0)
    return {
        "gradient": batched(attr.Saliency(model), abs=False),
        "deconvolution": batched(attr.Deconvolution(model)),
        "integrated-gradients": black,
        "integrated-gradients-bw": (black + white) / 2,
        "expected-gradients": batched(expected, 1, **one_by_one),
        "smoothgrad": batched(noise, few, nt_type="smoothgrad", **smooth),
        "smoothgrad-squared": batched(noise, few, nt_type="smoothgrad_sq", **smooth),
        "random": generator.random(images[:, 0].shape),
    }


@torch.no_grad()
def fidelity(
    model: nn.Module, images: torch.Tensor, labels: np.ndarray, maps: np.ndarray, fill: float, rows: int
) -> float:
    """Return the area between the curves of balanced accuracy, least and most important pixels first."""
    pixels = maps[0].size
    counts = np.round(np.linspace(0, pixels, STEPS + 1)).astype(int)
    order = torch.from_numpy(np.argsort(-maps.reshape(len(maps), -1), axis=1)).to(images.device)
    ranks = order.argsort(1)
    right = np.zeros((2, STEPS + 1, len(images)), dtype=bool)
    flat = images.flatten(2)
    for mode, places in enumerate((ranks, pixels - 1 - ranks)):
        for step, count in enumerate(counts):
            for at in range(0, len(images), rows):
                gone = places[at : at + rows, None] < int(count)
                changed = torch.where(gone, fill, flat[at : at + rows]).view_as(images[at : at + rows])
                predicted = model(changed).argmax(1).cpu().numpy()
                right[mode, step, at : at + rows] = predicted == labels[at : at + rows]
    accuracy = np.stack([right[..., labels == label].mean(-1) for label in np.unique(labels)]).mean(0)
    mif, lif = np.trapezoid(accuracy, dx=1 / STEPS, axis=1)
    return float(lif - mif)


def quantus_fidelity(
    model: nn.Module, images: torch.Tensor, labels: np.ndarray, maps: np.ndarray, fill: float, rows: int
) -> float:
    """Return the same area by Quantus' pixel flipping. Of two classes, the model answers with the more probable one."""
    pixels = maps[0].size
    flipping = quantus.PixelFlipping(
        features_in_step=pixels // STEPS,
        perturb_baseline=fill,
        normalise=False,  # leaves the order as it is
        disable_warnings=True,
        display_progressbar=False,
    )
    where = {"device": str(images.device), "batch_size": rows}
    given = {"model": model, "x_batch": images.cpu().numpy(), "y_batch": labels, **where}
    with torch.no_grad():
        whole = model(images).softmax(1).cpu().numpy()[np.arange(len(labels)), labels]
    areas = []
    exact = maps[:, None].astype(float)
    for ordered in (exact, exact.max() - exact):  # it refuses a map without a positive value
        curves = np.array(flipping(**given, a_batch=ordered, softmax=True, channel_first=True))
        right = np.concatenate([whole[:, None], curves], axis=1) > 0.5
        accuracy = np.stack([right[labels == label].mean(0) for label in np.unique(labels)]).mean(0)
        areas.append(np.trapezoid(accuracy, dx=1 / STEPS))
    return float(areas[1] - areas[0])


def roc_auc(maps: np.ndarray, masks: np.ndarray) -> float:
    """Return the mean over images of the exact AUC."""
    return float(np.mean([roc_auc_score(mask.ravel(), one.ravel()) for one, mask in zip(maps, masks, strict=True)]))


def segments(images: np.ndarray) -> list[list[np.ndarray]]:
    """Return XRAI's segments of each image."""
    return [xrai._get_segments_felzenszwalb(image[0]) for image in images]


def documented_dice(images: np.ndarray, maps: np.ndarray, masks: np.ndarray) -> float:
    """Return the same as `dice`, by the package's own call for an image and its map, which segments the image."""
    return dice(images, maps, masks, [None] * len(images))


def dice(
    images: np.ndarray, maps: np.ndarray, masks: np.ndarray, segmented: Sequence[list[np.ndarray] | None]
) -> float:
    """Return the maximum over areas of the mean Dice of XRAI's regions."""
    parameters = xrai.XRAIParameters()
    curves = []
    for image, one, mask, segs in zip(images, maps, masks, segmented, strict=True):
        ranked = xrai.XRAI().GetMask(
            image[0], None, segments=segs, base_attribution=one.astype(float), extra_parameters=parameters
        )
        shown = ranked[None] >= np.percentile(ranked, 100 - np.array(AREAS))[:, None, None]
        overlap = (shown & mask).sum((1, 2))
        curves.append(2 * overlap / (shown.sum((1, 2)) + mask.sum()))
    return float(np.mean(curves, axis=0).max())
