"""The generators: U-Nets that change an image a little (Katzmann et al., section 3.2, Fig. 4)."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F

WIDTHS = (48, 96, 192, 384)
_CONVOLUTIONS = 3  # per stage
_SLOPE = 0.2


class Stage(nn.Sequential):
    """Three times convolution, LeakyReLU and batch norm, in this order (in the classifier: convolution, norm, ReLU).

    The paper gives neither kernel nor slope. Here they are 3 x 3 with padding 1, and 0.2.

    Args:
        before: Input channels.
        width: Output channels.
        stride: Stride of the first convolution.
        track: Whether the batch norms keep running statistics for evaluation.
    """

    def __init__(self, before: int, width: int, stride: int = 1, track: bool = True) -> None:
        layers: list[nn.Module] = []
        for index in range(_CONVOLUTIONS):
            channels, step = (before, stride) if index == 0 else (width, 1)
            layers += [
                nn.Conv2d(channels, width, 3, step, padding=1),
                nn.LeakyReLU(_SLOPE, inplace=True),
                nn.BatchNorm2d(width, track_running_stats=track),
            ]
        super().__init__(*layers)


class Encoder(nn.Module):
    """Four stages. The first convolution of every stage but the first halves the image.

    Args:
        channels: Number of channels, C.
        widths: Channels of the stages.
        track: Whether the batch norms keep running statistics for evaluation.
    """

    def __init__(self, channels: int, widths: Sequence[int], track: bool = True) -> None:
        super().__init__()
        pairs = itertools.pairwise((channels, *widths))
        self.stages = nn.ModuleList(
            Stage(before, width, 1 if index == 0 else 2, track) for index, (before, width) in enumerate(pairs)
        )

    def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
        """Return the features of every stage: (N, C, H, W) -> (N, W_s, H / 2^s, W / 2^s), rounded up."""
        features, out = images, []
        for stage in self.stages:
            features = stage(features)
            out.append(features)
        return out


class Generator(nn.Module):
    """G_k, which changes an image toward class k. 6,583,297 parameters for one channel and full width.

    The decoder enlarges by nearest neighbour, and appends the features of the encoder's stage of the same size before
    each stage. Sides that 8 does not divide are padded by reflection, and cropped at the end.

    Args:
        channels: Number of channels, C.
        widths: Channels of the stages.
        output: Meaning of the last 1 x 1 convolution, which the paper does not give: "sigmoid" for the image itself, in
            [0, 1]; "residual" for a change, clamp(x + tanh(.)), which is zero at the start.
    """

    def __init__(self, channels: int, widths: Sequence[int] = WIDTHS, output: str = "sigmoid") -> None:
        super().__init__()
        self.encoder = Encoder(channels, widths)
        self.decoder = nn.ModuleList(Stage(deep + skip, skip) for skip, deep in reversed([*itertools.pairwise(widths)]))
        self.head = nn.Conv2d(widths[0], channels, 1)
        self._residual = output == "residual"
        self._factor = 2 ** (len(widths) - 1)
        if self._residual:
            nn.init.zeros_(self.head.weight)
            nn.init.zeros_(self.head.bias)  # type: ignore[arg-type]

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the changed images: (N, C, H, W) in [0, 1] -> float32 (N, C, H, W) in [0, 1]."""
        height, width = images.shape[-2:]
        padding = (0, -width % self._factor, 0, -height % self._factor)
        *skips, features = self.encoder(F.pad(images, padding, mode="reflect") if any(padding) else images)
        for stage, skip in zip(self.decoder, reversed(skips), strict=True):
            features = stage(torch.cat([F.interpolate(features, scale_factor=2.0, mode="nearest"), skip], dim=1))
        raw: torch.Tensor = self.head(features)[..., :height, :width].float()
        if self._residual:
            return (images.float() + raw.tanh()).clamp(0, 1)
        return raw.sigmoid()
