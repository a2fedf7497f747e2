"""The classifier and the explainer of a case, in the form that Quantus expects."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import nn

from xbench import Batch, Case, Explanation, PluginError, class_scores
from xbench.runtime.devices import upload


class _Scores(nn.Module):
    """Class scores of images, computed by a function that holds the network."""

    def __init__(self, score: Callable[[torch.Tensor], torch.Tensor], softmax: bool) -> None:
        super().__init__()
        self._score, self._softmax = score, softmax

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the class scores: (n, C, H, W) -> (n, K)."""
        return _two_or_more(self._score(images), self._softmax)


class _TwoScores(nn.Module):
    """A network of one logit, with two class scores."""

    def __init__(self, classifier: nn.Module, softmax: bool) -> None:
        super().__init__()
        self.classifier, self._softmax = classifier, softmax

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the class scores: (n, C, H, W) -> (n, 2)."""
        return _two_or_more(self.classifier(images), self._softmax)


def _two_or_more(logits: torch.Tensor, softmax: bool) -> torch.Tensor:
    """Return class scores. Those of one logit are halved if a softmax follows, which then equals its sigmoid."""
    scores = class_scores(logits)
    return scores / 2 if softmax and logits.shape[1] == 1 else scores


class Networks:
    """The model that Quantus is given, and the maps that it asks for.

    Args:
        case: The case to score.
        softmax: Whether Quantus will apply a softmax to the model's output.
        of_module: Whether the metric changes or inspects the network. If not, it gets the fastest copy as a function.
    """

    def __init__(self, case: Case, softmax: bool, of_module: bool) -> None:
        self.device = case.session.device
        self.classes = len(case.info.classes)
        self._case = case
        if not of_module:
            self._network: nn.Module = _Scores(case.logits_of, softmax).eval()
        elif case.logits.shape[1] == 1:
            self._network = _TwoScores(self._explanation.model, softmax).eval()
        else:
            self._network = self._explanation.model

    @property
    def _explanation(self) -> Explanation:
        if self._case.explanation is None:
            raise PluginError("the case brings no explanation", 'it must, with `needs` "explain"')
        return self._case.explanation

    def maps(self, batch: Batch, images: np.ndarray, targets: np.ndarray, model: nn.Module) -> np.ndarray:
        """Return maps of other images in place of those of a batch: float64 (n, H, W).

        Args:
            batch: Batch whose seeds and ids belong to the images.
            images: (n, C, H, W).
            targets: The class to explain for each image, (n,).
            model: The network that Quantus was given, or a changed copy of it.
        """
        moved = upload(torch.from_numpy(np.array(images, dtype=np.float32)), self.device)
        classes = upload(torch.from_numpy(np.array(targets, dtype=np.int64)), self.device)
        other = None if model is self._network else model
        if isinstance(other, _TwoScores):
            other = other.classifier
        maps = self._explanation.maps(dataclasses.replace(batch, images=moved), classes, other)
        return maps.detach().cpu().double().numpy()

    @contextlib.contextmanager
    def lent(self, wanted: bool) -> Iterator[nn.Module | None]:
        """Yield the network if `wanted`, and clear the caches of two methods in which Quantus would keep it."""
        from quantus.helpers.model.pytorch_model import PyTorchModel

        try:
            yield self._network if wanted else None
        finally:
            for member in vars(PyTorchModel).values():
                if hasattr(member, "cache_clear"):
                    member.cache_clear()
