"""Trainable attention (Jetley et al. 2018): a classifier that reads through its own maps, and an explainer of them."""

from __future__ import annotations

from typing import cast

import torch
from torch import nn
from torch.nn import functional as F

from xbench import DatasetInfo, Explainer, Model, UserError
from xbench_learned.options import AttentionModelOptions, AttentionOptions

STAGES = 3
"""Number of last stages with attention (Jetley et al.: VGG-att3)."""

_CONVOLUTION = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
_BATCH_NORM = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
_MAX_POOL = {1: nn.MaxPool1d, 2: nn.MaxPool2d, 3: nn.MaxPool3d}
_INTERPOLATION = {1: "linear", 2: "bilinear", 3: "trilinear"}
_ORDER = ("first", "second", "third")


class AttentionGate(nn.Module):
    """Attention over the positions of one stage (Jetley et al., section 3).

    Local features l_i are projected to the length F of the global features g if theirs differs, compared with g, and
    pooled by their compatibility:

        c_i = <u, l_i + g>  ("pc", u learned)   or   c_i = <l_i, g>  ("dp")
        a   = softmax(c) over the n positions,  g_a = sum_i a_i l_i

    With "pc", <u, g> is the same number at every position, which does not change a softmax, so a depends on l alone. So
    <u, g> is left out, and g with it, because layers that make g could never learn anything.
    """

    def __init__(self, channels: int, features: int, compatibility: str, axes: int) -> None:
        super().__init__()
        convolution = _CONVOLUTION[axes]
        self.project = convolution(channels, features, 1, bias=False) if channels != features else nn.Identity()
        self.u = nn.Linear(features, 1, bias=False) if compatibility == "pc" else None

    def forward(self, local: torch.Tensor, global_features: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
        """Pool one stage.

        Args:
            local: l, (N, channels, *stage).
            global_features: g, (N, F). Not needed for "pc".

        Returns:
            g_a (N, F), and a (N, *stage), positive, with a sum of 1 for every sample.
        """
        stage = local.shape[2:]
        positions = self.project(local).flatten(2)
        if self.u is not None:
            compatibility = (self.u.weight @ positions).squeeze(1)
        else:
            assert global_features is not None
            compatibility = (global_features[:, None] @ positions).squeeze(1)
        attention = compatibility.softmax(1)
        pooled = (positions @ attention[:, :, None]).squeeze(2)
        return pooled, attention.unflatten(1, stage)


class AttentionNetwork(nn.Module):
    """Stages of convolution, batch norm and ReLU with max pooling between them, and attention at the last three.

    The classifier is one dense layer over the three concatenated g_a, so everything that decides passes through the
    attention.

    Args:
        channels: Channels of the images, C.
        classes: Number of classes, K.
        axes: Number of spatial axes, 1 to 3.
        widths: Channels of each stage.
        compatibility: "pc" or "dp". For "dp", g is made from the last stage by pooling, a convolution, the mean over
            positions, and a dense layer.
    """

    def __init__(self, channels: int, classes: int, axes: int, widths: tuple[int, ...], compatibility: str) -> None:
        super().__init__()
        features = widths[-1]
        before = (channels, *widths[:-1])
        self.stages = nn.ModuleList(
            _stage(first, width, axes, pooled=index > 0)
            for index, (first, width) in enumerate(zip(before, widths, strict=True))
        )
        self.gates = nn.ModuleList(AttentionGate(width, features, compatibility, axes) for width in widths[-STAGES:])
        self.summary = _stage(features, features, axes, pooled=True) if compatibility == "dp" else None
        self.descriptor = nn.Linear(features, features) if compatibility == "dp" else None
        self.classifier = nn.Linear(STAGES * features, classes)

    def attend(self, images: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Return the logits (N, K) of images (N, C, *spatial), and the attention a (N, *stage) of three stages."""
        features, local = images, []
        for stage in self.stages:
            features = stage(features)
            local.append(features)
        described = None
        if self.summary is not None and self.descriptor is not None:
            described = F.relu(self.descriptor(self.summary(features).flatten(2).mean(2)))
        gated = [gate(stage, described) for gate, stage in zip(self.gates, local[-STAGES:], strict=True)]
        logits = self.classifier(torch.cat([pooled for pooled, _ in gated], dim=1))
        return logits, [attention for _, attention in gated]

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the logits: (N, C, *spatial) -> (N, K)."""
        return self.attend(images)[0]


class AttentionModel(Model):
    """Jetley et al.'s network at the size of the images here, with 32, 64, 128 and 256 kernels like `convnet`.

    Their own network is a VGG for 32 x 32 photographs, with 15 convolutions of up to 512 kernels.
    """

    options: AttentionModelOptions

    def build(self, info: DatasetInfo) -> nn.Module:
        """Return the network for images of `info`: float32 (N, C, *spatial) in [0, 1] -> logits (N, K).

        Raises:
            UserError: The images have more than three axes, or sides too short to leave a choice at the last stage.
        """
        widths = tuple(int(width) for width in self.options.widths.split(","))
        size = " x ".join(map(str, info.spatial))
        axes, smallest = len(info.spatial), 2 ** len(widths)
        if axes not in _CONVOLUTION:
            raise UserError(f"model attention: images of {size} pixels have {axes} axes", "1, 2 or 3 are allowed")
        if min(info.spatial) < smallest:
            raise UserError(
                f"model attention: images of {size} pixels are too small for {len(widths)} stages",
                f"every side needs {smallest}, or fewer widths",
            )
        return AttentionNetwork(info.channels, len(info.classes), axes, widths, self.options.compatibility)


class Attention(Explainer):
    """The attention maps of `AttentionNetwork`, enlarged to the image (Jetley et al., section 3).

    The maps are unsigned and the same for every class. A stage's map is n a, which is 1 where the attention equals an
    even spread. So the mean over stages gives each stage the same weight. Without the factor, a sums to 1 over fewer
    positions at later stages, so the last stage would dominate. The enlargement is by linear interpolation.

    A map shows where features were taken from, but not for which class they spoke. The features also depend on more of
    the image than the pixel at which they lie.
    """

    signed = False
    options: AttentionOptions

    def supports(self, model: nn.Module, info: DatasetInfo) -> str | None:  # noqa: ARG002
        """Return a reason for every model but `AttentionNetwork`."""
        if isinstance(model, AttentionNetwork):
            return None
        return "needs the model `attention`, whose classifier reads through its own attention maps"

    def attribute(self, model: nn.Module, images: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:  # noqa: ARG002
        """Return the attention maps, (N, *spatial), positive."""
        with torch.no_grad():
            maps = cast("AttentionNetwork", model).attend(images)[1]
        if self.options.stage != "mean":
            maps = [maps[_ORDER.index(self.options.stage)]]
        return torch.stack([_enlarged(attention, images) for attention in maps]).mean(0)


def _stage(channels: int, width: int, axes: int, pooled: bool) -> nn.Sequential:
    layers: list[nn.Module] = [_MAX_POOL[axes](2, ceil_mode=True)] if pooled else []
    # No bias, because the batch norm would remove it.
    layers += [_CONVOLUTION[axes](channels, width, 3, padding=1, bias=False), _BATCH_NORM[axes](width), nn.ReLU()]
    return nn.Sequential(*layers)


def _enlarged(attention: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
    relative = attention[0].numel() * attention.float()
    mode = _INTERPOLATION[attention.ndim - 1]
    return F.interpolate(relative[:, None], size=images.shape[2:], mode=mode, align_corners=False)[:, 0]
