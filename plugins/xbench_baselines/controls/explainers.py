"""Controls: maps that do not depend on the model, and transforms of other explainers' maps."""

from __future__ import annotations

import functools

import torch
from torch import nn

from xbench import Batch, DatasetInfo, Explainer, MapTransform
from xbench.compute.filters import gaussian_blur
from xbench.runtime.randomness import uniform_field
from xbench.runtime.seeding import derive
from xbench_baselines.controls.options import BlurredOptions, CentreOptions

_RANDOM_STREAM = derive(0, "random maps")


class Random(Explainer):
    """Independent U(0, 1) for each pixel, drawn from the sample's own seed. Every metric must find it worthless."""

    signed = False

    def attribute_batch(self, model: nn.Module, batch: Batch, targets: torch.Tensor) -> torch.Tensor:  # noqa: ARG002
        """Return the maps, (N, *spatial)."""
        return uniform_field(batch.seeds ^ _RANDOM_STREAM, batch.images.shape[2:])


class Constant(Explainer):
    """Zero everywhere. It shows how a metric breaks ties."""

    signed = False

    def attribute(self, model: nn.Module, images: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:  # noqa: ARG002
        """Return the maps, (N, *spatial)."""
        return torch.zeros_like(images[:, 0])


class Centre(Explainer):
    """A Gaussian around the centre. It shows how well a map scores only because findings lie in the middle."""

    signed = False
    options: CentreOptions

    def attribute(self, model: nn.Module, images: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:  # noqa: ARG002
        """Return the maps, (N, *spatial), with values up to 1."""
        spatial = images.shape[2:]
        profiles = [self._profile(size, images) for size in spatial]
        prior = functools.reduce(lambda outer, profile: outer[..., None] * profile, profiles)
        return prior.expand(len(images), *spatial).clone()

    def _profile(self, size: int, like: torch.Tensor) -> torch.Tensor:
        offset = (torch.arange(size, dtype=like.dtype, device=like.device) - (size - 1) / 2) / (
            self.options.width * size
        )
        return torch.exp(-(offset**2) / 2)


class Edges(Explainer):
    """Sobel gradient magnitude of the image, averaged over channels. Borders are extended by their nearest pixel.

    Many saliency maps look like it, whatever the model is (Adebayo et al. 2018).
    """

    signed = False

    def attribute(self, model: nn.Module, images: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:  # noqa: ARG002
        """Return the maps, (N, *spatial)."""
        axes = range(2, images.ndim)
        squared = torch.zeros_like(images)
        for derived in axes:
            slope = images
            for axis in axes:
                slope = _filtered(slope, axis, (-1.0, 0.0, 1.0) if axis == derived else (1.0, 2.0, 1.0))
            squared += slope**2
        return squared.sqrt().mean(1)


class Mask(Explainer):
    """The expert's mask as a map, zero for images without a mask. It shows what the expert's knowledge scores."""

    signed = False

    def supports(self, model: nn.Module, info: DatasetInfo) -> str | None:  # noqa: ARG002
        """Return a reason for datasets without masks."""
        return None if info.has_masks else f"dataset {info.name} has no expert masks"

    def attribute_batch(self, model: nn.Module, batch: Batch, targets: torch.Tensor) -> torch.Tensor:  # noqa: ARG002
        """Return the maps, (N, *spatial), 0 or 1."""
        return batch.masks.to(batch.images.dtype)


class Inverted(MapTransform):
    """The negated map. A metric that rates it as high as the map itself does not measure what it claims."""

    def transform(self, maps: torch.Tensor) -> torch.Tensor:
        """Return the maps, (N, *spatial)."""
        return -maps


class Blurred(MapTransform):
    """The map after a Gaussian blur, mirrored at the borders. It shows where a metric rewards smoothness alone."""

    options: BlurredOptions

    def transform(self, maps: torch.Tensor) -> torch.Tensor:
        """Return the maps, (N, *spatial)."""
        return gaussian_blur(maps[:, None], self.options.sigma)[:, 0]


def _filtered(images: torch.Tensor, axis: int, weights: tuple[float, float, float]) -> torch.Tensor:
    """Correlate along one axis with three weights, the border extended by its nearest pixel."""
    size = images.shape[axis]
    before = images.index_select(axis, torch.arange(-1, size - 1, device=images.device).clamp(min=0))
    after = images.index_select(axis, torch.arange(1, size + 1, device=images.device).clamp(max=size - 1))
    return weights[0] * before + weights[1] * images + weights[2] * after
