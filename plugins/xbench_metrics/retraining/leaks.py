"""Is the mask the message? Controls for maps that were made by a network which knew the classes."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from xbench import Batch, Case, DatasetInfo, Metric, Observations, PluginError, Split, class_scores
from xbench.runtime.devices import upload
from xbench.runtime.randomness import uniform_field
from xbench.runtime.seeding import derive
from xbench_metrics.retraining.accuracy import Retrained
from xbench_metrics.retraining.options import MaskOnlyAccuracyOptions

_PARTNER_STREAM = derive(0, "partner of a sample")


class MaskOnlyAccuracy(Retrained):
    """Accuracy of a classifier that sees nothing but the masks: does their shape give the class away?

    As `keep_accuracy`, but the tester is shown B itself, one channel of zeros and ones. The masks of an explainer that
    was trained with labels (VINet, attention) may be the message: this is its test. Lower is better; chance, the share
    of the most frequent class, means that the shape says nothing. What is above it does not have to be a leak: the
    outline of a lesion is evidence too, and the expert's own mask (the control `mask`) says how much.
    """

    higher_is_better = False
    options: MaskOnlyAccuracyOptions

    def channels(self, info: DatasetInfo) -> int:  # noqa: ARG002
        """One."""
        return 1

    def shown(self, case: Case, batch: Batch, mask: torch.Tensor) -> torch.Tensor:  # noqa: ARG002
        """The mask."""
        return mask[:, None].float()

    def card(self, info: DatasetInfo) -> dict[str, Any]:
        """What the accuracy is of."""
        return super().card(info) | {"shown": "the mask alone, zeros and ones"}


class MaskSwapAgreement(Metric):
    """How often the explainer's own classifier, reading an image through another's map, gives the class of that other.

    Each image is read through the map of an image of another class and another patient. Where the classifier looks at
    what the map lets through, it stays with the image (0 for one that is always right); where the map is the message,
    it follows the map's owner (1). Lower is better. The level to compare with is "agreed_before": how often the image
    read through its own map is taken for the owner's class already, which is what a map without influence gives; a
    classifier that answers at random follows 1 / K of the time.

    The owner's class is its true label. A sample without any partner (one class only, or all of one patient) is NaN.
    """

    needs = frozenset({"masked"})
    higher_is_better = False

    def observe(self, case: Case) -> dict[str, np.ndarray]:
        """What the classifier says of image i through the map of image j.

        Returns:
            follows_owner: float64 (N,), whether it gives the label of j.
            follows_image: float64 (N,), whether it stays with the label of i.
            agreed_before: float64 (N,), whether it gives the label of j through the map of i, too.
            follows_owner_answer: float64 (N,), whether it gives what it says of image j through the map of j.
            right_own: bool (N,), whether it gives the label of i through the map of i.
        """
        if case.explanation is None:
            raise PluginError("mask_swap_agreement was given no explainer whose classifier reads through its maps")
        everyone, labels = np.arange(len(case.split)), case.split.labels
        partner = partners(case.split)
        paired = partner >= 0
        owner = np.where(paired, partner, everyone)
        own, swapped = self._answers(case, everyone), self._answers(case, owner)

        def among_paired(agrees: np.ndarray) -> np.ndarray:
            return np.where(paired, agrees, np.nan)

        return {
            "follows_owner": among_paired(swapped == labels[owner]),
            "follows_image": among_paired(swapped == labels),
            "agreed_before": among_paired(own == labels[owner]),
            "follows_owner_answer": among_paired(swapped == own[owner]),
            "right_own": own == labels,
        }

    def summarise(self, observations: Observations) -> float:
        """Share of the samples with a partner."""
        follows = observations["follows_owner"]
        defined = follows[~np.isnan(follows)]
        return float(defined.mean()) if len(defined) else float("nan")

    def card(self, info: DatasetInfo) -> dict[str, Any]:  # noqa: ARG002
        """What the share is of."""
        return {
            "score": "share of answers that are the label of the borrowed map's owner",
            "target": "none: answers are compared with true labels, whatever class the map explains",
            "classifier": "the explainer's own, on images destroyed by the given map",
            "partner": "of another class and another patient, one a sample, seeded by sample",
        }

    def _answers(self, case: Case, owner: np.ndarray) -> np.ndarray:
        """The predicted class of every image, read through the map of sample `owner` (N,)."""
        explanation, device = case.explanation, case.session.device
        assert explanation is not None

        def answers(start: int, stop: int) -> np.ndarray:
            images = upload(case.split.batch(np.arange(start, stop)).images, device)
            maps = upload(torch.from_numpy(np.array(case.maps[owner[start:stop]], dtype=np.float32)), device)
            logits = explanation.masked_logits(images, maps)
            found: np.ndarray = class_scores(logits.float()).argmax(1).cpu().numpy()
            return found

        predicted = np.empty(len(case.split), dtype=np.int64)
        for rows, found in case.session.batched(len(predicted), answers, "reading through maps"):
            predicted[rows] = found
        return predicted


def partners(split: Split) -> np.ndarray:
    """For each sample another one, of another class and another patient; the same whatever the order of the samples.

    Drawn evenly by the sample's seed among those of other classes; where that is of the same patient, the next one of
    theirs (in the order of their own seeds) that is not.

    Returns:
        int64 (N,), indices; -1 where there is none.
    """
    seeds, labels = split.seeds, split.labels
    _, patient = np.unique(np.asarray(split.groups, dtype=str), return_inverse=True)
    draws = uniform_field(torch.from_numpy(seeds) ^ _PARTNER_STREAM, (1,)).double().numpy()[:, 0]
    order = np.argsort(seeds, kind="stable")
    partner = np.full(len(split), -1, dtype=np.int64)
    for label in np.unique(labels):
        others = order[labels[order] != label]
        waiting = np.flatnonzero(labels == label)
        place = (draws[waiting] * len(others)).astype(np.int64)
        for step in range(len(others)):
            candidate = others[(place + step) % len(others)]
            fits = patient[candidate] != patient[waiting]
            partner[waiting[fits]] = candidate[fits]
            waiting, place = waiting[~fits], place[~fits]
            if not len(waiting):
                break
    return partner
