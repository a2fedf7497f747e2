"""VisualBackProp."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

from xbench import DatasetInfo, Explainer, Options, undisturbed
from xbench.compute.gate import probe
from xbench.compute.passes import differentiable, gradient_rows
from xbench_baselines.cams.features import (
    ACTIVATIONS,
    POOLS,
    FeatureMap,
    FeatureMapError,
    Observer,
    Structure,
    Window,
    unreadable,
)


class VisualBackProp(Explainer):
    """The product of the averaged feature maps of all layers, from the last layer down to the image.

    Bojarski et al. 2018. m_l is the mean over channels of max(f_l, 0). Start from M = m_L. For each layer, M is brought
    to the size of layer l - 1 and multiplied by m_{l-1}. It is brought there by a transposed convolution with the
    kernel size, stride, padding and dilation of the convolution between the two layers, and with all weights 1. From
    m_1, the same step leads to the image. The result is stretched to [0, 1] per image. A map that is the same
    everywhere can't be stretched and becomes 0. The map is not signed, and is the same for every class.

    The layers are the feature maps that lie on every path, after their activation. In a plain chain, every convolution
    has one. In a network with branches (residual, dense), a layer is the last such map at each resolution. The many
    convolutions between two of these layers are replaced by enlargement to the nearest neighbour and one 3 x 3
    convolution of stride 1 (as in VINet's comparison). Poolings are undone by the nearest neighbour.
    """

    signed = False

    def __init__(self, options: Options, argument: str = "") -> None:
        super().__init__(options, argument)
        self._observer = Observer()

    def attribute(self, model: nn.Module, images: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:  # noqa: ARG002
        """Return the maps, (N, *spatial), in [0, 1]."""
        network = differentiable(model, images, len(images))
        # Each feature map is read once more, right after it was made. Fewer rows keep it in the CPU's caches until
        # then. A pass without gradients keeps nothing else, so it may have twice the rows of one with gradients.
        rows = 2 * gradient_rows(model, images)
        with torch.no_grad():
            return torch.cat([self._mask(network, part) for part in torch.split(images, rows)])

    def _mask(self, model: nn.Module, images: torch.Tensor) -> torch.Tensor:
        _, layers, averages = self._averages(model, images, in_place=True)
        mask = averages[-1]
        for layer, below in zip(layers[:0:-1], averages[-2::-1], strict=True):
            # A deep network's products would leave the range of floats. The final stretch removes the scale anyway.
            mask = _relative(layer.taken_down(mask, below.shape[2:]) * below)
        return _stretched(layers[0].taken_down(mask, images.shape[2:])).squeeze(1)

    def supports(self, model: nn.Module, info: DatasetInfo) -> str | None:
        """Return a reason for models without a feature map on every path, or with attention after the last of them."""
        images = probe(info, model)
        with undisturbed(model), torch.no_grad():
            return unreadable(model, images, lambda: self._averages(model, images)[0])

    def _averages(
        self, model: nn.Module, images: torch.Tensor, *, in_place: bool = False
    ) -> tuple[torch.Tensor, list[_Layer], list[torch.Tensor]]:
        """Return the logits, the layers, and m_l of each layer, (N, 1, *sides).

        `supports` runs the model out of place, as when the layers were found. An operation that works in place without
        being seen then gives other logits, so that `unreadable` notices it.
        """
        layers: list[_Layer] = []

        def choose(structure: Structure) -> list[FeatureMap]:
            layers[:] = _layers(structure)
            return [layer.feature for layer in layers]

        logits, averages = self._observer.run(model, images, choose, _average, in_place=in_place)
        return logits, layers, averages


def _average(feature: FeatureMap, values: torch.Tensor) -> torch.Tensor:
    """Return the mean over channels of max(f, 0): (N, C, *sides) -> (N, 1, *sides)."""
    channels = values.shape[1]
    rows = (values if feature.kind == "relu" else values.relu()).movedim(1, -1).reshape(-1, channels)
    # The mean is a product with a vector, because a reduction of axis 1 in channels-last memory takes several times as
    # long.
    return torch.mv(rows, rows.new_full((channels,), 1 / channels)).view(len(values), 1, *values.shape[2:])


@dataclass(frozen=True)
class _Layer:
    """A feature map, and the convolutions between the previous layer and this one."""

    feature: FeatureMap
    convolutions: tuple[FeatureMap, ...]

    @property
    def active(self) -> bool:
        return self.feature.kind in ACTIVATIONS

    @property
    def plain(self) -> bool:
        """Whether one convolution, with nothing beside it, leads from the previous layer to this one."""
        return len(self.convolutions) == 1 and self.convolutions[0].essential

    def taken_down(self, mask: torch.Tensor, sides: tuple[int, ...]) -> torch.Tensor:
        """Return the mask at the size of the previous layer: (N, 1, *sides of this layer) -> (N, 1, *sides)."""
        first, *more = self.convolutions
        if more or first.window is None:
            ones = (1,) * len(sides)
            return _transposed(Window((3,) * len(sides), ones, ones, ones, sides), _nearest(mask, sides))
        return _nearest(_transposed(first.window, _nearest(mask, first.sides)), sides)


def _layers(structure: Structure) -> list[_Layer]:
    """Return the layers that the mask passes, in order.

    Raises:
        FeatureMapError: No convolution has a feature map that lies on every path.
    """
    last = structure.feature()
    layers: list[_Layer] = []
    pending: list[FeatureMap] = []
    for one in structure.maps:
        if one.kind in POOLS or one.order > last.order:
            continue
        if one.kind == "convolution":
            pending.append(one)
        if not one.essential:
            continue
        if pending:
            layers.append(_Layer(one, tuple(pending)))
            pending = []
        elif layers and (one.kind in ACTIVATIONS or not layers[-1].active):
            layers[-1] = _Layer(one, layers[-1].convolutions)
    if not layers:
        raise FeatureMapError("it has no convolution whose feature map lies on every path from the image to its logits")
    return layers if all(layer.plain for layer in layers) else _last_of_each_size(layers)


def _last_of_each_size(layers: list[_Layer]) -> list[_Layer]:
    """Return the last layer at each resolution, after an activation if it has one, with all convolutions up to it."""
    stages: list[_Layer] = []
    for layer in layers:
        if not stages or stages[-1].feature.sides != layer.feature.sides:
            stages.append(layer)
            continue
        last = layer.feature if layer.active or not stages[-1].active else stages[-1].feature
        stages[-1] = _Layer(last, stages[-1].convolutions + layer.convolutions)
    return stages


def _transposed(window: Window, mask: torch.Tensor) -> torch.Tensor:
    """Return the mask after the convolution's transpose with weights 1, at the size of the convolution's input.

    A kernel of ones is the product of kernels of ones along each axis, so the axes can be taken in turn. Along an axis,
    the transpose is a product with the matrix that says which step of the window looked at which position. At stride 1
    this is ten times as fast as a transposed convolution of one channel, and it always gives the right size.
    """
    for axis in range(len(window.sides)):
        looked_at = _looked_at(window, axis, mask.shape[2 + axis], mask.device).to(mask.dtype)
        mask = torch.tensordot(mask, looked_at, dims=([2 + axis], [1])).movedim(-1, 2 + axis)
    return mask


@functools.lru_cache(maxsize=256)  # a network's handful of windows, for every batch
def _looked_at(window: Window, axis: int, steps: int, device: torch.device) -> torch.Tensor:
    """Return which positions of an axis each step of the window looks at: 0 or 1, float32 (positions, steps)."""
    kernel, stride, padding, dilation = (
        geometry[axis] for geometry in (window.kernel, window.stride, window.padding, window.dilation)
    )
    starts = torch.arange(steps, device=device) * stride - padding
    offset = torch.arange(window.sides[axis], device=device)[:, None] - starts
    return ((offset >= 0) & (offset <= dilation * (kernel - 1)) & (offset % dilation == 0)).float()


def _nearest(mask: torch.Tensor, sides: tuple[int, ...]) -> torch.Tensor:
    return mask if mask.shape[2:] == sides else F.interpolate(mask, tuple(sides), mode="nearest")


def _relative(mask: torch.Tensor) -> torch.Tensor:
    """Divide the mask of each image by its largest value, unless that is 0."""
    largest = mask.flatten(1).amax(1).view(-1, *[1] * (mask.ndim - 1))
    return mask / largest.where(largest > 0, torch.ones_like(largest))


def _stretched(mask: torch.Tensor) -> torch.Tensor:
    """Stretch the mask of each image to [0, 1]. A mask that is the same everywhere becomes 0."""
    shape = (-1, *[1] * (mask.ndim - 1))
    least, largest = mask.flatten(1).amin(1).view(shape), mask.flatten(1).amax(1).view(shape)
    return torch.where(largest > least, (mask - least) / (largest - least), torch.zeros_like(mask))
