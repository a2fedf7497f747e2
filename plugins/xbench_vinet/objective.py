"""The objective of VINet's training (Gu et al., section III-D)."""

from __future__ import annotations

import numpy as np
import torch
from torch.nn import functional as F

from xbench import Batch, Session, Split, class_scores
from xbench.compute.training import Objective
from xbench.runtime.devices import upload
from xbench_vinet.network import VINetNetwork

THRESHOLD = 0.1  # floor(M + T) with T = 0.9 in equations 9 and 10 is 1 where M reaches 1 - T


class VINetObjective(Objective):
    """Cross entropy (eq. 7) plus alpha times the importance loss, which is the mean of the map (eq. 8): equation 6.

    Both networks are rewarded for a right answer from few pixels. The criterion of the validation is the same loss: the
    classification loss alone would prefer the epoch that shows most of the image.
    """

    network: VINetNetwork

    def __init__(self, network: VINetNetwork, alpha: float) -> None:
        self.network = network
        self._alpha = alpha

    def loss(self, batch: Batch, noise: torch.Generator) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Return equation 6 and its two terms.

        The destruction draws from torch's global generator on the device. The training loop seeds it at each epoch, so
        that a resumed training sees the same noise.
        """
        del noise
        logits, maps = self.network(batch.images)
        classification = _cross_entropy(logits, batch.labels)
        importance = maps.mean()
        loss = classification + self._alpha * importance
        return loss, {"classification": classification.detach(), "importance": importance.detach()}

    def validate(self, split: Split, session: Session) -> dict[str, float]:
        """Return the loss, its terms, the accuracy, and the share of kept pixels (eqs. 9 and 10)."""
        self.network.eval()

        def figures(start: int, stop: int) -> torch.Tensor:
            batch = split.batch(np.arange(start, stop))
            images, labels = upload(batch.images, session.device), upload(batch.labels, session.device)
            with torch.inference_mode(), session.autocast():
                logits, maps = self.network(images)
            right = class_scores(logits).argmax(1) == labels
            means = (_cross_entropy(logits, labels), right.float().mean(), maps.mean(), kept_pixels(maps).mean())
            return len(batch) * torch.stack(means)

        sums = [batch_sums for _, batch_sums in session.batched(len(split), figures)]
        loss, accuracy, importance, kept = (torch.stack(sums).sum(0) / len(split)).tolist()
        return {
            "criterion": loss + self._alpha * importance,
            "accuracy": accuracy,
            "classification": loss,
            "importance": importance,
            "kept": kept,
        }


def kept_pixels(maps: torch.Tensor) -> torch.Tensor:
    """Return the share of pixels with M >= 0.1 (eqs. 9 and 10): (N, *spatial) -> (N,)."""
    return (maps >= THRESHOLD).flatten(1).float().mean(1)


def _cross_entropy(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return equation 7. A given classifier with one neuron counts as two classes with logits -z/2 and z/2."""
    scores = class_scores(logits.float()) / (2 if logits.shape[1] == 1 else 1)
    return F.cross_entropy(scores, labels)
