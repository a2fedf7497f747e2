"""VINet's network: an importance estimation network, and a classifier that sees only what it lets through."""

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
    """Return softplus(M0), divided by its maximum over each sample's pixels (equations 1 and 2).

    The gradient also passes through the maximum. The ratio is computed as exp(log softplus - max log softplus), so that
    a map of very negative numbers does not become 0/0.

    Args:
        raw: M0, float (N, *spatial).
        shift: Number added to M0. With a shift well above 0, everything is important at the start.

    Returns:
        M, float32 (N, *spatial), in (0, 1], with a maximum of 1 in every sample.
    """
    raw = raw.float() + shift
    # torch.where also passes gradients through the branch not taken, so the clamp keeps log(0) out of it.
    logarithm = torch.where(raw < _EXPONENTIAL, raw, F.softplus(raw.clamp_min(_EXPONENTIAL)).log())
    return (logarithm - logarithm.amax(tuple(range(1, raw.ndim)), keepdim=True)).exp()


class VINetNetwork(nn.Module):
    """Both networks and the destruction between them (Gu et al., VINet, Fig. 2).

    In training, the noise is new at every pass. In evaluation it is a fixed pattern (see `FixedNoise`), or several,
    over which the logits are averaged.

    Args:
        importance: Importance network, (N, C, H, W) -> (N, 1, H, W).
        classifier: Classifier, (N, C, H, W) -> logits (N, K).
        stages: Stages of the classifier whose features are destroyed, in addition to the image.
        options: Resolved options, for activation, shift, resizing of the mask and noise draws.
        seed: Seed of the fixed noise.
        frozen: Whether the classifier is a given one, which is never trained and always in eval mode.
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
        """Set the mode. A frozen classifier stays in eval mode, because its batch norms' statistics must not change."""
        super().train(mode)
        if self.frozen:
            self.classifier.eval()
        return self

    def importance_map(self, images: torch.Tensor) -> torch.Tensor:
        """Return M, float32 (N, H, W), of images (N, C, H, W)."""
        raw = self.importance(images.contiguous(memory_format=torch.channels_last))[:, 0]
        if self._activation == "sigmoid":
            return torch.sigmoid(raw.float() + self._shift)
        return normalised_softplus(raw, self._shift)

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the logits (N, K) and the importance maps (N, H, W) of images (N, C, H, W)."""
        maps = self.importance_map(images)
        return self.read(images, maps), maps

    def read(self, images: torch.Tensor, maps: torch.Tensor) -> torch.Tensor:
        """Return the logits (N, K) of images (N, C, H, W), destroyed where the maps (N, H, W), in [0, 1], are low."""
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
        """Return the logits of what the importance network lets through."""
        return cast("torch.Tensor", self.network(images)[0])


def build_network(options: VINetOptions, info: DatasetInfo, seed: int, given: nn.Module | None = None) -> VINetNetwork:
    """Return an untrained VINet, the same for the same seed.

    Args:
        options: Resolved options.
        info: The dataset, for channels, image size and classes.
        seed: Seed of the initial weights and of the fixed noise.
        given: A private copy of the classifier to explain, or None to build its own.

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
    # Called even if only the image is destroyed, because it checks that the classifier can take such images.
    stages = find_stages(classifier, (info.channels, *info.spatial), options.placement, limit)
    return VINetNetwork(importance, classifier, stages if options.multi_scale else (), options, seed)


def unknown_classifier(name: str) -> str | None:
    """Return None, or a sentence that timm has no such classifier, with similar ones."""
    if timm.is_model(name):
        return None
    return f"timm has no classifier {name!r}: {suggestion(name, timm.list_models())[:200]}"


def _build_classifier(name: str, info: DatasetInfo) -> nn.Module:
    reason = unknown_classifier(name)
    if reason is not None:
        raise UserError(f"vinet: {reason}", "set classifier")
    # No weights: VINet is trained from scratch (section IV-B), and nothing is downloaded.
    return timm.create_model(name, pretrained=False, in_chans=info.channels, num_classes=len(info.classes))
