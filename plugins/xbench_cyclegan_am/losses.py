"""Losses: dissimilarity of images (Katzmann et al., section 2.2) and a classifier's confidence (section 2.4)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch.nn import functional as F

from xbench import class_scores
from xbench.compute.similarity import ssim_terms
from xbench.runtime.devices import no_autocast, upload

_SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # Wang et al. 2003
_PATCH = 3
_RADIUS, _SIGMA = 5, 1.5


@dataclass(frozen=True)
class Dssim:
    """Structural dissimilarity (1 - SSIM) / 2 of images in [0, 1]; 0 for equal images.

    The paper leaves some details open or has errors. The choices here are:

    - Equation 1 is 1 - SSIM / 2, which is the usual (1 - SSIM) / 2 plus a half, with the same gradient. offset=0.5
      gives its value.
    - c1 = .01 and c2 = .03 are the customary K1 and K2; the constants are their squares (the images' range is 1).
      constants="raw" uses them as printed, which hardly counts contrast of less than a tenth.
    - The window is not given: patches of 3 x 3 pixels side by side with biased variances, as in keras-contrib's
      DSSIMObjective (whose k1 and k2 are these); at the far border they are cut, so that every pixel is judged. Or
      window="gaussian": 11 pixels, sigma 1.5.
    - "MS-DSSIM" is announced (and is not from Isola et al., who have none), equation 1 has one scale. scales > 1 is
      Wang et al. 2003, with their exponents made to sum to 1; scales at which an image is smaller than a window are
      left out.

    Attributes:
        window: "patch" or "gaussian".
        constants: "usual" or "raw".
        scales: Number of scales, each half the size of the one before; at most 5.
        offset: Number added to the value.
    """

    window: Literal["patch", "gaussian"] = "patch"
    constants: Literal["usual", "raw"] = "usual"
    scales: int = 1
    offset: float = 0.0

    def __call__(self, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        """Return the mean over samples, channels and windows, a scalar, of images (N, C, H, W) each."""
        return self.of_each(first, second).mean()

    def of_each(self, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        """Return the value of each sample, float32 (N,), of images (N, C, H, W) each."""
        with no_autocast(first.device):
            return (1 - self._similarity(first.float(), second.float())) / 2 + self.offset

    def _similarity(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Return the similarity of each sample, (N,)."""
        count = max(1, sum(min(x.shape[-2:]) >> scale >= self._smallest for scale in range(self.scales)))
        if count == 1:
            return self._terms(x, y)[0]
        weights = torch.tensor(_SCALE_WEIGHTS[:count])
        weights = upload(weights / weights.sum(), x.device)
        product = torch.ones(len(x), device=x.device)
        for scale in range(count):
            whole, structure = self._terms(x, y)
            # The structure term may be negative, but a power needs a positive base.
            product = product * (whole if scale == count - 1 else structure).clamp_min(1e-4) ** weights[scale]
            x, y = F.avg_pool2d(x, 2), F.avg_pool2d(y, 2)
        return product

    def _terms(self, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return SSIM and its contrast and structure terms alone: means over channels and windows, each (N,)."""
        c1, c2 = (0.01, 0.03) if self.constants == "raw" else (0.01**2, 0.03**2)
        terms = ssim_terms(x, y, self._means, (c1, c2))
        structure = terms.structure
        return (terms.luminance * structure).flatten(1).mean(1), structure.flatten(1).mean(1)

    @property
    def _smallest(self) -> int:
        return _PATCH if self.window == "patch" else 2 * _RADIUS + 1

    def _means(self, images: torch.Tensor) -> torch.Tensor:
        if self.window == "patch":
            return F.avg_pool2d(images, _PATCH, ceil_mode=True)
        return gaussian_means(images, _SIGMA, _RADIUS)


def gaussian_means(images: torch.Tensor, sigma: float, reach: int) -> torch.Tensor:
    """Return Gaussian means of the windows that lie inside the image: (N, C, H, W) -> (N, C, H', W').

    Only windows inside the image count: H' = H - 2 reach. A side shorter than the window is first mirrored at its
    borders, whose own pixels are not repeated.

    This is own code beside `xbench.compute.filters.gaussian_blur`, which multiplies by a matrix, rounds differently and
    repeats the borders. Generators are trained through this function, and other last bits would give other generators.
    """
    taps = torch.arange(-reach, reach + 1, device=images.device, dtype=images.dtype)
    taps = (-(taps**2) / (2 * sigma**2)).exp()
    taps = taps / taps.sum()
    short = [reach if side < len(taps) else 0 for side in images.shape[-2:]]
    images = F.pad(images, (short[1], short[1], short[0], short[0]), mode="reflect") if any(short) else images
    count, channels = images.shape[:2]
    flat = images.reshape(count * channels, 1, *images.shape[2:])
    flat = F.conv2d(F.conv2d(flat, taps.view(1, 1, -1, 1)), taps.view(1, 1, 1, -1))
    return flat.view(count, channels, *flat.shape[2:])


def cycle_loss(images: torch.Tensor, back: torch.Tensor, dssim: Callable[..., torch.Tensor]) -> torch.Tensor:
    """Return equation 2: half the mean absolute difference (the mean is not in the paper) plus half the DSSIM."""
    return 0.5 * ((images - back).abs().mean() + dssim(images, back))


def activation_loss(logits: torch.Tensor, target: int) -> torch.Tensor:
    """Return -log P(target), the mean over samples. A classifier with one neuron counts as two classes.

    Equation 4 has C(x_a), which no generator can change. The text, and this function, judge C(G(x_a)).

    Args:
        logits: (N, K), or (N, 1).
        target: Index of the class.
    """
    return -log_probabilities(logits)[:, target].mean()


def log_probabilities(logits: torch.Tensor) -> torch.Tensor:
    """Return log probabilities: (N, K) or (N, 1) -> float32 (N, K) or (N, 2)."""
    scores = class_scores(logits.float()) / (2 if logits.shape[1] == 1 else 1)
    return scores.log_softmax(dim=1)
