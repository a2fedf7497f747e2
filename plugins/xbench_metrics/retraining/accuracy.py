"""Do the pixels that a map calls important suffice for the class, and is it lost without them? Gu et al., VINet."""

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
    """Accuracy of some classifier on images seen through binarised maps, at one or several levels.

    Observations of the subclasses: "right", (N, L) or (N, L, R), whether an answer at each of L levels (of each of R
    testers) is right; "accuracy", float64 (N,), a sample's share of right answers, over several levels the area under
    its curve.
    """

    options: AccuracyOptions
    area: str
    """What the levels measure, for the axis of the curve."""

    @property
    def binarisation(self) -> Binarisation:
        """How maps become masks."""
        return Binarisation(self.options)

    def summarise(self, observations: Observations) -> float:
        """The accuracy; the mean and the area are both linear, so the areas of the samples are averaged."""
        return float(mean_over_samples(observations["accuracy"], observations["label"], self.options.accuracy))

    def curves(self, observations: Observations) -> Curves | None:
        """Accuracy against the share of pixels, if there are several."""
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
        """What the accuracy is of."""
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
    """The classifier is a tester, trained from scratch on the training images seen through their maps."""

    needs = frozenset({"train"})
    expensive = True
    options: KeepAccuracyOptions | MaskOnlyAccuracyOptions
    area = "pixels kept"

    @abstractmethod
    def channels(self, info: DatasetInfo) -> int:
        """Of what the tester is shown."""

    @abstractmethod
    def shown(self, case: Case, batch: Batch, mask: torch.Tensor) -> torch.Tensor:
        """What the tester is shown, (n, C, *spatial), of a batch and its mask, bool (n, *spatial)."""

    def observe(self, case: Case) -> dict[str, np.ndarray]:
        """The answers of the testers.

        Returns:
            right: bool (N, L, R), whether tester R is right at level L.
            kept: float64 (N, L), share of the pixels kept.
            accuracy: float64 (N,), share of right answers; over several levels, the area.
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
        """Refuses a tester that timm does not have, or that does not take such images."""
        return unfit(self.options.tester, info)

    def card(self, info: DatasetInfo) -> dict[str, Any]:
        """What the accuracy is of."""
        trained = "on the training images seen through their maps, from scratch"
        stopping = "on held-out patients of the training split"
        return super().card(info) | {"classifier": f"testers trained {trained}", "early_stopping": stopping}

    def _seen(
        self, case: Case, split: Split, maps: np.ndarray | MappedArray, level: int, kept: np.ndarray, file: str
    ) -> Split:
        """A split as the tester is shown it; the share of pixels kept goes to column `level` of `kept` (N, L)."""

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
    """Accuracy of a classifier that has only ever seen what the maps keep (Gu et al., VINet, section IV-D-1, eq. 9).

    x_keep = x B + fill (1 - B), of the training and of the test images. A tester is trained from scratch on the one and
    asked the other; its accuracy is the value, the mean over the testers' seeds. Higher is better, at the same share of
    pixels. B = 1 everywhere gives the accuracy on the originals, B = 0 (a constant map) that of a constant answer.

    A high value proves nothing about where the evidence is: the mask can be the message. Read `mask_only_accuracy`
    beside it.
    """

    options: KeepAccuracyOptions

    def channels(self, info: DatasetInfo) -> int:
        """The image's."""
        return info.channels

    def shown(self, case: Case, batch: Batch, mask: torch.Tensor) -> torch.Tensor:
        """The pixels kept; the others filled."""
        return torch.where(mask[:, None], batch.images, fill_of(case, self.options.fill))

    def prepare(self, case: Case) -> dict[str, np.ndarray]:
        """The testers' answers when they are trained on whole images and asked whole images.

        Returns:
            original: bool (N, R), right or wrong.
        """
        if case.training is None:
            raise PluginError("keep_accuracy was given no training split")
        with _own_session(case, "originals") as inner:
            return {"original": self._right(inner, case.training, case.split, "original")}

    def observe(self, case: Case) -> dict[str, np.ndarray]:
        """The answers of the testers, and of those that saw everything.

        Returns:
            right, kept, accuracy: As of every retraining.
            right_original: bool (N, R), whether testers trained on whole images are right about the whole image.
        """
        return super().observe(case) | {"right_original": case.prepared["original"]}

    def card(self, info: DatasetInfo) -> dict[str, Any]:
        """What the accuracy is of."""
        return super().card(info) | {"fill": self.options.fill, "shown": "pixels kept, in [0, 1] intensities"}


class OccludeAccuracy(MaskedAccuracy):
    """Accuracy of the classifier explained when what the maps call important is gone (VINet, section IV-D-2, eq. 10).

    x_occlude = x (1 - B) + fill B; lower is better, at the same share of pixels. B = 0 (a constant map) gives the
    accuracy on the originals, B = 1 that of a constant answer. The classifier has never seen such holes: what it loses
    may be due to them rather than to what they hide.
    """

    higher_is_better = False
    options: OccludeAccuracyOptions
    area = "pixels occluded"

    def prepare(self, case: Case) -> dict[str, np.ndarray]:
        """What the classifier says of an image of nothing but the fill.

        Returns:
            blank_logits: float32 (1, K).
        """
        fill = fill_of(case, self.options.fill)
        blank = fill.expand(1, case.info.channels, *case.info.spatial).contiguous()
        return {"blank_logits": case.logits_of(blank).float().cpu().numpy()}

    def observe(self, case: Case) -> dict[str, np.ndarray]:
        """The answers of the classifier.

        Returns:
            predicted: int64 (N, L), its answer at each level.
            right: bool (N, L), whether it is right.
            occluded: float64 (N, L), share of the pixels occluded; of the same maps, what `keep_accuracy` keeps.
            accuracy: float64 (N,), share of right answers; over several levels, the area.
            right_original: bool (N,), whether it is right about the whole image.
            right_blank: bool (N,), whether it would be right about nothing but the fill.
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
        """What the accuracy is of."""
        return super().card(info) | {"classifier": "the one explained, as it is", "fill": self.options.fill}


def mean_over_samples(values: np.ndarray, labels: np.ndarray, how: str) -> np.ndarray:
    """Along the first axis: the mean, or ("balanced") that of the means of the classes present; NaN for no sample."""
    if not len(labels):
        return np.full(values.shape[1:], np.nan)
    if how == "plain":
        return np.asarray(values.mean(0))
    counts = np.bincount(labels)
    weights = 1 / (counts[labels] * np.count_nonzero(counts))
    return np.asarray(weights @ values)


def fill_of(case: Case, kind: str) -> torch.Tensor:
    """What replaces a pixel, broadcastable to (N, C, *spatial): zero, or the mean of the training split."""
    mean = upload(torch.as_tensor(np.array(case.train_mean), dtype=torch.float32), case.session.device)
    fill = mean if kind == "mean" else torch.zeros_like(mean)
    return fill.view(1, -1, *[1] * len(case.info.spatial))


def _over_testers(right: np.ndarray) -> np.ndarray:
    """(N, L, ...) -> float64 (N, L)."""
    shares: np.ndarray = right.reshape(*right.shape[:2], -1).mean(2)
    return shares


def _share(masks: torch.Tensor, leading: int) -> np.ndarray:
    """Of the pixels that are True: bool, so many leading axes before the spatial ones -> float64, these axes."""
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
    """The case with a folder for testers and images, removed when the work is done; a killed one finds it again."""
    folder = case.session.folder / name
    folder.mkdir(parents=True, exist_ok=True)
    yield dataclasses.replace(case, session=dataclasses.replace(case.session, folder=folder))
    shutil.rmtree(folder, ignore_errors=True)  # Windows keeps a file that is still mapped
