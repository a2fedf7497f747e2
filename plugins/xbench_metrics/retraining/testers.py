"""Testers: classifiers trained from scratch on what maps keep of images, and tested on other images."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import torch
from torch import nn

from xbench import DatasetInfo, Session, Split, UserError, class_scores
from xbench.compute.training import predict, train_classifier
from xbench.contracts.options import suggestion
from xbench.runtime.files import whole_file
from xbench.runtime.mapped import writing
from xbench.runtime.randomness import isolated
from xbench.runtime.seeding import derive
from xbench_metrics.retraining.options import TesterOptions, TesterSchedule

_WIDTHS = (8, 16, 32)
_CELLS = 4
_TIMM = "timm:"


class TinyTester(nn.Module):
    """Three blocks of convolution, group norm of one group, ReLU and max pooling; means of 4 x 4 cells; a linear head.

    The cells let it tell where something is, because the position of a mask may give the class away. There is no batch
    norm, because its running statistics lag behind in the few steps of a small training split. Images and volumes can
    have any size.

    Args:
        channels: Number of channels, C.
        spatial: Spatial shape of the images.
        classes: Number of classes, K.
    """

    def __init__(self, channels: int, spatial: tuple[int, ...], classes: int) -> None:
        super().__init__()
        axes = len(spatial)
        convolution: Callable[..., nn.Module] = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[axes - 1]
        pool: Callable[..., nn.Module] = (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d)[axes - 1]
        cells: Callable[..., nn.Module] = (nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d)[axes - 1]
        blocks = (
            (convolution(before, after, 3, padding=1), nn.GroupNorm(1, after), nn.ReLU(), pool(2, ceil_mode=True))
            for before, after in itertools.pairwise((channels, *_WIDTHS))
        )
        self.features = nn.Sequential(*itertools.chain.from_iterable(blocks))
        self.cells = cells(_CELLS)
        self.head = nn.Linear(_WIDTHS[-1] * _CELLS**axes, classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the logits: (N, C, *spatial) -> (N, K)."""
        logits: torch.Tensor = self.head(self.cells(self.features(images)).flatten(1))
        return logits


def unfit(tester: str, info: DatasetInfo) -> str | None:
    """Return the reason why such a tester can't be trained on a dataset, or None."""
    if tester.startswith(_TIMM):
        import timm

        name = tester.removeprefix(_TIMM)
        if not timm.is_model(name):
            return f"timm has no classifier {name!r} for tester={tester}; {suggestion(name, timm.list_models())[:200]}"
        if len(info.spatial) != 2:
            return f"tester={tester} takes images, those of {info.name} have {len(info.spatial)} axes; use tester=tiny"
    return None


def build(tester: str, channels: int, info: DatasetInfo) -> nn.Module:
    """Return an untrained tester, initialised from torch's global generator.

    Args:
        tester: "tiny", or "timm:" and a name.
        channels: Number of channels that it sees.
        info: Image size and classes.
    """
    if not tester.startswith(_TIMM):
        return TinyTester(channels, info.spatial, len(info.classes))
    import timm

    name = tester.removeprefix(_TIMM)
    network: nn.Module = timm.create_model(name, pretrained=False, in_chans=channels, num_classes=len(info.classes))
    return network


def hold_out(split: Split, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the indices of the samples to train on, and those of the samples held out, in ascending order.

    Patients are visited in a random order, which depends only on their names and the seed. A patient is held out if
    none of its classes has reached its share yet, and if each class keeps a patient.

    Raises:
        UserError: In every class, all images are from one patient.
    """
    patients, patient = np.unique(np.asarray(split.groups, dtype=str), return_inverse=True)
    classes = int(split.labels.max()) + 1
    counts = np.zeros((len(patients), classes), dtype=np.int64)
    np.add.at(counts, (patient, split.labels), 1)
    total, held = counts.sum(0), np.zeros(classes, dtype=np.int64)
    out = np.zeros(len(patients), dtype=bool)
    for index in np.argsort([derive(seed, "held out", name) for name in patients], kind="stable"):
        own, after = counts[index] > 0, held + counts[index]
        if np.all(held[own] < share * total[own]) and np.all(after[own] < total[own]):
            out[index], held = True, after
    if not out.any():
        raise UserError(
            f"a tester can't be trained: each of the {classes} classes of the training split comes from one patient, "
            "but early stopping needs images of other patients",
            "use a dataset with more patients",
        )
    return np.flatnonzero(~out[patient]), np.flatnonzero(out[patient])


def stored(split: Split, shown: Iterable[torch.Tensor], shape: tuple[int, ...], path: Path) -> Split:
    """Store the samples of a split as a tester sees them, and return them as a split on disk.

    The images are computed once and read in every epoch.

    Args:
        split: Split with the labels, ids and patients.
        shown: Batches of images (n, *shape), in order.
        shape: Shape of an image, (C, *spatial).
        path: Path of the file.
    """
    with writing(path, "<f4", (len(split), *shape)) as out:
        for images in shown:
            out.append(images.float().cpu().numpy())
    return Split.from_arrays(np.load(path, mmap_mode="r"), split.labels, split.ids, split.groups)


def trained(
    tester: str, schedule: TesterSchedule, train: Split, channels: int, info: DatasetInfo, session: Session
) -> nn.Module:
    """Return a tester trained from scratch, on the CPU and in eval mode.

    Args:
        tester: "tiny", or "timm:" and a name.
        schedule: Training schedule, with the share of the training images, by patient, to hold out for early stopping.
        train: Split to train on.
        channels: Number of channels that the tester sees.
        info: Image size and classes.
        session: Seed, device and progress. Its folder keeps the work.

    Raises:
        UserError: A class is missing from the training images, or no patient can be held out.
    """
    missing = [info.classes[index] for index in np.flatnonzero(train.class_counts(len(info.classes)) == 0)]
    if missing:
        raise UserError(f"a tester can't be trained: no training image of class {', '.join(missing)}")
    with isolated(session.seed, "initialise"):
        network = build(tester, channels, info)
    learn, stop = hold_out(train, schedule.held_out, session.seed)
    train_classifier(network, train.select(learn), train.select(stop), schedule, session)
    return network


class Testers:
    """Testers of one architecture and schedule.

    Args:
        options: Architecture, schedule, number of seeds and share held out.
        info: Image size and classes.
        channels: Number of channels that the testers see.
        session: Seed, device and progress. Its folder keeps the work.
    """

    def __init__(self, options: TesterOptions, info: DatasetInfo, channels: int, session: Session) -> None:
        self._options, self._info, self._channels, self._session = options, info, channels, session

    def answers(self, train: Split, test: Split, name: str) -> np.ndarray:
        """Train each tester on the training images, and return its answers for the test images.

        After an interruption, finished testers are not trained again, and an unfinished one resumes.

        Args:
            train: Split to train on. Some patients are held out for early stopping.
            test: Split to predict.
            name: Name of these images in the folder.

        Returns:
            Predicted classes, int64 (N, seeds).

        Raises:
            UserError: A class is missing from the training images, or no patient can be held out.
        """
        predicted = np.empty((len(test), self._options.seeds), dtype=np.int64)
        with self._session.progress.task(f"testers: {name}", self._options.seeds) as bar:
            for index in range(self._options.seeds):
                predicted[:, index] = self._answers_of(index, train, test, f"{name}-{index}")
                bar.advance()
        return predicted

    def _answers_of(self, index: int, train: Split, test: Split, name: str) -> np.ndarray:
        ready, folder = self._session.folder / f"{name}.npy", self._session.folder / name
        if not ready.exists():
            folder.mkdir(parents=True, exist_ok=True)
            seed = derive(self._session.seed, "tester", index)
            session = dataclasses.replace(self._session, folder=folder, seed=seed, facts={})
            answers = self._trained_answers(train, test, session)
            with whole_file(ready) as file:
                np.save(file, answers)
        found: np.ndarray = np.load(ready)
        return found

    def _trained_answers(self, train: Split, test: Split, session: Session) -> np.ndarray:
        network = trained(self._options.tester, self._options, train, self._channels, self._info, session)
        logits, _ = predict(network.to(session.device), test, session)
        classes: np.ndarray = class_scores(logits).argmax(1).numpy()
        return classes
