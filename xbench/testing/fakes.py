"""A tiny dataset and tiny models, which are real plugins, for tests of plugins and of xbench itself.

This module is itself a plugin (`fake` and `tiny`), so a test can register it:

    manager.register(xbench.testing.fakes, name="fakes")
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from xbench.contracts.arrays import ArrayDataset, ArraySample
from xbench.contracts.dataset import SPLITS, DatasetInfo, Split
from xbench.contracts.hookspecs import hookimpl
from xbench.contracts.metric import Case
from xbench.contracts.model import Model, ModelOptions, class_scores
from xbench.contracts.options import Field, Options
from xbench.contracts.session import Session
from xbench.contracts.specs import DatasetSpec, ModelSpec
from xbench.runtime.seeding import rng

if TYPE_CHECKING:
    import torch
    from torch import nn

    from xbench.contracts.samples import Batch

_PER_PATIENT = 2
_COSTS = ("seconds_maps", "seconds_fit", "forward_passes", "backward_passes", "peak_bytes", "fit_peak_bytes")


class FakeOptions(Options):
    """Options of `fake`."""

    size: int = Field(32, ge=8, description="height, in pixels")
    width: int | None = Field(None, ge=8, description="width, in pixels; none: the same as the height")
    channels: int = Field(1, ge=1, description="channels, each with its own noise")
    classes: int = Field(2, ge=2, le=3, description="number of classes: disk, ring and, with three, cross")
    train: int = Field(24, ge=2, description="images to train on, two per patient")
    validation: int = Field(12, ge=2, description="images to validate on")
    test: int = Field(12, ge=2, description="images to score")
    masks: bool = Field(True, description="whether the shape is outlined")
    removal: bool = Field(False, description="whether the dataset declares removal values for its classes")
    seed: int = Field(0, description="seed of the drawing")


class FakeDataset(ArrayDataset):
    """Images of noise, a bright bar without meaning, and a blob whose shape is the class. The mask is the blob."""

    options: FakeOptions

    def __init__(self, options: FakeOptions | None = None) -> None:
        super().__init__(options or FakeOptions())

    @property
    def info(self) -> DatasetInfo:
        """Facts that follow from the options."""
        options = self.options
        return DatasetInfo(
            name="fake",
            classes=("disk", "ring", "cross")[: options.classes],
            channels=options.channels,
            spatial=(options.size, options.width or options.size),
            spacing=(1.0, 1.0),
            has_masks=options.masks,
            removal=(0.0, 1.0, 0.5)[: options.classes] if options.removal else None,
            synthetic=True,
            licence="CC0-1.0",
            citation="drawn by xbench.testing",
        )

    def samples(self, session: Session) -> Iterator[ArraySample]:  # noqa: ARG002
        """Yield the samples of all splits. All images of a patient have one class."""
        for split in SPLITS:
            for index in range(getattr(self.options, split)):
                image, mask = self._draw(split, index)
                patient = index // _PER_PATIENT
                yield ArraySample(
                    split=split,
                    id=f"{split}-{index}",
                    group=f"{split}-patient-{patient}",
                    label=patient % self.options.classes,
                    image=image,
                    mask=mask if self.options.masks else None,
                )

    def _draw(self, split: str, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Return an image, float32 (C, H, W) in [0, 1], and its mask, bool (H, W)."""
        draw = rng(self.options.seed, "fake", split, index)
        height, width = self.info.spatial
        image = draw.uniform(0.1, 0.35, (self.options.channels, height, width))
        across, along = np.ogrid[:height, :width]
        bar = (across - draw.integers(height)) ** 2 <= 1
        image[:, bar & (abs(along - draw.integers(width)) <= width // 4)] = 0.9
        radius = draw.uniform(0.16, 0.24) * min(height, width)
        rows = across - draw.uniform(radius, height - 1 - radius)
        columns = along - draw.uniform(radius, width - 1 - radius)
        mask = _blob(rows, columns, radius, index // _PER_PATIENT % self.options.classes)
        image[:, mask] = draw.uniform(0.6, 0.8)
        return image.astype(np.float32), mask


def _blob(rows: np.ndarray, columns: np.ndarray, radius: float, label: int) -> np.ndarray:
    """Return the mask of the blob, bool (H, W), from the offsets to its centre."""
    distance = np.hypot(rows, columns)
    blob: np.ndarray = distance <= radius
    if label == 1:
        blob &= distance >= 0.6 * radius
    elif label == 2:
        blob &= np.minimum(abs(rows), abs(columns)) <= 0.25 * radius
    return blob


class TinyOptions(ModelOptions):
    """Options of `tiny`."""

    epochs: int = Field(30, ge=0, description="maximum number of passes over the training split")
    learning_rate: float = Field(1e-2, gt=0, description="learning rate of Adam")
    train_batch: int = Field(8, ge=2, description="training batch size")
    network: Literal["conv", "linear"] = Field("conv", description="conv: three convolutions; linear: none")
    relu: Literal["module", "functional", "inplace", "reused"] = Field("module", description="how the code calls ReLU")
    batch_norm: bool = Field(False, description="whether batch norms follow the convolutions")
    one_logit: bool = Field(False, description="whether two classes have one output neuron")
    width: int = Field(8, ge=1, description="channels of the first convolution")


class TinyModel(Model):
    """A network of a few thousand weights, or a linear one."""

    options: TinyOptions

    def __init__(self, options: TinyOptions | None = None, argument: str = "") -> None:
        super().__init__(options or TinyOptions(), argument)

    def build(self, info: DatasetInfo) -> nn.Module:
        """Return the network that the options describe."""
        from xbench.testing.networks import ConvNetwork, LinearNetwork

        outputs = 1 if self.options.one_logit else len(info.classes)
        if self.options.network == "linear":
            return LinearNetwork(info.channels, info.spatial, outputs)
        return ConvNetwork(info.channels, outputs, self.options.width, self.options.relu, self.options.batch_norm)


class FakeExplanation:
    """An `xbench.Explanation` of the gradient. Its counterfactuals are brighter or darker images.

    Args:
        module: Module to explain.
    """

    def __init__(self, module: nn.Module) -> None:
        self.model = module

    def maps(self, batch: Batch, targets: torch.Tensor, model: nn.Module | None = None) -> torch.Tensor:
        """Return the gradient, summed over channels."""
        from xbench.compute.passes import gradients
        from xbench.contracts.explainer import undisturbed

        explained = self.model if model is None else model
        with undisturbed(explained):
            return gradients(explained, batch.images, targets).sum(1)

    def transfer(self, images: torch.Tensor, toward: torch.Tensor) -> torch.Tensor:
        """Return images that are darker toward class 0 and brighter toward all others."""
        step = 0.2 * (2 * (toward > 0).float() - 1)
        return (images + step.view(-1, *[1] * (images.ndim - 1))).clamp(0, 1)

    def masked_logits(self, images: torch.Tensor, maps: torch.Tensor) -> torch.Tensor:
        """Return the logits of the images times the maps."""
        import torch

        with torch.no_grad():
            logits: torch.Tensor = self.model(images * maps[:, None])
        return logits


def fake_case(
    info: DatasetInfo, split: Split, module: nn.Module, maps: np.ndarray, session: Session, **replaced: Any
) -> Case:
    """Return a case like the one that the harness hands to a metric.

    Args:
        info: The dataset.
        split: The N samples to score.
        module: The model. It is put in eval mode.
        maps: Maps of the samples, float32 (N, *spatial).
        session: Session whose `batch_size` the metric uses.
        replaced: Fields of the case to set instead of the defaults (targets: as predicted; train_mean: of `split`
            itself; prepared: empty; explanation: `FakeExplanation`; cost: zeros; training: none).
    """
    import torch

    module = module.to(session.device).eval()

    def logits_of(images: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode():
            logits: torch.Tensor = module(images)
        return logits

    batches = list(split.batches(session.batch_size))
    logits = torch.cat([logits_of(batch.images.to(session.device)) for batch in batches]).float().cpu()
    means = torch.stack([batch.images.flatten(2).mean(2).sum(0) for batch in batches]).sum(0) / len(split)
    fields: dict[str, Any] = {
        "train_mean": means.numpy(),
        "logits_of": logits_of,
        "logits": logits.numpy(),
        "targets": class_scores(logits).argmax(1).numpy(),
        "maps": maps,
        "model": module,
        "explanation": FakeExplanation(module),
        "cost": dict.fromkeys(_COSTS, 0.0),
    }
    return Case(info=info, split=split, session=session, **(fields | replaced))


@hookimpl
def xbench_datasets() -> Iterable[DatasetSpec]:
    """Yield `fake`."""
    yield DatasetSpec(
        "fake",
        "disks, rings and crosses in noise",
        factory="xbench.testing.fakes:FakeDataset",
        options="xbench.testing.fakes:FakeOptions",
    )


@hookimpl
def xbench_models() -> Iterable[ModelSpec]:
    """Yield `tiny`."""
    yield ModelSpec(
        "tiny",
        "a network of a few thousand weights",
        factory="xbench.testing.fakes:TinyModel",
        options="xbench.testing.fakes:TinyOptions",
    )
