"""A stranger's plugin, installed by the tests of whole runs: some of it at fault, some of it curious."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xbench import (
    Batch,
    Case,
    DatasetSpec,
    Explainer,
    ExplainerSpec,
    ImageFeature,
    Metric,
    MetricSpec,
    ModelSpec,
    Observations,
    Options,
    Session,
    Split,
    hookimpl,
)
from xbench.testing import fakes
from xbench.testing.fakes import FakeDataset, FakeOptions

if TYPE_CHECKING:
    import numpy as np
    import torch
    from torch import nn

    from xbench import DatasetInfo


@hookimpl
def xbench_datasets() -> Iterator[DatasetSpec]:
    yield from fakes.xbench_datasets()
    yield DatasetSpec("hollow", "lacks something", factory="stranger:Hollow", options="stranger:HollowOptions")


@hookimpl
def xbench_models() -> Iterator[ModelSpec]:
    yield from fakes.xbench_models()


@hookimpl
def xbench_explainers() -> Iterator[ExplainerSpec]:
    for name, factory in (("raising", "Raising"), ("nan", "Nan"), ("flat", "Flat"), ("unmakeable", "Unmakeable")):
        yield ExplainerSpec(name, "at fault", factory=f"stranger:{factory}")
    yield ExplainerSpec("refusing", "never fits", factory="stranger:Refusing")
    yield ExplainerSpec("late", "fits no trained model", factory="stranger:Late")
    yield ExplainerSpec("collapsed", "its training failed, and it says so", factory="stranger:Collapsed")
    yield ExplainerSpec("twofold", "the gradient twice as large", factory="stranger:Twofold")
    yield ExplainerSpec(
        "open", "by a preset", factory="stranger:Open", options="xbench.contracts.options:PresetOptions"
    )
    yield ExplainerSpec("median", "above the image's median", factory="stranger:AboveMedian")


class Hollow(FakeDataset):
    # Its test split is empty, or lacks a class.
    def __init__(self, options: Any) -> None:
        super().__init__(FakeOptions())
        self.kind = options.kind

    def load(self, split: str, folder: Path) -> Split:
        whole = super().load(split, folder)
        if split != "test":
            return whole
        return whole.select([] if self.kind == "empty" else (whole.labels == 0).nonzero()[0])


class HollowOptions(Options):
    kind: str = "empty"


class NeedsMasks(Metric):
    needs = frozenset({"masks"})

    def observe(self, case: Case) -> dict[str, np.ndarray]:
        return {"inside": case.split.batch(range(len(case.split))).masks.flatten(1).float().mean(1).numpy()}

    def summarise(self, observations: Observations) -> float:
        return float(observations["inside"].mean())


@hookimpl
def xbench_metrics() -> Iterator[MetricSpec]:
    yield MetricSpec("needsmasks", "of masks", factory="stranger:NeedsMasks")
    yield MetricSpec("curious", "asks for everything", factory="stranger:Curious")
    yield MetricSpec("through", "asks for an explainer that there is not", factory="stranger:Through")


class Raising(Explainer):
    def attribute(self, model: nn.Module, images: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        raise ValueError("inside attribute")


class Nan(Explainer):
    def attribute(self, model: nn.Module, images: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return images[:, 0] * float("nan")


class Flat(Explainer):
    def attribute(self, model: nn.Module, images: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return images


class Unmakeable(Explainer):
    def __init__(self, options: Any) -> None:
        raise RuntimeError("in the constructor")


class Collapsed(Explainer):
    # Trained, makes counterfactual images (brighter or darker), and warns of itself.
    def fit(self, model: nn.Module, train: Split, validation: Split, info: DatasetInfo, session: Session) -> None:
        session.facts["warning"] = "both generators give the same image"

    def restore(self, folder: Path, model: nn.Module, info: DatasetInfo, device: str) -> None:
        pass

    def attribute(self, model: nn.Module, images: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return images.mean(1)

    def transfer(self, model: nn.Module, images: torch.Tensor, toward: torch.Tensor) -> torch.Tensor:
        return (images + 0.2 * (2.0 * toward.reshape(-1, 1, 1, 1) - 1)).clip(0, 1)


class Late(Explainer):
    def supports(self, model: nn.Module, info: DatasetInfo) -> str | None:
        moved = any(
            buffer.dtype.is_floating_point and buffer.ne(0).any()
            for name, buffer in model.named_buffers()
            if "running_mean" in name
        )
        return "its batch norms have moved" if moved else None

    def attribute(self, model: nn.Module, images: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return images[:, 0]


class Twofold(Explainer):
    def attribute(self, model: nn.Module, images: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        from xbench.compute.passes import gradients

        return 2 * gradients(model, images, targets).sum(1)


class Open(Explainer):
    # The gradient, more or less of it squared. What the device decides was decided before it is made.
    def attribute(self, model: nn.Module, images: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        from xbench.compute.passes import gradients

        found = gradients(model, images, targets).sum(1)
        return {"tiny": found, "paper": found**2}[self.options.preset]


class Median(ImageFeature):
    def __init__(self) -> None:
        super().__init__("median", {}, "float32")

    def shape(self, spatial: tuple[int, ...]) -> tuple[int, ...]:
        return (1,)

    def compute(self, image: np.ndarray) -> np.ndarray:
        import numpy as np

        return np.median(image, keepdims=True)[0, 0]


class AboveMedian(Explainer):
    feature = Median()

    def attribute_batch(self, model: nn.Module, batch: Batch, targets: torch.Tensor) -> torch.Tensor:
        return batch.images.sum(1) - batch.feature[:, :, None]


class Curious(Metric):
    needs = frozenset({"train", "explain"})
    feature = Median()
    expensive = True

    def observe(self, case: Case) -> dict[str, np.ndarray]:
        import copy

        import numpy as np
        import torch

        count, train = len(case.split), case.train
        batch, targets = case.split.batch(range(count)), torch.from_numpy(case.targets)
        again = case.explanation.maps(batch, targets).numpy()
        other = copy.deepcopy(case.explanation.model)
        for parameter in other.parameters():
            parameter.data = torch.rand_like(parameter) - 0.5
        changed = case.explanation.maps(batch, targets, other).numpy()
        of_train = case.explanation.maps(train.split.batch(range(4)), torch.from_numpy(train.targets[:4])).numpy()
        return {
            "again": abs(again - case.maps[:count]).reshape(count, -1).max(1),
            "changed": abs(changed - case.maps[:count]).reshape(count, -1).max(1),
            "train": np.full(count, abs(of_train - train.maps[:4]).max()),
            "train_size": np.full(count, len(train.split) - len(train.maps)),
            "feature": case.feature[:count, 0] - np.median(batch.images.numpy().reshape(count, -1), 1),
            "forward": np.full(count, case.cost["forward_passes"]),
            "backward": np.full(count, case.cost["backward_passes"]),
            "memory": np.full(count, case.cost["peak_bytes"]),
            "negative": (case.maps[:count] < 0).any((1, 2)),
        }

    def summarise(self, observations: Observations) -> float:
        return float(observations["again"].max())


class Through(Metric):
    needs = frozenset({"masked"})

    def observe(self, case: Case) -> dict[str, np.ndarray]:
        return {}

    def summarise(self, observations: Observations) -> float:
        return 0.0


class Refusing(Explainer):
    def supports(self, model: nn.Module, info: DatasetInfo) -> str | None:
        return "it has no such layer"

    def attribute(self, model: nn.Module, images: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return images[:, 0]
