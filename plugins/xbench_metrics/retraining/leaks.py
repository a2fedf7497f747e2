"""Does the mask itself give the class away? Controls for maps of networks that were trained with the classes."""

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
    """Accuracy of a classifier that sees only the masks: does their shape give the class away?

    This is `keep_accuracy`, except that the tester sees B itself, one channel of zeros and ones. An explainer that was
    trained with labels (VINet, attention) may encode the class in its masks, and this metric tests it. Lower is better.
    Chance, the share of the most frequent class, means that the shape does not reveal the class. A value above chance
    is not necessarily a leak, because the outline of a lesion is evidence too. The expert's own mask (the control
    `mask`) shows how much.
    """

    higher_is_better = False
    options: MaskOnlyAccuracyOptions

    def channels(self, info: DatasetInfo) -> int:  # noqa: ARG002
        """Return 1, the number of channels of a mask."""
        return 1

    def shown(self, case: Case, batch: Batch, mask: torch.Tensor) -> torch.Tensor:  # noqa: ARG002
        """Return the mask as an image of one channel."""
        return mask[:, None].float()

    def card(self, info: DatasetInfo) -> dict[str, Any]:
        """Return what the accuracy means."""
        return super().card(info) | {"shown": "the mask alone, zeros and ones"}


class MaskSwapAgreement(Metric):
    """How often does the explainer's own classifier give the class of the image whose map it borrows?

    The classifier reads each image through the map of another image, the map's owner, of another class and another
    patient. If it looks at what the map lets through, it stays with the image (0 for a classifier that is always
    right). If the map itself gives the class away, it follows the map's owner (1). Lower is better. Compare the value
    with "agreed_before": how often the classifier gives the owner's class to the image read through its own map. A map
    without influence has this value. A classifier that answers at random follows 1 / K of the time.

    The owner's class is its true label. A sample without a partner (if there is only one class or one patient) is NaN.
    """

    needs = frozenset({"masked"})
    higher_is_better = False

    def observe(self, case: Case) -> dict[str, np.ndarray]:
        """Return how the classifier answers for image i through the map of image j.

        Returns:
            follows_owner: Whether it gives the label of j, float64 (N,).
            follows_image: Whether it stays with the label of i, float64 (N,).
            agreed_before: Whether it also gives the label of j through the map of i, float64 (N,).
            follows_owner_answer: Whether it gives its own answer for image j through the map of j, float64 (N,).
            right_own: Whether it gives the label of i through the map of i, bool (N,).
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
        """Return the share of samples with a partner whose answer follows the map's owner."""
        follows = observations["follows_owner"]
        defined = follows[~np.isnan(follows)]
        return float(defined.mean()) if len(defined) else float("nan")

    def card(self, info: DatasetInfo) -> dict[str, Any]:  # noqa: ARG002
        """Return what the share means."""
        return {
            "score": "share of answers that are the label of the borrowed map's owner",
            "target": "none: answers are compared with true labels, whatever class the map explains",
            "classifier": "the explainer's own, on images destroyed by the given map",
            "partner": "of another class and another patient, one a sample, seeded by sample",
        }

    def _answers(self, case: Case, owner: np.ndarray) -> np.ndarray:
        """Return the predicted class of every image, read through the map of sample `owner` (N,)."""
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
    """Return a partner for each sample, of another class and another patient, independently of the samples' order.

    The sample's seed draws the partner uniformly from the samples of other classes. If it is of the same patient, the
    next one (in the order of the seeds) of another patient is taken.

    Returns:
        Indices of the partners, int64 (N,), or -1 where there is none.
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
