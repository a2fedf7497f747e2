"""Do the important pixels of a map suffice for the class, and is the class lost without them? Gu et al., VINet."""

from __future__ import annotations

import dataclasses
import shutil
from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from xbench import Batch, Case, Curves, DatasetInfo, Metric, Observations, PluginError, Split, TrainMaps, class_scores
from xbench.runtime.devices import upload
from xbench.runtime.mapped import MappedArray
from xbench_metrics.retraining.binarisation import Binarisation, binarised
from xbench_metrics.retraining.options import (
    AccuracyOptions,
    KeepAccuracyOptions,
    MaskOnlyAccuracyOptions,
    OccludeAccuracyOptions,
)
from xbench_metrics.retraining.testers import Testers, stored, unfit


class MaskedAccuracy(Metric):
    """Base of accuracies on images seen through binarised maps, at one or several levels.

    Subclasses observe "right", (N, L) or (N, L, R): whether the answer at each of L levels (by each of R testers) is
    right. They also observe "accuracy", float64 (N,): a sample's share of right answers, or with several levels the
    area under its curve.
    """

    options: AccuracyOptions
    area: str
    """Label of the levels on the axis of the curve."""

    @property
    def binarisation(self) -> Binarisation:
        """The rule that makes masks of maps."""
        return Binarisation(self.options)

    def summarise(self, observations: Observations) -> float:
        """Return the accuracy. The mean and the area are both linear, so the areas of the samples are averaged."""
        return float(mean_over_samples(observations["accuracy"], observations["label"], self.options.accuracy))

    def curves(self, observations: Observations) -> Curves | None:
        """Return accuracy against the share of pixels, if there are several shares."""
        binarisation = self.binarisation
        if binarisation.levels == 1:
            return None
        right = _over_testers(observations["right"])
        return Curves(
            x=100 * np.array(binarisation.shares),
            y={"accuracy": mean_over_samples(right, observations["label"], self.options.accuracy)},
            x_label=f"{self.area} (%)",
            y_label="accuracy" if self.options.accuracy == "plain" else "balanced accuracy",
        )

    def card(self, info: DatasetInfo) -> dict[str, Any]:  # noqa: ARG002
        """Return what the accuracy means."""
        several = self.binarisation.levels > 1
        return {
            "score": f"{self.options.accuracy} accuracy against the true label",
            "target": "none: accuracy is against the true label, whatever class the map explains",
            "aggregation": "trapezoid rule over the shares, by their range" if several else "mean over samples",
            **self.binarisation.card(),
        }

    def _accuracies(self, right: np.ndarray) -> np.ndarray:
        accuracies: np.ndarray = _over_testers(right) @ self.binarisation.weights
        return accuracies


class Retrained(MaskedAccuracy):
    """Base of accuracies of testers: classifiers trained from scratch on training images seen through their maps."""

    needs = frozenset({"train"})
    expensive = True
    options: KeepAccuracyOptions | MaskOnlyAccuracyOptions
    area = "pixels kept"

    @abstractmethod
    def channels(self, info: DatasetInfo) -> int:
        """Return the number of channels that the tester sees."""

    @abstractmethod
    def shown(self, case: Case, batch: Batch, mask: torch.Tensor) -> torch.Tensor:
        """Return what the tester sees, (n, C, *spatial), of a batch and its mask, bool (n, *spatial)."""

    def observe(self, case: Case) -> dict[str, np.ndarray]:
        """Train the testers and return their answers.

        Returns:
            right: Whether each of R testers is right at each of L levels, bool (N, L, R).
            kept: Share of the pixels kept, float64 (N, L).
            accuracy: Share of right answers, or with several levels the area, float64 (N,).
        """
        binarisation, train = self.binarisation, _train(case)
        right = np.empty((len(case.split), binarisation.levels, self.options.seeds), dtype=bool)
        kept, unused = (np.empty((len(split), binarisation.levels)) for split in (case.split, train.split))
        with _own_session(case, "testers") as inner:
            for level in range(binarisation.levels):
                learn = self._seen(inner, train.split, train.maps, level, unused, "train.npy")
                ask = self._seen(inner, case.split, case.maps, level, kept, "test.npy")
                right[:, level] = self._right(inner, learn, ask, f"level-{level}")
        return {"right": right, "kept": kept, "accuracy": self._accuracies(right)}

    def supports(self, info: DatasetInfo) -> str | None:
        """Return a reason for a tester that timm does not have, or that can't take such images."""
        return unfit(self.options.tester, info)

    def card(self, info: DatasetInfo) -> dict[str, Any]:
        """Return what the accuracy means."""
        trained = "on the training images seen through their maps, from scratch"
        stopping = "on held-out patients of the training split"
        return super().card(info) | {"classifier": f"testers trained {trained}", "early_stopping": stopping}

    def _seen(
        self, case: Case, split: Split, maps: np.ndarray | MappedArray, level: int, kept: np.ndarray, file: str
    ) -> Split:
        """Return a split as the tester sees it. Write the share of pixels kept into column `level` of `kept` (N, L)."""

        def masked(batch: Batch, masks: torch.Tensor) -> tuple[np.ndarray, torch.Tensor]:
            return _share(masks[level], 1), self.shown(case, batch, masks[level]).cpu()

        def shown() -> Iterator[torch.Tensor]:
            for rows, found in binarised(split, maps, self.binarisation, case.session, masked, "masking"):
                kept[rows, level], images = found
                yield images

        shape = (self.channels(case.info), *case.info.spatial)
        return stored(split, shown(), shape, case.session.folder / file)

    def _right(self, case: Case, learn: Split, ask: Split, name: str) -> np.ndarray:
        testers = Testers(self.options, case.info, self.channels(case.info), case.session)
        right: np.ndarray = testers.answers(learn, ask, name) == ask.labels[:, None]
        return right


class KeepAccuracy(Retrained):
    """Accuracy of a classifier that only sees what the maps keep (Gu et al., VINet, section IV-D-1, eq. 9).

    x_keep = x B + fill (1 - B), for the training images and the test images. A tester is trained from scratch on the
    former and tested on the latter. The value is its accuracy, averaged over the testers' seeds. Higher is better, at
    the same share of pixels. B = 1 everywhere gives the accuracy on the originals. B = 0 (a constant map) gives that of
    a constant answer.

    A high value does not prove where the evidence is, because the shape of the mask may give the class away. Compare it
    with `mask_only_accuracy`.
    """

    options: KeepAccuracyOptions

    def channels(self, info: DatasetInfo) -> int:
        """Return the number of channels of the images."""
        return info.channels

    def shown(self, case: Case, batch: Batch, mask: torch.Tensor) -> torch.Tensor:
        """Return the images with all pixels filled that are not kept."""
        return torch.where(mask[:, None], batch.images, fill_of(case, self.options.fill))

    def prepare(self, case: Case) -> dict[str, np.ndarray]:
        """Train testers on whole images, and return their answers for whole images.

        Returns:
            original: Whether each answer is right, bool (N, R).
        """
        if case.training is None:
            raise PluginError("keep_accuracy was given no training split")
        with _own_session(case, "originals") as inner:
            return {"original": self._right(inner, case.training, case.split, "original")}

    def observe(self, case: Case) -> dict[str, np.ndarray]:
        """Return the answers of the testers, and of testers that see whole images.

        Returns:
            right, kept, accuracy: The observations of `Retrained`.
            right_original: Whether testers trained on whole images are right about the whole image, bool (N, R).
        """
        return super().observe(case) | {"right_original": case.prepared["original"]}

    def card(self, info: DatasetInfo) -> dict[str, Any]:
        """Return what the accuracy means."""
        return super().card(info) | {"fill": self.options.fill, "shown": "pixels kept, in [0, 1] intensities"}


class OccludeAccuracy(MaskedAccuracy):
    """Accuracy of the explained classifier without the pixels that the maps call important (VINet, IV-D-2, eq. 10).

    x_occlude = x (1 - B) + fill B. Lower is better, at the same share of pixels. B = 0 (a constant map) gives the
    accuracy on the originals. B = 1 gives that of a constant answer. The classifier has never seen such holes, so its
    loss of accuracy may be due to the holes themselves rather than to what they hide.
    """

    higher_is_better = False
    options: OccludeAccuracyOptions
    area = "pixels occluded"

    def prepare(self, case: Case) -> dict[str, np.ndarray]:
        """Return the classifier's answer for an image that shows only the fill.

        Returns:
            blank_logits: Its logits, float32 (1, K).
        """
        fill = fill_of(case, self.options.fill)
        blank = fill.expand(1, case.info.channels, *case.info.spatial).contiguous()
        return {"blank_logits": case.logits_of(blank).float().cpu().numpy()}

    def observe(self, case: Case) -> dict[str, np.ndarray]:
        """Return the answers of the classifier.

        Returns:
            predicted: Answer at each level, int64 (N, L).
            right: Whether the answer is right, bool (N, L).
            occluded: Share of the pixels occluded, float64 (N, L). These are the pixels that `keep_accuracy` keeps.
            accuracy: Share of right answers, or with several levels the area, float64 (N,).
            right_original: Whether the answer for the whole image is right, bool (N,).
            right_blank: Whether the answer for an image that shows only the fill would be right, bool (N,).
        """
        binarisation, labels = self.binarisation, case.split.labels
        predicted = np.empty((len(case.split), binarisation.levels), dtype=np.int64)
        occluded = np.empty(predicted.shape)
        fill = fill_of(case, self.options.fill)

        def answered(batch: Batch, masks: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
            logits = [case.logits_of(torch.where(mask[:, None], fill, batch.images)) for mask in masks]
            answers = torch.stack([class_scores(one).argmax(1) for one in logits], 1)
            return answers.cpu().numpy(), _share(masks, 2).T

        for rows, found in binarised(case.split, case.maps, binarisation, case.session, answered, "occluding"):
            predicted[rows], occluded[rows] = found
        right = predicted == labels[:, None]
        return {
            "predicted": predicted,
            "right": right,
            "occluded": occluded,
            "accuracy": self._accuracies(right),
            "right_original": _predicted(case.logits) == labels,
            "right_blank": _predicted(case.prepared["blank_logits"]) == labels,
        }

    def card(self, info: DatasetInfo) -> dict[str, Any]:
        """Return what the accuracy means."""
        return super().card(info) | {"classifier": "the one explained, as it is", "fill": self.options.fill}


def mean_over_samples(values: np.ndarray, labels: np.ndarray, how: str) -> np.ndarray:
    """Return the mean over axis 0, or ("balanced") the mean of the present classes' means, or NaN without samples."""
    if not len(labels):
        return np.full(values.shape[1:], np.nan)
    if how == "plain":
        return np.asarray(values.mean(0))
    counts = np.bincount(labels)
    weights = 1 / (counts[labels] * np.count_nonzero(counts))
    return np.asarray(weights @ values)


def fill_of(case: Case, kind: str) -> torch.Tensor:
    """Return the fill, broadcastable to (N, C, *spatial): zero, or the mean of the training split."""
    mean = upload(torch.as_tensor(np.array(case.train_mean), dtype=torch.float32), case.session.device)
    fill = mean if kind == "mean" else torch.zeros_like(mean)
    return fill.view(1, -1, *[1] * len(case.info.spatial))


def _over_testers(right: np.ndarray) -> np.ndarray:
    """Return the mean over the testers: (N, L, ...) -> float64 (N, L)."""
    shares: np.ndarray = right.reshape(*right.shape[:2], -1).mean(2)
    return shares


def _share(masks: torch.Tensor, leading: int) -> np.ndarray:
    """Return the share of True pixels, float64, with the first `leading` axes of the masks."""
    pixels = masks.flatten(leading)
    share: np.ndarray = pixels.sum(-1).cpu().double().numpy() / pixels.shape[-1]
    return share


def _predicted(logits: np.ndarray) -> np.ndarray:
    classes: np.ndarray = class_scores(torch.from_numpy(np.array(logits))).argmax(1).numpy()
    return classes


def _train(case: Case) -> TrainMaps:
    if case.train is None:
        raise PluginError("a metric that retrains was given no maps of the training split")
    return case.train


@contextmanager
def _own_session(case: Case, name: str) -> Iterator[Case]:
    """Yield the case with a folder for testers and images. It is removed when the work is done."""
    folder = case.session.folder / name
    folder.mkdir(parents=True, exist_ok=True)
    yield dataclasses.replace(case, session=dataclasses.replace(case.session, folder=folder))
    shutil.rmtree(folder, ignore_errors=True)  # Windows can't remove a file that is still mapped
