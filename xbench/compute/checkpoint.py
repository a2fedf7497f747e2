"""Checkpoints that let a killed training continue: a file that is replaced as a whole after every epoch."""

from __future__ import annotations

import copy
import io
import math
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from xbench.errors import UserError
from xbench.runtime.files import whole_file

CHECKPOINT = "checkpoint.pt"
_KEPT = ("epoch", "best_epoch", "best_criterion", "history", "best")


class TrainingState:
    """The progress of a training and its best weights. The file also holds the network and the optimisers.

    Args:
        network: Network to train. It is set to the checkpoint if there is one.
        optimizers: Its optimisers. They are set to the checkpoint, too.
        folder: Folder of the checkpoint.

    Attributes:
        epoch: Number of finished epochs.
        best_epoch: The epoch of the lowest criterion, from 1; 0 before any.
        history: One row per epoch.
        best: Weights of the best epoch.
    """

    def __init__(self, network: nn.Module, optimizers: Sequence[torch.optim.Optimizer], folder: Path) -> None:
        self._network, self._optimizers, self._path = network, optimizers, folder / CHECKPOINT
        self.epoch = 0
        self.best_epoch = 0
        self.best_criterion = math.inf
        self.history: list[dict[str, float]] = []
        self.best = _copy_state(network)
        if self._path.exists():
            self._resume(torch.load(self._path, map_location="cpu", weights_only=True))

    def end_epoch(self, row: dict[str, float]) -> None:
        """Record an epoch's figures, keep the weights if they are the best, and write the checkpoint.

        Raises:
            UserError: The validation criterion is NaN or infinite.
        """
        self.epoch += 1
        self.history.append(row)
        criterion = row["validation_criterion"]
        if not math.isfinite(criterion):
            raise UserError(
                f"training diverged in epoch {self.epoch}: the validation criterion is {criterion}",
                "try a smaller learning_rate",
            )
        if criterion < self.best_criterion:
            self.best_epoch, self.best_criterion, self.best = self.epoch, criterion, _copy_state(self._network)
        self._write()

    def finished(self, epochs: int, patience: int) -> bool:
        """Return whether the last epoch is done, or `patience` epochs have brought no improvement."""
        if not self.history:
            return epochs == 0
        return self.epoch >= epochs or self.epoch - max(self.best_epoch, 1) >= patience

    def remove(self) -> None:
        """Delete the checkpoint: the training is done."""
        self._path.unlink(missing_ok=True)

    def _resume(self, saved: dict[str, object]) -> None:
        self._network.load_state_dict(saved["network"])  # type: ignore[arg-type]
        for optimizer, state in zip(self._optimizers, saved["optimizers"], strict=True):  # type: ignore[call-overload]
            optimizer.load_state_dict(state)
        for name in _KEPT:
            setattr(self, name, saved[name])

    def _write(self) -> None:
        saved = {name: getattr(self, name) for name in _KEPT}
        saved |= {
            "network": self._network.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self._optimizers],
        }
        content = io.BytesIO()
        torch.save(saved, content)
        with whole_file(self._path) as file:
            file.write(content.getbuffer())  # torch's own writer hides a full disk behind a RuntimeError


def _copy_state(network: nn.Module) -> dict[str, torch.Tensor]:
    return copy.deepcopy({key: value.detach() for key, value in network.state_dict().items()})
