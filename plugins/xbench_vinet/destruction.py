"""Destruction of irrelevant features (Gu et al., VINet, section III-C): noise replaces features of low importance."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial

import torch
from torch import nn
from torch.nn import functional as F

from xbench.runtime.devices import upload
from xbench.runtime.randomness import uniform_field
from xbench.runtime.seeding import derive
from xbench_vinet.stages import Stage

DELTA = 1e-8  # equation 3
INPUT = "input"  # name of the site of the image itself; other sites are named by their modules

Noise = Callable[[torch.Tensor, str], torch.Tensor]
"""Function from features (N, C, *spatial) and a site to uniform noise in [0, 1) that broadcasts to the features."""

_LINEAR = {1: "linear", 2: "bilinear", 3: "trilinear"}
_POOLS: dict[str, dict[int, Callable[..., torch.Tensor]]] = {
    "area": {1: F.adaptive_avg_pool1d, 2: F.adaptive_avg_pool2d, 3: F.adaptive_avg_pool3d},
    "max": {1: F.adaptive_max_pool1d, 2: F.adaptive_max_pool2d, 3: F.adaptive_max_pool3d},
}


def resize_mask(mask: torch.Tensor, spatial: Sequence[int], how: str) -> torch.Tensor:
    """Return the importance map at a feature map's size.

    Args:
        mask: Importance map, (N, 1, *spatial), in [0, 1].
        spatial: The wanted size, no larger than the mask's for "area" and "max".
        how: "bilinear" (the paper; between pixel centres), "area" (means) or "max" (keeps small structures).

    Returns:
        (N, 1, *spatial), in [0, 1].
    """
    if tuple(mask.shape[2:]) == tuple(spatial):
        return mask
    if how == "bilinear":
        return F.interpolate(mask, size=tuple(spatial), mode=_LINEAR[len(spatial)], align_corners=False)
    return _POOLS[how][len(spatial)](mask, tuple(spatial))


def destroy(features: torch.Tensor, mask: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    """Blend each channel of each sample with uniform noise of the channel's range where the mask is low (eqs. 3 to 5).

    With lo and r = hi - lo + 1e-8 of the channel, equations 3 to 5 say P* = lo + r (m (P - lo)/r + (1 - m) N). This
    equals the interpolation (1 - m) (lo + r N) + m P, which needs no division and gives P to the bit where m = 1.

    Args:
        features: P, float (N, C, *spatial).
        mask: m, the share to keep, (N, 1, *spatial), in [0, 1].
        noise: N, uniform in [0, 1), of a shape that broadcasts to the features.

    Returns:
        P*, (N, C, *spatial), within the channel's range [lo, hi + 1e-8].
    """
    axes = tuple(range(2, features.ndim))
    low, high = features.amin(axes, keepdim=True), features.amax(axes, keepdim=True)
    rubble = low + (high - low + DELTA) * noise.to(features.dtype)
    return torch.lerp(rubble, features, mask.to(features.dtype))


def fresh_noise(features: torch.Tensor, site: str) -> torch.Tensor:  # noqa: ARG001
    """Return new noise for every element, from torch's global generator, which training seeds at each epoch."""
    return torch.rand_like(features)


class FixedNoise:
    """One noise pattern (C, *spatial) per site and draw, the same for every sample, on every device and in every batch.

    The noise stays on when the trained network is used (as in the authors' code). But it must not make results random,
    nor let an image's prediction depend on its position in a batch. The classifier can't exploit the fixed pattern,
    because it was trained on new noise at every pass.

    Args:
        seed: Seed of the patterns.
        draw: Number of the pattern.
    """

    def __init__(self, seed: int, draw: int = 0) -> None:
        self._seed = seed
        self._draw = draw
        self._patterns: dict[tuple[object, ...], torch.Tensor] = {}

    def __call__(self, features: torch.Tensor, site: str) -> torch.Tensor:
        """Return the site's pattern, (1, C, *spatial)."""
        key = (site, tuple(features.shape[1:]), features.device)
        if key not in self._patterns:
            self._patterns[key] = self._pattern(features, site)
        return self._patterns[key]

    # The pattern is kept for later passes, which may need gradients, so it must not be an inference tensor.
    @torch.inference_mode(False)
    def _pattern(self, features: torch.Tensor, site: str) -> torch.Tensor:
        seeds = upload(torch.tensor([derive(self._seed, "destruction", site, self._draw)]), features.device)
        # Use the memory format of the features, because mixed formats double the cost of the blend.
        pattern = torch.empty_like(features[:1], dtype=torch.float32, requires_grad=False)
        return pattern.copy_(uniform_field(seeds, features.shape[1:]))


_current: ContextVar[Destruction | None] = ContextVar("xbench_vinet_destruction", default=None)


class Destruction:
    """The destruction in one forward pass, with the mask and the noise for the image and every stage of the classifier.

    Args:
        mask: Importance map of the image's size, (N, 1, *spatial), in [0, 1].
        noise: Source of the noise.
        resize: Method that resizes the mask to a stage: "bilinear", "area" or "max".
    """

    def __init__(self, mask: torch.Tensor, noise: Noise, resize: str = "bilinear") -> None:
        self._mask = mask
        self._noise = noise
        self._resize = resize

    def __call__(self, features: torch.Tensor, site: str) -> torch.Tensor:
        """Return destroyed features (N, C, *spatial). A single pixel has no range for noise and stays unchanged."""
        if features.shape[2:].numel() == 1:
            return features
        mask = resize_mask(self._mask, features.shape[2:], self._resize)
        return destroy(features, mask, self._noise(features, site))

    @contextmanager
    def inside(self, classifier: nn.Module, stages: Sequence[Stage]) -> Iterator[None]:
        """Destroy the stages' unimportant features in forward passes of `classifier` in the block.

        The hooks exist only in the block, so that copies, saved states and folded batch norms of the classifier never
        have one. A pass in another thread, or nested in this one, uses only its own mask.
        """
        handles = []
        token = _current.set(self)
        try:
            for stage in stages:
                module = classifier.get_submodule(stage.module)
                handles.append(module.register_forward_hook(partial(self._after, stage)))
            yield
        finally:
            _current.reset(token)
            for handle in handles:
                handle.remove()

    def _after(self, stage: Stage, module: nn.Module, inputs: object, output: torch.Tensor) -> torch.Tensor | None:
        del module, inputs
        if _current.get() is not self:
            return None
        if not stage.channels_last:
            return self(output, stage.module)
        return self(output.movedim(-1, 1), stage.module).movedim(1, -1)
