"""The training loop of all networks: device, precision, validation, early stopping, checkpoints, resume, progress."""

from __future__ import annotations

import csv
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from xbench.compute.checkpoint import TrainingState
from xbench.contracts.dataset import Split
from xbench.contracts.model import Schedule, class_scores
from xbench.contracts.samples import Batch
from xbench.contracts.session import Bar, Session
from xbench.errors import UserError
from xbench.runtime.batching import out_of_memory
from xbench.runtime.devices import is_out_of_memory, upload
from xbench.runtime.randomness import generator, isolated

if TYPE_CHECKING:
    from lightning_fabric import Fabric

HISTORY = "history.csv"
_FABRIC_PRECISION: dict[str, Any] = {"32": "32-true", "tf32": "32-true", "bf16": "bf16-mixed", "16": "16-mixed"}
_FABRIC_DEVICES = ("cpu", "cuda", "mps")
_LEAST_BATCH = 2  # the smallest batch that schedules allow: batch norms need two images


Loss = Callable[[Batch, torch.Generator], tuple[torch.Tensor, dict[str, torch.Tensor]]]


@dataclass(frozen=True)
class Step:
    """One of the updates for each batch, with its own Adam.

    Attributes:
        module: Module to train.
        loss: Function like `Objective.loss`. Gradients that it leaves outside of `module` are not used.
        name: Name of the loss in the history.
        betas: Betas of Adam.
        max_norm: Norm to which longer gradients of `module` are clipped, or None for no clipping.
    """

    module: nn.Module
    loss: Loss
    name: str = "loss"
    betas: tuple[float, float] = (0.9, 0.999)
    max_norm: float | None = None


class Objective(ABC):
    """An objective for `train_network`. Authors write `loss`, or `steps` for several networks that learn in turn.

    Attributes:
        network: Module whose parameters are trained, checkpointed and set to their best values at the end.
        shown: Figures to display after an epoch: label -> column of the history. Missing columns are skipped.
    """

    network: nn.Module
    shown: Mapping[str, str] = {
        "loss": "train_loss",
        "validation": "validation_criterion",
        "accuracy": "validation_accuracy",
    }

    def loss(self, batch: Batch, noise: torch.Generator) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Return the loss of a training batch (on the device), and its detached terms by name for the history.

        `noise` is a CPU generator. It gives the same numbers again when a killed training resumes.
        """
        raise NotImplementedError

    def steps(self) -> Sequence[Step]:
        """Return the updates for each batch, in order: by default one update of the whole network.

        A step may reuse what an earlier step computed, as long as no parameter that it depends on was updated in
        between.
        """
        return [Step(self.network, self.loss)]

    @abstractmethod
    def validate(self, split: Split, session: Session) -> dict[str, float]:
        """Return figures of the validation split. The weights with the lowest "criterion" are kept."""


class ClassifierObjective(Objective):
    """Class-weighted cross entropy for one logit or K (Katzmann et al., section 3.2: w_c = N / (K N_c))."""

    def __init__(self, module: nn.Module, train: Split) -> None:
        self.network = module
        classes = int(train.labels.max()) + 1
        counts = np.maximum(train.class_counts(classes), 1)
        self._weights = torch.tensor(len(train) / (classes * counts), dtype=torch.float32)

    def loss(self, batch: Batch, noise: torch.Generator) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Return the weighted cross entropy, in which one logit counts as two classes."""
        del noise
        loss = self._cross_entropy(self.network(batch.images), batch.labels)
        return loss, {"cross_entropy": loss.detach()}

    def validate(self, split: Split, session: Session) -> dict[str, float]:
        """Return the weighted cross entropy as the criterion, and the accuracy."""
        logits, labels = predict(self.network, split, session)
        loss = float(self._cross_entropy(logits, labels))
        accuracy = float((class_scores(logits).argmax(1) == labels).float().mean())
        return {"criterion": loss, "accuracy": accuracy}

    def _cross_entropy(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        scores = class_scores(logits.float()) / (2 if logits.shape[1] == 1 else 1)
        if self._weights.device != scores.device:
            self._weights = upload(self._weights, scores.device)
        return F.cross_entropy(scores, labels, weight=self._weights)


def train_classifier(
    module: nn.Module, train: Split, validation: Split, schedule: Schedule, session: Session
) -> list[dict[str, float]]:
    """Train a classifier with `train_network`, for a model without its own `fit`."""
    return train_network(ClassifierObjective(module, train), train, validation, schedule, session)


def predict(module: nn.Module, split: Split, session: Session) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the logits (N, K) and labels (N,) of a split on the CPU, computed in eval mode without gradients."""
    was_training = module.training
    module.eval()

    def logits_of(start: int, stop: int) -> torch.Tensor:
        with torch.inference_mode(), session.autocast():
            logits: torch.Tensor = module(upload(split.batch(np.arange(start, stop)).images, session.device))
            return logits.float().cpu()

    parts = [logits for _, logits in session.batched(len(split), logits_of)]
    module.train(was_training)
    return torch.cat(parts), torch.from_numpy(split.labels)


@torch.enable_grad()  # an artifact may be requested, and so trained, inside no_grad
def train_network(
    objective: Objective, train: Split, validation: Split, schedule: Schedule, session: Session
) -> list[dict[str, float]]:
    """Train `objective.network` in place and leave it, on the CPU in eval mode, with the weights of its best epoch.

    A checkpoint is written to `session.folder` after every epoch. A killed training that is called again in the same
    folder continues after its last whole epoch. It ends with the same bits, because every draw is seeded by its epoch.

    Args:
        objective: Loss and validation.
        train: Training split.
        validation: Validation split, which decides when to stop and which weights to keep.
        schedule: Epochs, patience, batch size, learning rate.
        session: Folder, device, precision, seed, progress.

    Returns:
        One row per epoch: mean training terms (train_*), validation figures (validation_*). Also in `history.csv`.

    Raises:
        UserError: The validation criterion is NaN or infinite, or a training batch does not fit the memory.
    """
    from lightning_fabric import Fabric  # takes more than a second, which a run without training should not wait

    fabric = Fabric(accelerator=_accelerator(session), devices=1, precision=_FABRIC_PRECISION[session.precision])
    network = objective.network.to(session.device).train()
    updates = [_Update(fabric, step, schedule.learning_rate, session) for step in objective.steps()]
    state = TrainingState(network, [update.optimizer for update in updates], session.folder)
    with session.progress.task("training", schedule.epochs) as bar:
        bar.advance(state.epoch)
        while not state.finished(schedule.epochs, schedule.patience):
            for update in updates:
                update.set_rate(schedule, state.epoch)
            network.train()
            row = _train_epoch(updates, train, schedule, session, state.epoch, bar)
            row |= {f"validation_{key}": value for key, value in objective.validate(validation, session).items()}
            state.end_epoch(row)
            bar.note("  ".join(f"{label} {row[key]:.3f}" for label, key in objective.shown.items() if key in row))
    network.load_state_dict(state.best)
    network.to("cpu").eval()
    _write_history(session.folder / HISTORY, state.history)
    session.facts |= {
        "epochs": state.epoch,
        "best_epoch": state.best_epoch,
        "best": state.history[state.best_epoch - 1] if state.history else {},
    }
    state.remove()
    return state.history


def _accelerator(session: Session) -> str:
    """Return Fabric's name of the device. Fabric only scales the loss; networks and batches are placed here.

    Raises:
        UserError: The precision is float16, whose losses must be scaled, on a device that Fabric does not know.
    """
    kind = torch.device(session.device).type
    if kind in _FABRIC_DEVICES:
        return kind
    if session.precision == "16":
        raise UserError(f"no training with precision 16 on {session.device}", "use --precision bf16")
    return "cpu"


class _Update:
    """A step with its optimiser."""

    def __init__(self, fabric: Fabric, step: Step, learning_rate: float, session: Session) -> None:
        trained = [parameter for parameter in step.module.parameters() if parameter.requires_grad]
        self.optimizer = torch.optim.Adam(trained, lr=learning_rate, betas=step.betas)
        self._fabric, self._step, self._session = fabric, step, session
        self._wrapped: Any = fabric.setup_optimizers(self.optimizer)

    def __call__(self, batch: Batch, noise: torch.Generator) -> dict[str, torch.Tensor]:
        """Update the weights once, and return the loss and its terms."""
        self._wrapped.zero_grad(set_to_none=True)
        with self._session.autocast():
            loss, parts = self._step.loss(batch, noise)
        self._fabric.backward(loss)
        if self._step.max_norm is not None:
            module, longest = self._step.module, self._step.max_norm
            self._fabric.clip_gradients(module, self._wrapped, max_norm=longest, error_if_nonfinite=False)
        self._wrapped.step()
        return {self._step.name: loss.detach(), **parts}

    def set_rate(self, schedule: Schedule, epoch: int) -> None:
        factor = 1.0
        if schedule.decay == "cosine":
            factor = 0.5 * (1 + math.cos(math.pi * epoch / schedule.epochs))
        elif schedule.decay == "linear":
            factor = min(1.0, 2 * (1 - epoch / schedule.epochs))
        for group in self.optimizer.param_groups:
            group["lr"] = schedule.learning_rate * factor


def _train_epoch(
    updates: Sequence[_Update], train: Split, schedule: Schedule, session: Session, epoch: int, bar: Bar
) -> dict[str, float]:
    order = torch.randperm(len(train), generator=generator(session.seed, "order", epoch)).numpy()
    size = min(schedule.train_batch, len(train))
    starts = range(0, len(train) - size + 1, size)  # a short last batch would disturb the batch norms
    noise = generator(session.seed, "noise", epoch)
    terms: dict[str, list[torch.Tensor]] = {}
    with isolated(session.seed, "epoch", epoch):
        for start in starts:
            try:
                batch = train.batch(order[start : start + size])
                if schedule.augment == "dihedral":
                    batch = dihedral(batch, noise)  # on the host: no indices are sent to the device
                batch = batch.to(session.device)
                for update in updates:
                    for key, value in update(batch, noise).items():
                        terms.setdefault(key, []).append(value)
            except Exception as error:
                if is_out_of_memory(error):
                    raise _too_many(size, session, error) from error
                raise
            bar.advance(1 / len(starts))
    return {"epoch": epoch + 1} | {f"train_{key}": float(torch.stack(values).mean()) for key, values in terms.items()}


def _too_many(size: int, session: Session, error: Exception) -> UserError:
    """Return the error for a training batch that does not fit.

    A step can't be halved as passes without gradients can: with fewer images it is a different step.
    """
    option = f"train_batch={size // 2}"
    named = f"{session.reference}:{option}" if session.reference else option
    hint = f"try {named}" if size // 2 >= _LEAST_BATCH else "try a smaller network, smaller images, or --device cpu"
    return out_of_memory(f"a training step of {size} image{'s' if size > 1 else ''}", error, hint)


def dihedral(batch: Batch, noise: torch.Generator) -> Batch:
    """Return the batch with every sample (image and mask) randomly turned and mirrored.

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
        where = (choice == index).nonzero().flatten()
        images[where], masks[where] = _turn(batch.images[where], index), _turn(batch.masks[where], index)
    return dataclasses.replace(batch, images=images, masks=masks)


def _turn(values: torch.Tensor, index: int) -> torch.Tensor:
    turned = torch.rot90(values, index % 4, (-2, -1))
    return turned.flip(-1) if index >= 4 else turned


def _write_history(path: Path, history: list[dict[str, float]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(history[0]) if history else ["epoch"])
        writer.writeheader()
        writer.writerows(history)
