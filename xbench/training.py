"""The one supervised training loop: device, precision, validation, early stopping, checkpoints, resume, progress."""

from __future__ import annotations

import copy
import csv
import io
import math
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import nn
from torch.nn import functional as F

from xbench.contracts.dataset import Split
from xbench.contracts.model import Schedule, class_scores
from xbench.errors import UserError
from xbench.samples import Batch
from xbench.seeding import generator, isolated
from xbench.session import Bar, Session

CHECKPOINT = "checkpoint.pt"
HISTORY = "history.csv"
_FABRIC_PRECISION: dict[str, Any] = {"32": "32-true", "bf16": "bf16-mixed", "16": "16-mixed"}


class Objective(ABC):
    """What `train_network` minimises.

    Attributes:
        network: The module whose parameters are trained, checkpointed and left at their best.
    """

    network: nn.Module

    @abstractmethod
    def loss(self, batch: Batch, noise: torch.Generator) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """The loss of a training batch (on the device), and its terms by name, detached, for the history.

        `noise` is a CPU generator, the same again when a killed training resumes.
        """

    @abstractmethod
    def validate(self, split: Split, session: Session) -> dict[str, float]:
        """Figures on the validation split; "criterion" decides which weights are kept: lower is better."""


class ClassifierObjective(Objective):
    """Class-weighted cross entropy (Katzmann et al., section 3.2: w_c = N / (K N_c)); one logit or K."""

    def __init__(self, module: nn.Module, train: Split) -> None:
        self.network = module
        classes = int(train.labels.max()) + 1
        counts = np.maximum(train.class_counts(classes), 1)
        self._weights = torch.tensor(len(train) / (classes * counts), dtype=torch.float32)

    def loss(self, batch: Batch, noise: torch.Generator) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Weighted cross entropy of the two-class view of the logits."""
        del noise
        loss = self._cross_entropy(self.network(batch.images), batch.labels)
        return loss, {"cross_entropy": loss.detach()}

    def validate(self, split: Split, session: Session) -> dict[str, float]:
        """Weighted cross entropy and accuracy."""
        logits, labels = predict(self.network, split, session)
        loss = float(self._cross_entropy(logits, labels))
        accuracy = float((class_scores(logits).argmax(1) == labels).float().mean())
        return {"criterion": loss, "accuracy": accuracy}

    def _cross_entropy(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        scores = class_scores(logits.float()) / (2 if logits.shape[1] == 1 else 1)
        return F.cross_entropy(scores, labels, weight=self._weights.to(scores.device))


def train_classifier(
    module: nn.Module, train: Split, validation: Split, schedule: Schedule, session: Session
) -> list[dict[str, float]]:
    """`train_network` of a classifier: what the harness does for a model without a `fit` of its own."""
    return train_network(ClassifierObjective(module, train), train, validation, schedule, session)


def predict(module: nn.Module, split: Split, session: Session) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits (N, K) and labels (N,) of a split, on the CPU, in eval mode without gradients."""
    was_training = module.training
    module.eval()
    logits = []
    with torch.inference_mode(), session.autocast():
        for batch in split.batches(session.batch_size):
            logits.append(module(batch.images.to(session.device)).float().cpu())
    module.train(was_training)
    return torch.cat(logits), torch.from_numpy(split.labels)


@torch.enable_grad()  # an artifact may be asked for inside no_grad, and is trained there and then
def train_network(
    objective: Objective, train: Split, validation: Split, schedule: Schedule, session: Session
) -> list[dict[str, float]]:
    """Train `objective.network` in place and leave it, on the CPU in eval mode, with the weights of its best epoch.

    A checkpoint is written to `session.folder` after every epoch; a killed training that is called again in the same
    folder continues after its last whole epoch and ends with the same bits, because every draw is seeded by its epoch.

    Args:
        objective: Loss and validation.
        train: Training split.
        validation: Decides when to stop and which weights to keep.
        schedule: Epochs, patience, batch size, learning rate.
        session: Folder, device, precision, seed, progress.

    Returns:
        One row an epoch: mean training terms (train_*), validation figures (validation_*). Also in `history.csv`.

    Raises:
        UserError: The validation criterion is NaN or infinite.
    """
    fabric = Fabric(
        accelerator=torch.device(session.device).type, devices=1, precision=_FABRIC_PRECISION[session.precision]
    )
    network = objective.network.to(session.device).train()
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    optimizer = torch.optim.Adam(trained, lr=schedule.learning_rate)
    wrapped = fabric.setup_optimizers(optimizer)
    state = _State.resume(network, optimizer, session)
    with session.progress.task("training", schedule.epochs) as bar:
        bar.advance(state.epoch)
        while not state.finished(schedule):
            _set_rate(optimizer, schedule, state.epoch)
            row = _train_epoch(fabric, objective, wrapped, train, schedule, session, state.epoch, bar)
            row |= {f"validation_{key}": value for key, value in objective.validate(validation, session).items()}
            state.end_epoch(network, optimizer, row, session)
            bar.note(_summary(row))
    network.load_state_dict(state.best)
    network.to("cpu").eval()
    _write_history(session.folder / HISTORY, state.history)
    session.facts |= {
        "epochs": state.epoch,
        "best_epoch": state.best_epoch,
        "best": state.history[state.best_epoch - 1] if state.history else {},
    }
    (session.folder / CHECKPOINT).unlink(missing_ok=True)
    return state.history


def _train_epoch(
    fabric: Fabric,
    objective: Objective,
    optimizer: Any,
    train: Split,
    schedule: Schedule,
    session: Session,
    epoch: int,
    bar: Bar,
) -> dict[str, float]:
    objective.network.train()
    order = torch.randperm(len(train), generator=generator(session.seed, "order", epoch)).numpy()
    size = min(schedule.train_batch, len(train))
    starts = range(0, len(train) - size + 1, size)  # a short last batch would shake the batch norms
    noise = generator(session.seed, "noise", epoch)
    terms: dict[str, list[torch.Tensor]] = {}
    with isolated(session.seed, "epoch", epoch):
        for start in starts:
            batch = train.batch(order[start : start + size]).to(session.device)
            if schedule.augment == "dihedral":
                batch = dihedral(batch, noise)
            optimizer.zero_grad(set_to_none=True)
            with fabric.autocast():
                loss, parts = objective.loss(batch, noise)
            fabric.backward(loss)
            optimizer.step()
            for key, value in {"loss": loss.detach(), **parts}.items():
                terms.setdefault(key, []).append(value)
            bar.advance(1 / len(starts))
    return {"epoch": epoch + 1} | {f"train_{key}": float(torch.stack(values).mean()) for key, values in terms.items()}


class _State:
    """What a killed training needs to go on: epoch, history, best weights; network and optimizer beside them."""

    def __init__(self, network: nn.Module) -> None:
        self.epoch = 0
        self.best_epoch = 0
        self.best_criterion = math.inf
        self.history: list[dict[str, float]] = []
        self.best = _copy_state(network)

    @classmethod
    def resume(cls, network: nn.Module, optimizer: torch.optim.Optimizer, session: Session) -> _State:
        state = cls(network)
        path = session.folder / CHECKPOINT
        if path.exists():
            saved = torch.load(path, map_location=session.device, weights_only=True)
            network.load_state_dict(saved["network"])
            optimizer.load_state_dict(saved["optimizer"])
            for name in ("epoch", "best_epoch", "best_criterion", "history", "best"):
                setattr(state, name, saved[name])
        return state

    def end_epoch(
        self, network: nn.Module, optimizer: torch.optim.Optimizer, row: dict[str, float], session: Session
    ) -> None:
        self.epoch += 1
        self.history.append(row)
        if not math.isfinite(row["validation_criterion"]):
            raise UserError(
                f"training diverged in epoch {self.epoch}: the validation criterion is {row['validation_criterion']}",
                "try a smaller learning_rate",
            )
        if row["validation_criterion"] < self.best_criterion:
            self.best_epoch, self.best_criterion, self.best = (
                self.epoch,
                row["validation_criterion"],
                _copy_state(network),
            )
        saved = {name: getattr(self, name) for name in ("epoch", "best_epoch", "best_criterion", "history", "best")}
        saved |= {"network": network.state_dict(), "optimizer": optimizer.state_dict()}
        content = io.BytesIO()
        torch.save(saved, content)
        partial = session.folder / (CHECKPOINT + ".partial")
        partial.write_bytes(content.getbuffer())  # torch's own writer hides a full disk behind a RuntimeError
        partial.replace(session.folder / CHECKPOINT)

    def finished(self, schedule: Schedule) -> bool:
        if not self.history:
            return schedule.epochs == 0
        return self.epoch >= schedule.epochs or self.epoch - max(self.best_epoch, 1) >= schedule.patience


def _copy_state(network: nn.Module) -> dict[str, torch.Tensor]:
    return copy.deepcopy({key: value.detach() for key, value in network.state_dict().items()})


def _set_rate(optimizer: torch.optim.Optimizer, schedule: Schedule, epoch: int) -> None:
    factor = 1.0
    if schedule.decay == "cosine":
        factor = 0.5 * (1 + math.cos(math.pi * epoch / schedule.epochs))
    for group in optimizer.param_groups:
        group["lr"] = schedule.learning_rate * factor


def dihedral(batch: Batch, noise: torch.Generator) -> Batch:
    """The batch with every sample (image and mask) turned and mirrored at random.

    Raises:
        UserError: The last two axes differ in size.
    """
    import dataclasses

    if batch.images.shape[-1] != batch.images.shape[-2]:
        raise UserError(
            f"augment=dihedral needs square images, these are {tuple(batch.images.shape[2:])}", "augment=none"
        )
    choice = torch.randint(0, 8, (len(batch),), generator=noise)
    images, masks = batch.images.clone(), batch.masks.clone()
    for index in range(1, 8):
        where = (choice == index).nonzero().flatten().to(images.device)
        images[where], masks[where] = _turn(batch.images[where], index), _turn(batch.masks[where], index)
    return dataclasses.replace(batch, images=images, masks=masks)


def _turn(values: torch.Tensor, index: int) -> torch.Tensor:
    turned = torch.rot90(values, index % 4, (-2, -1))
    return turned.flip(-1) if index >= 4 else turned


def _summary(row: dict[str, float]) -> str:
    shown = {"loss": "train_loss", "validation": "validation_criterion", "accuracy": "validation_accuracy"}
    return "  ".join(f"{label} {row[key]:.3f}" for label, key in shown.items() if key in row)


def _write_history(path: Path, history: list[dict[str, float]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(history[0]) if history else ["epoch"])
        writer.writeheader()
        writer.writerows(history)
