"""The classifier and the explainer of a case, as Quantus wants them."""

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
    """Class scores of images, by a function that holds the network."""

    def __init__(self, score: Callable[[torch.Tensor], torch.Tensor], softmax: bool) -> None:
        super().__init__()
        self._score, self._softmax = score, softmax

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(n, C, H, W) -> (n, K)."""
        return _two_or_more(self._score(images), self._softmax)


class _TwoScores(nn.Module):
    """A network of one logit as one of two."""

    def __init__(self, classifier: nn.Module, softmax: bool) -> None:
        super().__init__()
        self.classifier, self._softmax = classifier, softmax

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(n, C, H, W) -> (n, 2)."""
        return _two_or_more(self.classifier(images), self._softmax)


def _two_or_more(logits: torch.Tensor, softmax: bool) -> torch.Tensor:
    """Class scores; halved where the softmax of those of one logit must be its sigmoid."""
    scores = class_scores(logits)
    return scores / 2 if softmax and logits.shape[1] == 1 else scores


class Networks:
    """What Quantus is given as the model, and what answers for it when it asks for maps.

    Args:
        case: What is scored.
        softmax: Whether Quantus will put a softmax behind the model.
        of_module: Whether it changes or looks into the network; else it gets the fastest copy of it, as a function.
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
        """Maps of other images in the place of those of a batch: float64 (n, H, W).

        Args:
            batch: Whose seeds and ids go with the images.
            images: (n, C, H, W).
            targets: (n,).
            model: The network that Quantus was given, or a changed copy of it.
        """
        moved = upload(torch.from_numpy(np.array(images, dtype=np.float32)), self.device)
        classes = upload(torch.from_numpy(np.array(targets, dtype=np.int64)), self.device)
        other = None if model is self._network else model
        if isinstance(other, _TwoScores):
            other = other.classifier
        made = self._explanation.maps(dataclasses.replace(batch, images=moved), classes, other)
        return made.detach().cpu().double().numpy()

    @contextlib.contextmanager
    def lent(self, wanted: bool) -> Iterator[nn.Module | None]:
        """The network if wanted; what Quantus would keep of it for ever, in caches of two methods, is given back."""
        from quantus.helpers.model.pytorch_model import PyTorchModel

        try:
            yield self._network if wanted else None
        finally:
            for member in vars(PyTorchModel).values():
                if hasattr(member, "cache_clear"):
                    member.cache_clear()
