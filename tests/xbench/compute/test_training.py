from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from xbench import Batch, Schedule, Session, Split, UserError
from xbench.compute.training import ClassifierObjective, Objective, Step, dihedral, predict, train_network


def _split(n: int = 96, seed: int = 0) -> Split:
    draws = np.random.default_rng(seed)
    images = draws.random((n, 1, 8, 8), dtype=np.float32) * 0.5
    labels = np.arange(n) % 3 == 0
    images[labels, :, 2:5, 2:5] += 0.4
    names = [f"{seed}-{index}" for index in range(n)]
    return Split.from_arrays(images, labels.astype(int), names, names, masks=images[:, 0] > 0.4)


def _network(outputs: int = 2) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.2), nn.Flatten(), nn.Linear(288, outputs)
        )


@pytest.mark.parametrize("outputs", [1, 2])
def test_it_learns_with_one_logit_and_with_two(tmp_path: Path, outputs: int) -> None:
    network, train, validation = _network(outputs), _split(), _split(seed=1)
    history = train_network(
        ClassifierObjective(network, train), train, validation, Schedule(epochs=20), Session(tmp_path)
    )
    assert history[-1]["train_loss"] < history[0]["train_loss"] / 2
    logits, labels = predict(network, validation, Session(tmp_path))
    scores = torch.cat([-logits, logits], 1) if outputs == 1 else logits
    assert (scores.argmax(1) == labels).float().mean() > 0.95
    assert (tmp_path / "history.csv").read_text().count("\n") == len(history) + 1


def test_the_weights_of_the_best_epoch_are_kept(tmp_path: Path) -> None:
    network, train, validation = _network(), _split(), _split(seed=1)
    objective, session = ClassifierObjective(network, train), Session(tmp_path)
    history = train_network(objective, train, validation, Schedule(epochs=12, learning_rate=0.05), session)
    best = min(range(len(history)), key=lambda index: history[index]["validation_criterion"])
    assert session.facts["best_epoch"] == best + 1
    assert objective.validate(validation, session)["criterion"] == history[best]["validation_criterion"]


def test_early_stopping_counts_epochs_without_a_better_criterion(tmp_path: Path) -> None:
    class Worse(ClassifierObjective):
        epochs = 0

        def validate(self, split: Split, session: Session) -> dict[str, float]:
            self.epochs += 1
            return {"criterion": float(self.epochs)}

    network, train = _network(), _split()
    history = train_network(Worse(network, train), train, train, Schedule(epochs=50, patience=3), Session(tmp_path))
    assert len(history) == 4


@pytest.mark.parametrize("stopped_after", [1, 4])
def test_a_killed_training_ends_with_the_bits_of_an_undisturbed_one(tmp_path: Path, stopped_after: int) -> None:
    train, validation = _split(), _split(seed=1)
    schedule = Schedule(epochs=7, augment="dihedral", decay="cosine")

    class Killed(ClassifierObjective):
        def validate(self, split: Split, session: Session) -> dict[str, float]:
            if self.count >= stopped_after:
                raise KeyboardInterrupt
            self.count += 1
            return super().validate(split, session)

        count = 0

    folders = {name: tmp_path / name for name in ("whole", "killed")}
    for folder in folders.values():
        folder.mkdir()
    whole = _network()
    history = train_network(ClassifierObjective(whole, train), train, validation, schedule, Session(folders["whole"]))
    with pytest.raises(KeyboardInterrupt):
        train_network(Killed(_network(), train), train, validation, schedule, Session(folders["killed"]))
    resumed = _network()
    session = Session(folders["killed"])
    assert train_network(ClassifierObjective(resumed, train), train, validation, schedule, session) == history
    for key, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[key]), key
    assert not (folders["killed"] / "checkpoint.pt").exists()


def test_a_diverging_training_is_an_error_with_a_way_out(tmp_path: Path) -> None:
    class Nan(ClassifierObjective):
        def validate(self, split: Split, session: Session) -> dict[str, float]:
            return {"criterion": float("nan")}

    train = _split()
    with pytest.raises(UserError, match=r"diverged.*learning_rate"):
        train_network(Nan(_network(), train), train, train, Schedule(epochs=3), Session(tmp_path))


def test_dihedral_turns_image_and_mask_alike_and_only_turns() -> None:
    batch = _split().batch(np.arange(96))
    turned = dihedral(batch, torch.Generator().manual_seed(0))
    assert torch.equal(turned.images[:, 0] > 0.4, turned.masks)
    assert torch.equal(turned.images.flatten(1).sort(1).values, batch.images.flatten(1).sort(1).values)
    assert not torch.equal(turned.images, batch.images)
    kinds = {
        next(
            index
            for index in range(8)
            if torch.equal(t, (b.rot90(index % 4, (-2, -1)).flip(-1) if index > 3 else b.rot90(index, (-2, -1))))
        )
        for t, b in zip(turned.images, batch.images, strict=True)
    }
    assert kinds == set(range(8))


class Duel(Objective):
    """One number approaches 3 in steps of its own; another follows what the first has become."""

    def __init__(self, max_norm: float | None = None) -> None:
        self.network = nn.ModuleDict({"first": nn.Linear(1, 1, bias=False), "second": nn.Linear(1, 1, bias=False)})
        for part in self.network.values():
            nn.init.zeros_(part.weight)  # type: ignore[arg-type]
        self._max_norm = max_norm
        self.rates = []

    def steps(self) -> list[Step]:
        return [
            Step(self.network["first"], self._approach, "first_loss", betas=(0.0, 0.0), max_norm=self._max_norm),
            Step(self.network["second"], self._follow, betas=(0.0, 0.0)),
        ]

    def _approach(self, batch: Batch, noise: torch.Generator) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        return (self.network["first"].weight - 3).square().sum() + 0 * self.network["second"].weight.sum(), {}

    def _follow(self, batch: Batch, noise: torch.Generator) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        distance = self.network["second"].weight - self.network["first"].weight
        return distance.square().sum(), {"distance": distance.detach().abs().mean()}

    def validate(self, split: Split, session: Session) -> dict[str, float]:
        first, second = (float(self.network[name].weight.detach()) for name in ("first", "second"))
        self.rates.append(first)
        return {"criterion": 3 - first, "first": first, "second": second}


def _duel(tmp_path: Path, objective: Objective, **schedule: Any) -> list[dict[str, float]]:
    tmp_path.mkdir(exist_ok=True)
    train = _split(n=8)
    return train_network(objective, train, train, Schedule(train_batch=8, **schedule), Session(tmp_path))


def test_several_steps_have_optimisers_of_their_own_and_take_turns(tmp_path: Path) -> None:
    # Without a memory Adam moves by its rate along the sign of the gradient.
    history = _duel(tmp_path, Duel(), epochs=3, learning_rate=0.5)
    assert [row["validation_first"] for row in history] == pytest.approx([0.5, 1.0, 1.5])
    assert [row["validation_second"] for row in history] == pytest.approx([0.5, 1.0, 1.5])
    assert history[0]["train_first_loss"] == pytest.approx(9)
    assert history[0]["train_loss"] == pytest.approx(0.25)  # the first has moved already
    assert history[0]["train_distance"] == pytest.approx(0.5)


def test_a_long_gradient_is_cut(tmp_path: Path) -> None:
    norms = []

    class Watched(Duel):
        def _follow(self, batch: Batch, noise: torch.Generator) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
            norms.append(float(self.network["first"].weight.grad.norm()))
            return super()._follow(batch, noise)

    _duel(tmp_path / "free", Watched(), epochs=1)
    _duel(tmp_path / "cut", Watched(max_norm=1.0), epochs=1)
    assert norms == pytest.approx([6.0, 1.0], rel=1e-4)


@pytest.mark.parametrize(
    ("size", "hint"),
    [(4, "try train_batch=2"), (3, "try a smaller network"), (2, "try a smaller network")],
)
def test_a_step_that_does_not_fit_names_a_batch_that_is_allowed(tmp_path: Path, size: int, hint: str) -> None:
    class Full(Duel):
        def _follow(self, batch: Batch, noise: torch.Generator) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
            raise torch.OutOfMemoryError("CUDA out of memory")

    train = _split(n=8)
    with pytest.raises(UserError, match=rf"out of memory: a training step of {size} images.*\({hint}"):
        train_network(Full(), train, train, Schedule(train_batch=size, epochs=1), Session(tmp_path))


def test_linear_decay_begins_in_the_middle(tmp_path: Path) -> None:
    history = _duel(tmp_path, Duel(), epochs=8, learning_rate=0.1, decay="linear")
    positions = np.array([0.0] + [row["validation_first"] for row in history])
    assert np.diff(positions) == pytest.approx([0.1] * 5 + [0.075, 0.05, 0.025])


def test_a_killed_duel_ends_with_the_bits_of_an_undisturbed_one(tmp_path: Path) -> None:
    class Killed(Duel):
        def validate(self, split: Split, session: Session) -> dict[str, float]:
            if len(self.rates) == 2:
                raise KeyboardInterrupt
            return super().validate(split, session)

    whole, again = Duel(), Duel()
    history = _duel(tmp_path / "whole", whole, epochs=5)
    with pytest.raises(KeyboardInterrupt):
        _duel(tmp_path / "killed", Killed(), epochs=5)
    assert _duel(tmp_path / "killed", again, epochs=5) == history
    assert len(again.rates) == 3
    assert all(torch.equal(value, again.network.state_dict()[key]) for key, value in whole.network.state_dict().items())
