"""VINet: an importance estimation network and the classifier that sees only what it lets through."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Self, cast

import timm
import torch
from torch import nn
from torch.nn import functional as F

from xbench import DatasetInfo, UserError
from xbench.contracts.options import suggestion
from xbench.runtime.randomness import isolated
from xbench_vinet.destruction import INPUT, Destruction, FixedNoise, fresh_noise
from xbench_vinet.importance import build_importance_network
from xbench_vinet.options import VINetOptions
from xbench_vinet.stages import Stage, find_stages

# Below this, softplus(t) = e^t to seven digits, and its logarithm is t itself.
_EXPONENTIAL = -16.0


def normalised_softplus(raw: torch.Tensor, shift: float = 0.0) -> torch.Tensor:
    """Equations 1 and 2: softplus(M0) over its maximum among each sample's pixels; the gradient passes the maximum too.

    Taken as exp(log softplus - max log softplus), so that a map of very negative numbers does not become 0/0.

    Args:
        raw: M0, float (N, *spatial).
        shift: Added to M0; well above 0, everything is important to begin with.

    Returns:
        M, float32 (N, *spatial), in (0, 1], with a maximum of 1 in every sample.
    """
    raw = raw.float() + shift
    # torch.where passes gradients through the branch not taken, hence the clamp: log(0) must not occur in it.
    logarithm = torch.where(raw < _EXPONENTIAL, raw, F.softplus(raw.clamp_min(_EXPONENTIAL)).log())
    return (logarithm - logarithm.amax(tuple(range(1, raw.ndim)), keepdim=True)).exp()


class VINetNetwork(nn.Module):
    """Both networks and the destruction between them (Gu et al., VINet, Fig. 2).

    In training the noise is new at every pass; in evaluation it is a fixed pattern (see `FixedNoise`), or several, over
    which the logits are averaged.

    Args:
        importance: (N, C, H, W) -> (N, 1, H, W).
        classifier: (N, C, H, W) -> logits (N, K).
        stages: Where in the classifier features are destroyed, besides the image.
        options: Activation, shift, resizing of the mask, noise draws; resolved.
        seed: Of the fixed noise.
        frozen: The classifier is a given one: never trained, always in eval mode.
    """

    def __init__(
        self,
        importance: nn.Module,
        classifier: nn.Module,
        stages: Sequence[Stage],
        options: VINetOptions,
        seed: int = 0,
        frozen: bool = False,
    ) -> None:
        super().__init__()
        self.importance = importance
        self.classifier = classifier
        self.stages = tuple(stages)
        self.frozen = frozen
        self._activation = options.activation
        self._shift = float(options.shift or 0.0)
        self._resize = options.mask_resize
        self._fixed = [FixedNoise(seed, draw) for draw in range(options.noise_draws)]
        if frozen:
            classifier.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> Self:
        """As usual, but a frozen classifier stays in eval mode: its batch norms' statistics are not ours to change."""
        super().train(mode)
        if self.frozen:
            self.classifier.eval()
        return self

    def importance_map(self, images: torch.Tensor) -> torch.Tensor:
        """M, float32 (N, H, W), of images (N, C, H, W)."""
        raw = self.importance(images.contiguous(memory_format=torch.channels_last))[:, 0]
        if self._activation == "sigmoid":
            return torch.sigmoid(raw.float() + self._shift)
        return normalised_softplus(raw, self._shift)

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits (N, K) and importance maps (N, H, W) of images (N, C, H, W)."""
        maps = self.importance_map(images)
        return self.read(images, maps), maps

    def read(self, images: torch.Tensor, maps: torch.Tensor) -> torch.Tensor:
        """Logits (N, K) of images (N, C, H, W), destroyed where the maps (N, H, W), in [0, 1], are low."""
        if self.training:
            return self._classify(Destruction(maps[:, None], fresh_noise, self._resize), images)
        draws = [self._classify(Destruction(maps[:, None], noise, self._resize), images) for noise in self._fixed]
        return torch.stack(draws).mean(0)

    def _classify(self, destruction: Destruction, images: torch.Tensor) -> torch.Tensor:
        destroyed = destruction(images, INPUT).contiguous(memory_format=torch.channels_last)
        context: AbstractContextManager[None] = (
            destruction.inside(self.classifier, self.stages) if self.stages else nullcontext()
        )
        with context:
            return cast("torch.Tensor", self.classifier(destroyed))


class OwnClassifier(nn.Module):
    """VINet as a plain classifier: images (N, C, H, W) -> logits (N, K)."""

    def __init__(self, network: VINetNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """The logits of what the importance network lets through."""
        return cast("torch.Tensor", self.network(images)[0])


def build_network(options: VINetOptions, info: DatasetInfo, seed: int, given: nn.Module | None = None) -> VINetNetwork:
    """An untrained VINet, the same for the same seed.

    Args:
        options: Resolved.
        info: Channels, image size and classes.
        seed: Of the initial weights and of the fixed noise.
        given: The classifier to explain, a private copy; None for one of its own.

    Raises:
        UserError: A name is unknown, or a network can't take such images.
    """
    with isolated(seed, "initialisation"):
        importance = build_importance_network(
            str(options.importance), options.encoder, info.channels, float(options.width or 1.0), info.spatial
        )
        if given is not None:
            return VINetNetwork(importance, given, (), options, seed, frozen=True)
        classifier = _build_classifier(str(options.classifier), info)
    limit = None if options.max_reduction == "none" else options.max_reduction
    # Run even where the image alone is destroyed: it shows whether the classifier can take such images.
    stages = find_stages(classifier, (info.channels, *info.spatial), options.placement, limit)
    return VINetNetwork(importance, classifier, stages if options.multi_scale else (), options, seed)


def unknown_classifier(name: str) -> str | None:
    """None, or a sentence that says that timm has no such classifier and which it has."""
    if timm.is_model(name):
        return None
    return f"timm has no classifier {name!r}: {suggestion(name, timm.list_models())[:200]}"


def _build_classifier(name: str, info: DatasetInfo) -> nn.Module:
    reason = unknown_classifier(name)
    if reason is not None:
        raise UserError(f"vinet: {reason}", "set classifier")
    # No weights: VINet is trained from scratch (section IV-B), and nothing is downloaded.
    return timm.create_model(name, pretrained=False, in_chans=info.channels, num_classes=len(info.classes))
