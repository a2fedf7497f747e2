"""The contract of a metric: observations of each sample, and a summary of any subset of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from xbench.contracts.options import Options
from xbench.contracts.roles import CurveRole
from xbench.errors import PluginError
from xbench.runtime.blame import blamed
from xbench.runtime.mapped import MappedArray

if TYPE_CHECKING:
    import torch
    from torch import nn

    from xbench.contracts.dataset import DatasetInfo, Split
    from xbench.contracts.feature import ImageFeature
    from xbench.contracts.samples import Batch
    from xbench.contracts.session import Session

Observations = Mapping[str, np.ndarray]


NEEDS = frozenset({"masks", "transfer", "train", "explain", "masked"})


class Explanation(Protocol):
    """A ready explainer, for metrics that ask it for more than the maps of the split."""

    @property
    def model(self) -> nn.Module:
        """The explained classifier, in eval mode on the session's device. Change only copies of it."""
        ...

    def maps(self, batch: Batch, targets: torch.Tensor, model: nn.Module | None = None) -> torch.Tensor:
        """Return maps of other images, or of another model with this architecture: float32 (n, *spatial).

        Args:
            batch: Images on the session's device. Their `feature` is computed here.
            targets: The class to explain for each image, int64 (n,).
            model: Model to explain instead of the classifier. A trained explainer keeps its state.
        """
        ...

    def transfer(self, images: torch.Tensor, toward: torch.Tensor) -> torch.Tensor:
        """Return the images (n, C, *spatial) changed toward the classes (n,). Requires "transfer" in `needs`."""
        ...

    def masked_logits(self, images: torch.Tensor, maps: torch.Tensor) -> torch.Tensor:
        """Return the logits (n, K) of images that its own classifier reads through `maps`. Requires "masked"."""
        ...


@dataclass(frozen=True)
class TrainMaps:
    """The maps of the training split.

    Attributes:
        split: The M samples.
        maps: Maps of the samples, float32 (M, *spatial), on disk.
        targets: The class that each map explains, int64 (M,).
    """

    split: Split
    maps: np.ndarray | MappedArray
    targets: np.ndarray


@dataclass(frozen=True)
class Case:
    """The input of a metric: one explainer's maps of one split, for one model.

    Attributes:
        info: The dataset.
        split: The N samples to score.
        train_mean: Mean intensity of each channel in the training split, float32 (C,).
        logits_of: Function from images (n, C, *spatial) on the session's device to logits (n, K), without gradients. It
            runs the fastest copy of the model that gives the same logits, and takes any n. The session's `batch_size`
            is the fastest, and `observed` goes through the samples in batches that fit the memory.
        logits: Logits of the unchanged images, float32 (N, K).
        targets: The class that each map explains, int64 (N,). Empty in `prepare` unless `needs` has "targets".
        maps: Maps, float32 (N, *spatial), on disk. A slice is an array in memory; the whole may not fit. Empty in
            `prepare`.
        prepared: The arrays that `prepare` returned.
        session: Device, precision, batch size, seed and progress.
        feature: The metric's `feature` of each image, (N, ...), on disk, or None if the metric wants none.
        train: The maps of the training split, if `needs` has "train".
        explanation: The ready explainer, if `needs` has "explain", "transfer" or "masked".
        cost: Cost of the maps: "seconds_maps", "seconds_fit", "forward_passes" and "backward_passes" (images through
            the explained classifier), "peak_bytes" and "fit_peak_bytes" (NaN where they can't be known).
        model: The explained classifier, in eval mode on the session's device. Change only copies of it.
        training: The training split. A metric may learn from its images and labels. Its maps are in `train`.
    """

    info: DatasetInfo
    split: Split
    train_mean: np.ndarray
    logits_of: Callable[[torch.Tensor], torch.Tensor]
    logits: np.ndarray
    targets: np.ndarray
    session: Session
    maps: np.ndarray | MappedArray = field(default_factory=lambda: np.empty((0,), dtype=np.float32))
    prepared: Mapping[str, np.ndarray] = field(default_factory=dict)
    feature: np.ndarray | MappedArray | None = None
    train: TrainMaps | None = None
    explanation: Explanation | None = None
    cost: Mapping[str, float] = field(default_factory=dict)
    model: nn.Module | None = None
    training: Split | None = None

    def observed(self, work: Callable[[int, int], Mapping[str, np.ndarray]], label: str = "") -> dict[str, np.ndarray]:
        """Collect observations of all samples, batch by batch, in batches that fit the memory.

        Args:
            work: Called with (start, stop); returns arrays whose first axis is the samples from `start` to `stop`. It
                is called again for fewer samples if the memory ran out, and must change nothing before.
            label: Shown beside the progress bar; there is no bar without one.

        Returns:
            The arrays, joined along their first axis; none of a case without samples.
        """
        parts = [found for _, found in self.session.batched(len(self.split), work, label)]
        names = parts[0] if parts else ()
        return {name: np.concatenate([part[name] for part in parts]) for name in names}


@dataclass(frozen=True)
class Curves:
    """Curves of one table of observations, for figures.

    Attributes:
        x: Positions, (P,).
        y: Name of each curve -> its heights, (P,).
        x_label: Label of the x axis, with the unit.
        y_label: Label of the y axis, with the unit.
        roles: Name of a curve -> its role. A curve without an entry has the role "other". All pictures draw the same
            role in the same way, whatever the name of the curve.
    """

    x: np.ndarray
    y: Mapping[str, np.ndarray]
    x_label: str
    y_label: str
    roles: Mapping[str, CurveRole] = field(default_factory=dict)


class Metric(ABC):
    """A metric plugin. Authors write `observe` and `summarise`; intervals and tests come from the harness.

    Attributes:
        higher_is_better: Whether higher values are better.
        needs: Needs of the metric beside the maps: "masks" of the expert; "transfer", an explainer that makes
            counterfactual images; "masked", an explainer whose own classifier reads images through its maps; "train",
            the maps of the training split; "explain", the ready explainer; "targets", the explained classes already in
            `prepare`.
        unit: Unit shown beside the value, or empty.
        expensive: Whether a cell costs a training.
        feature: The image feature that the metric wants in `case.feature`, or None.
    """

    higher_is_better: bool = True
    needs: frozenset[str] = frozenset()
    unit: str = ""
    expensive: bool = False
    feature: ImageFeature | None = None

    def __init__(self, options: Options, argument: str = "") -> None:
        self.options = options
        self.argument = argument

    @property
    def costs_as_much_as_the_maps(self) -> bool:
        """Whether a cell costs a training, or calls the explainer for more images.

        The inverted and blurred copies of each explainer are not added to such a metric automatically, because each
        copy would cost as much as the explainer.
        """
        return self.expensive or "explain" in self.needs

    def supports(self, info: DatasetInfo) -> str | None:  # noqa: ARG002
        """Return None, or the reason why this metric can't score a dataset. Called before anything runs."""
        return None

    def prepare(self, case: Case) -> dict[str, np.ndarray]:  # noqa: ARG002
        """Compute what does not depend on the maps, once per dataset and model for all explainers and signs."""
        return {}

    @abstractmethod
    def observe(self, case: Case) -> dict[str, np.ndarray]:
        """Return the observations: arrays whose first axis is the N samples of the case, in order.

        One of them may be `used`, bool (N,): the samples that count, such as those with a mask. The `n` of the score
        rows is their number.
        """

    @abstractmethod
    def summarise(self, observations: Observations) -> float:
        """Return the metric's value for these samples, or NaN where it is undefined.

        Called for thousands of resamples, so it must be fast.
        """

    def curves(self, observations: Observations) -> Curves | None:  # noqa: ARG002
        """Return curves to plot, or None."""
        return None

    def card(self, info: DatasetInfo) -> dict[str, Any]:  # noqa: ARG002
        """Return what the value means beyond the options (score space, ties, aggregation). Hashed into rows."""
        return {}

    def observations(self, case: Case, name: str) -> dict[str, np.ndarray]:
        """Return the observations, with their lengths checked.

        Raises:
            PluginError: The metric raised, or an array does not have one entry per sample. Errors for lack of memory
                are raised unchanged.
        """
        with blamed(name):
            observed = self.observe(case)
        for key, values in observed.items():
            if len(values) != len(case.split):
                raise PluginError(f"{name}: observation {key!r} has {len(values)} rows for {len(case.split)} samples")
        return {key: np.asarray(values) for key, values in observed.items()}
