"""What a metric is: per-sample observations, and a summary of any subset of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from xbench.errors import PluginError, XbenchError
from xbench.mapped import MappedArray
from xbench.options import Options

if TYPE_CHECKING:
    import torch

    from xbench.contracts.dataset import DatasetInfo, Split
    from xbench.session import Session

Observations = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Case:
    """What a metric scores: one explainer's maps of one split, against one model.

    Attributes:
        info: The dataset.
        split: The N samples scored.
        train_mean: float32 (C,), mean intensity of the training split.
        score: images (n, C, *spatial) on the session's device -> logits (n, K), without gradients, on the fastest copy
            of the model that gives the same logits. Any n; the session's `batch_size` is the fast one.
        logits: float32 (N, K), of the untouched images.
        targets: int64 (N,), the class each map explains.
        maps: float32 (N, *spatial), on disk: a slice of it is an array, the whole may not fit. Empty in `prepare`.
        prepared: What `prepare` gave.
        session: Device, precision, batch size, seed, progress.
    """

    info: DatasetInfo
    split: Split
    train_mean: np.ndarray
    score: Callable[[torch.Tensor], torch.Tensor]
    logits: np.ndarray
    targets: np.ndarray
    session: Session
    maps: np.ndarray | MappedArray = field(default_factory=lambda: np.empty((0,), dtype=np.float32))
    prepared: Mapping[str, np.ndarray] = field(default_factory=dict)


@dataclass(frozen=True)
class Curves:
    """Curves of one observation table, for figures.

    Attributes:
        x: (P,) positions.
        y: Name of each curve to its (P,) heights.
        x_label: With the unit.
        y_label: With the unit.
    """

    x: np.ndarray
    y: Mapping[str, np.ndarray]
    x_label: str
    y_label: str


class Metric(ABC):
    """A metric plugin. Authors give `observe` and `summarise`; intervals and tests come from the harness.

    Attributes:
        higher_is_better: Direction.
        needs: Of {"masks", "transfer"}: what a cell must have to be scored.
        unit: Shown beside the value, or empty.
    """

    higher_is_better: bool = True
    needs: frozenset[str] = frozenset()
    unit: str = ""

    def __init__(self, options: Options, argument: str = "") -> None:
        self.options = options
        self.argument = argument

    def supports(self, info: DatasetInfo) -> str | None:  # noqa: ARG002
        """None, or the reason why this metric can't score on a dataset. Asked before anything runs."""
        return None

    def prepare(self, case: Case) -> dict[str, np.ndarray]:  # noqa: ARG002
        """What does not depend on the maps, computed once per dataset and model for all explainers and signs."""
        return {}

    @abstractmethod
    def observe(self, case: Case) -> dict[str, np.ndarray]:
        """Per-sample observations: arrays whose first axis is the N samples of the case, in order."""

    @abstractmethod
    def summarise(self, observations: Observations) -> float:
        """The metric's value for these samples; NaN where it is undefined.

        Called on thousands of resamples: be quick.
        """

    def curves(self, observations: Observations) -> Curves | None:  # noqa: ARG002
        """Curves worth a picture, or None."""
        return None

    def card(self, info: DatasetInfo) -> dict[str, Any]:  # noqa: ARG002
        """What the number means on a dataset, beyond the options: score space, ties, aggregation. Hashed into rows."""
        return {}

    def observations(self, case: Case, name: str) -> dict[str, np.ndarray]:
        """`observe`, checked.

        Raises:
            PluginError: The metric raised, or an array does not have one entry per sample.
        """
        try:
            seen = self.observe(case)
        except XbenchError:
            raise
        except Exception as error:
            raise PluginError(f"{name} raised {type(error).__name__}: {error}") from error
        for key, values in seen.items():
            if len(values) != len(case.split):
                raise PluginError(f"{name}: observation {key!r} has {len(values)} rows for {len(case.split)} samples")
        return {key: np.asarray(values) for key, values in seen.items()}
