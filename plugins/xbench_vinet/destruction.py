"""Irrelevant-feature destruction (Gu et al., VINet, section III-C): noise replaces features where importance is low."""

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
INPUT = "input"  # the site name of the image itself; stages are named by their modules

Noise = Callable[[torch.Tensor, str], torch.Tensor]
"""(features (N, C, *spatial), site) -> uniform noise in [0, 1) that broadcasts to the features."""

_LINEAR = {1: "linear", 2: "bilinear", 3: "trilinear"}
_POOLS: dict[str, dict[int, Callable[..., torch.Tensor]]] = {
    "area": {1: F.adaptive_avg_pool1d, 2: F.adaptive_avg_pool2d, 3: F.adaptive_avg_pool3d},
    "max": {1: F.adaptive_max_pool1d, 2: F.adaptive_max_pool2d, 3: F.adaptive_max_pool3d},
}


def resize_mask(mask: torch.Tensor, spatial: Sequence[int], how: str) -> torch.Tensor:
    """The importance map at a feature map's size.

    Args:
        mask: (N, 1, *spatial), in [0, 1].
        spatial: The size wanted, no larger than the mask's for "area" and "max".
        how: "bilinear" (the paper; between pixel centres), "area" (means) or "max" (small structures stay alive).

    Returns:
        (N, 1, *spatial), in [0, 1].
    """
    if tuple(mask.shape[2:]) == tuple(spatial):
        return mask
    if how == "bilinear":
        return F.interpolate(mask, size=tuple(spatial), mode=_LINEAR[len(spatial)], align_corners=False)
    return _POOLS[how][len(spatial)](mask, tuple(spatial))


def destroy(features: torch.Tensor, mask: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    """Equations 3 to 5: each channel of each sample blends into uniform noise of its own range where the mask is low.

    With lo and r = hi - lo + 1e-8 of the channel, equations 3 to 5 say P* = lo + r (m (P - lo)/r + (1 - m) N). That is
    the interpolation (1 - m) (lo + r N) + m P, which needs no division and gives P to the bit where m = 1.

    Args:
        features: P, float (N, C, *spatial).
        mask: m, (N, 1, *spatial), in [0, 1]: what is kept.
        noise: N, uniform in [0, 1), of a shape that broadcasts to the features'.

    Returns:
        P*, (N, C, *spatial), within the channel's range [lo, hi + 1e-8].
    """
    axes = tuple(range(2, features.ndim))
    low, high = features.amin(axes, keepdim=True), features.amax(axes, keepdim=True)
    rubble = low + (high - low + DELTA) * noise.to(features.dtype)
    return torch.lerp(rubble, features, mask.to(features.dtype))


def fresh_noise(features: torch.Tensor, site: str) -> torch.Tensor:  # noqa: ARG001
    """New noise for every element, from torch's global generator, which the training loop seeds anew each epoch."""
    return torch.rand_like(features)


class FixedNoise:
    """One noise pattern (C, *spatial) per site and draw, the same for every sample, on every device and in every batch.

    The noise stays on when the network is used (as in the authors' code), but must not make results random, nor let an
    image's prediction depend on its place in a batch. The classifier can't exploit the fixed pattern, because it was
    trained on fresh noise.

    Args:
        seed: Of the patterns.
        draw: Which of the patterns.
    """

    def __init__(self, seed: int, draw: int = 0) -> None:
        self._seed = seed
        self._draw = draw
        self._patterns: dict[tuple[object, ...], torch.Tensor] = {}

    def __call__(self, features: torch.Tensor, site: str) -> torch.Tensor:
        """The site's pattern, (1, C, *spatial)."""
        key = (site, tuple(features.shape[1:]), features.device)
        if key not in self._patterns:
            self._patterns[key] = self._pattern(features, site)
        return self._patterns[key]

    # Kept for later passes, which may want gradients, so it must not be an inference tensor.
    @torch.inference_mode(False)
    def _pattern(self, features: torch.Tensor, site: str) -> torch.Tensor:
        seeds = upload(torch.tensor([derive(self._seed, "destruction", site, self._draw)]), features.device)
        # In the memory format of the features: mixed formats double the cost of the blend.
        pattern = torch.empty_like(features[:1], dtype=torch.float32, requires_grad=False)
        return pattern.copy_(uniform_field(seeds, features.shape[1:]))


_current: ContextVar[Destruction | None] = ContextVar("xbench_vinet_destruction", default=None)


class Destruction:
    """The destruction of one forward pass: its mask and its noise, for the image and every stage of the classifier.

    Args:
        mask: (N, 1, *spatial), in [0, 1], of the image's size.
        noise: Where the noise comes from.
        resize: How the mask is brought to a stage's size: "bilinear", "area" or "max".
    """

    def __init__(self, mask: torch.Tensor, noise: Noise, resize: str = "bilinear") -> None:
        self._mask = mask
        self._noise = noise
        self._resize = resize

    def __call__(self, features: torch.Tensor, site: str) -> torch.Tensor:
        """`features` (N, C, *spatial) destroyed; a single pixel has no range to draw noise from and is left alone."""
        if features.shape[2:].numel() == 1:
            return features
        mask = resize_mask(self._mask, features.shape[2:], self._resize)
        return destroy(features, mask, self._noise(features, site))

    @contextmanager
    def inside(self, classifier: nn.Module, stages: Sequence[Stage]) -> Iterator[None]:
        """While open, forward passes of `classifier` made here lose the stages' unimportant features.

        The hooks live no longer than the block, so that copies, saved states and folded batch norms of the classifier
        never carry one; a pass in another thread, or nested in this one, sees its own mask only.
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
