"""Trainable attention (Jetley et al. 2018): a classifier that reads through its own maps, and those maps."""

from __future__ import annotations

from typing import cast

import torch
from torch import nn
from torch.nn import functional as F

from xbench import DatasetInfo, Explainer, Model, UserError
from xbench_learned.options import AttentionModelOptions, AttentionOptions

STAGES = 3
"""How many of the last stages have attention (Jetley et al.: VGG-att3)."""

_CONVOLUTION = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
_BATCH_NORM = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
_MAX_POOL = {1: nn.MaxPool1d, 2: nn.MaxPool2d, 3: nn.MaxPool3d}
_INTERPOLATION = {1: "linear", 2: "bilinear", 3: "trilinear"}
_ORDER = ("first", "second", "third")


class AttentionGate(nn.Module):
    """Attention over the positions of one stage (Jetley et al., section 3).

    Local features l_i, projected to the length F of the global ones g where theirs differs, are compared with g, and
    pooled by how compatible they are:

        c_i = <u, l_i + g>  ("pc", u learned)   or   c_i = <l_i, g>  ("dp")
        a   = softmax(c) over the n positions,  g_a = sum_i a_i l_i

    With "pc", <u, g> is the same number at every position, and a softmax does not see it: a depends on l alone. So it
    is left out, and g with it: layers that make g could never learn anything.
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
            global_features: g, (N, F); not needed for "pc".

        Returns:
            g_a (N, F) and a (N, *stage), positive, with a sum of 1 in every row.
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
    """Stages of convolution, batch norm and ReLU with max pooling between them; attention at the last three.

    The classifier is one dense layer over the three concatenated g_a, so whatever decides passes through the attention.

    Args:
        channels: C of the images.
        classes: K.
        axes: Spatial ones, 1 to 3.
        widths: Channels of each stage.
        compatibility: "pc" or "dp". For "dp", g is made from the last stage: pooling, a convolution, the mean over
            positions, a dense layer.
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
        """Logits (N, K) of images (N, C, *spatial), and what they were read through: a (N, *stage) of three stages."""
        features, local = images, []
        for stage in self.stages:
            features = stage(features)
            local.append(features)
        described = None
        if self.summary is not None and self.descriptor is not None:
            described = F.relu(self.descriptor(self.summary(features).flatten(2).mean(2)))
        read = [gate(stage, described) for gate, stage in zip(self.gates, local[-STAGES:], strict=True)]
        logits = self.classifier(torch.cat([pooled for pooled, _ in read], dim=1))
        return logits, [attention for _, attention in read]

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(N, C, *spatial) -> logits (N, K)."""
        return self.attend(images)[0]


class AttentionModel(Model):
    """Jetley et al.'s network at the size of the images here: 32, 64, 128 and 256 kernels, like `convnet`.

    Theirs is a VGG for 32 x 32 photographs, 15 convolutions of up to 512 kernels.
    """

    options: AttentionModelOptions

    def build(self, info: DatasetInfo) -> nn.Module:
        """The network for images of `info`: float32 (N, C, *spatial) in [0, 1] -> logits (N, K).

        Raises:
            UserError: More than three axes, or sides so short that nothing is left to choose from at the last stage.
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
    """The attention maps of `AttentionNetwork`, enlarged to the image: unsigned, the same for every class.

    A stage's map is n a: 1 where the attention is no more than evenly spread. So the mean over stages gives each of
    them the same weight; a itself, which sums to 1 over ever fewer positions, would leave little but the last stage.
    Enlarged by linear interpolation. Jetley et al., section 3.

    It says where features were taken from, not for which class they spoke, and those features have seen more of the
    image than the pixel they lie at.
    """

    signed = False
    options: AttentionOptions

    def supports(self, model: nn.Module, info: DatasetInfo) -> str | None:  # noqa: ARG002
        """Refuses every model but `AttentionNetwork`."""
        if isinstance(model, AttentionNetwork):
            return None
        return "needs the model `attention`, whose classifier reads through its own attention maps"

    def attribute(self, model: nn.Module, images: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:  # noqa: ARG002
        """(N, *spatial), positive."""
        with torch.no_grad():
            maps = cast("AttentionNetwork", model).attend(images)[1]
        if self.options.stage != "mean":
            maps = [maps[_ORDER.index(self.options.stage)]]
        return torch.stack([_enlarged(attention, images) for attention in maps]).mean(0)


def _stage(channels: int, width: int, axes: int, pooled: bool) -> nn.Sequential:
    layers: list[nn.Module] = [_MAX_POOL[axes](2, ceil_mode=True)] if pooled else []
    # Without a bias: the batch norm takes any away.
    layers += [_CONVOLUTION[axes](channels, width, 3, padding=1, bias=False), _BATCH_NORM[axes](width), nn.ReLU()]
    return nn.Sequential(*layers)


def _enlarged(attention: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
    relative = attention[0].numel() * attention.float()
    mode = _INTERPOLATION[attention.ndim - 1]
    return F.interpolate(relative[:, None], size=images.shape[2:], mode=mode, align_corners=False)[:, 0]
