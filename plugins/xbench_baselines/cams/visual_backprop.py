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
    """The averaged feature maps of all layers multiplied, from the last down to the image (Bojarski et al. 2018).

    m_l = mean over channels of max(f_l, 0). Starting from M = m_L: M is brought to the size of layer l - 1 by the
    transposed convolution with the kernel size, stride, padding and dilation of the convolution between them and all
    weights 1, and multiplied by m_{l-1}; from m_1 the same way to the image, then stretched to [0, 1] per image. A
    map that is the same everywhere has no such stretch and becomes 0. Not signed, and the same for every class.

    Layers are the maps that all goes through, after their activation. In a plain chain that is every convolution's. In
    a network with branches (residual, dense) it is the last at each resolution; the many convolutions between two of
    them stand as one of 3 x 3, stride 1, after enlargement to the nearest (as in VINet's comparison). Poolings are
    undone to the nearest.
    """

    signed = False

    def __init__(self, options: Options, argument: str = "") -> None:
        super().__init__(options, argument)
        self._observer = Observer()

    def attribute(self, model: nn.Module, images: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:  # noqa: ARG002
        """Return the maps, (N, *spatial), in [0, 1]."""
        network = differentiable(model, images, len(images))
        # Every feature map is read once more: while it is in the CPU's caches, where it need not be kept any longer.
        rows = 2 * gradient_rows(model, images)
        with torch.no_grad():
            return torch.cat([self._mask(network, part) for part in torch.split(images, rows)])

    def _mask(self, model: nn.Module, images: torch.Tensor) -> torch.Tensor:
        _, layers, averages = self._averages(model, images, in_place=True)
        mask = averages[-1]
        for layer, below in zip(layers[:0:-1], averages[-2::-1], strict=True):
            # Scale is lost in the end; without this, a deep network's products leave the range of floats.
            mask = _relative(layer.taken_down(mask, below.shape[2:]) * below)
        return _stretched(layers[0].taken_down(mask, images.shape[2:])).squeeze(1)

    def supports(self, model: nn.Module, info: DatasetInfo) -> str | None:
        """Refuses models without feature maps that all goes through, and attention after the last of them."""
        images = probe(info, model)
        with undisturbed(model), torch.no_grad():
            return unreadable(model, images, lambda: self._averages(model, images)[0])

    def _averages(
        self, model: nn.Module, images: torch.Tensor, *, in_place: bool = False
    ) -> tuple[torch.Tensor, list[_Layer], list[torch.Tensor]]:
        """The logits, the layers, and m_l of each: (N, 1, *sides).

        `supports` asks out of place, as the layers were found: what works in place unseen gives other logits then.
        """
        layers: list[_Layer] = []

        def choose(structure: Structure) -> list[FeatureMap]:
            layers[:] = _layers(structure)
            return [layer.feature for layer in layers]

        logits, averages = self._observer.run(model, images, choose, _average, in_place=in_place)
        return logits, layers, averages


def _average(feature: FeatureMap, values: torch.Tensor) -> torch.Tensor:
    """Mean over channels of max(f, 0): (N, C, *sides) -> (N, 1, *sides)."""
    channels = values.shape[1]
    rows = (values if feature.kind == "relu" else values.relu()).movedim(1, -1).reshape(-1, channels)
    # A product with a vector: reducing axis 1 of channels-last memory takes several times as long.
    return torch.mv(rows, rows.new_full((channels,), 1 / channels)).view(len(values), 1, *values.shape[2:])


@dataclass(frozen=True)
class _Layer:
    """A feature map, and the convolutions between the one before it and this one."""

    feature: FeatureMap
    convolutions: tuple[FeatureMap, ...]

    @property
    def active(self) -> bool:
        return self.feature.kind in ACTIVATIONS

    @property
    def plain(self) -> bool:
        """Whether it is one convolution and nothing beside it."""
        return len(self.convolutions) == 1 and self.convolutions[0].essential

    def taken_down(self, mask: torch.Tensor, sides: tuple[int, ...]) -> torch.Tensor:
        """(N, 1, *sides of this layer) -> (N, 1, *sides)."""
        first, *more = self.convolutions
        if more or first.window is None:
            ones = (1,) * len(sides)
            return _transposed(Window((3,) * len(sides), ones, ones, ones, sides), _nearest(mask, sides))
        return _nearest(_transposed(first.window, _nearest(mask, first.sides)), sides)


def _layers(structure: Structure) -> list[_Layer]:
    """In order."""
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
        raise FeatureMapError("it has no convolution whose feature map all goes through")
    return layers if all(layer.plain for layer in layers) else _last_of_each_size(layers)


def _last_of_each_size(layers: list[_Layer]) -> list[_Layer]:
    stages: list[_Layer] = []
    for layer in layers:
        if not stages or stages[-1].feature.sides != layer.feature.sides:
            stages.append(layer)
            continue
        last = layer.feature if layer.active or not stages[-1].active else stages[-1].feature
        stages[-1] = _Layer(last, stages[-1].convolutions + layer.convolutions)
    return stages


def _transposed(window: Window, mask: torch.Tensor) -> torch.Tensor:
    """The mask through the convolution's transpose with weights 1, at the size of the convolution's input.

    Ones are the same as ones along each axis in turn, and an axis is a product with the matrix of which step looked at
    which position: at stride 1 ten times as fast as a transposed convolution of one channel, and sizes come out right.
    """
    for axis in range(len(window.sides)):
        looked_at = _looked_at(window, axis, mask.shape[2 + axis], mask.device).to(mask.dtype)
        mask = torch.tensordot(mask, looked_at, dims=([2 + axis], [1])).movedim(-1, 2 + axis)
    return mask


@functools.lru_cache(maxsize=256)  # a network's handful of windows, for every batch
def _looked_at(window: Window, axis: int, steps: int, device: torch.device) -> torch.Tensor:
    """Which positions of an axis each step of the window looks at: float32 (positions, steps)."""
    kernel, stride, padding, dilation = (
        geometry[axis] for geometry in (window.kernel, window.stride, window.padding, window.dilation)
    )
    starts = torch.arange(steps, device=device) * stride - padding
    offset = torch.arange(window.sides[axis], device=device)[:, None] - starts
    return ((offset >= 0) & (offset <= dilation * (kernel - 1)) & (offset % dilation == 0)).float()


def _nearest(mask: torch.Tensor, sides: tuple[int, ...]) -> torch.Tensor:
    return mask if mask.shape[2:] == sides else F.interpolate(mask, tuple(sides), mode="nearest")


def _relative(mask: torch.Tensor) -> torch.Tensor:
    """Each image's divided by its largest value, if that isn't 0."""
    largest = mask.flatten(1).amax(1).view(-1, *[1] * (mask.ndim - 1))
    return mask / largest.where(largest > 0, torch.ones_like(largest))


def _stretched(mask: torch.Tensor) -> torch.Tensor:
    """Each image's to [0, 1]; 0 where it is the same everywhere."""
    shape = (-1, *[1] * (mask.ndim - 1))
    least, largest = mask.flatten(1).amin(1).view(shape), mask.flatten(1).amax(1).view(shape)
    return torch.where(largest > least, (mask - least) / (largest - least), torch.zeros_like(mask))
