"""Tiny networks, with activations written in every usual style."""

from __future__ import annotations

import itertools
import math

import torch
from torch import nn
from torch.nn import functional as F


class LinearNetwork(nn.Module):
    """A linear network, logits = W x + b, for which every gradient method has a closed form."""

    def __init__(self, channels: int, spatial: tuple[int, ...], outputs: int) -> None:
        super().__init__()
        self.linear = nn.Linear(channels * math.prod(spatial), outputs)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the logits: (N, C, *spatial) -> (N, outputs)."""
        logits: torch.Tensor = self.linear(images.flatten(1))
        return logits


class ConvNetwork(nn.Module):
    """A network of three convolutions, global average pooling and a linear head, for images of at least 8 x 8.

    Args:
        channels: Number of channels, C.
        outputs: Number of logits.
        width: Channels of the first convolution, doubled by each of the others.
        relu: "module" (one nn.ReLU each), "inplace" (the same, in place), "reused" (one nn.ReLU called three times) or
            "functional" (F.relu, which no module hook sees).
        batch_norm: Whether a BatchNorm2d follows each convolution.
    """

    def __init__(
        self, channels: int, outputs: int, width: int = 8, relu: str = "module", batch_norm: bool = False
    ) -> None:
        super().__init__()
        widths = [channels, width, 2 * width, 4 * width]
        self.convolutions = nn.ModuleList(
            nn.Conv2d(before, after, 3, stride=1 if index == 0 else 2, padding=1)
            for index, (before, after) in enumerate(itertools.pairwise(widths))
        )
        self.norms = nn.ModuleList(nn.BatchNorm2d(after) if batch_norm else nn.Identity() for after in widths[1:])
        if relu == "reused":
            self.activations = nn.ModuleList([nn.ReLU()] * 3)
        elif relu == "functional":
            self.activations = nn.ModuleList()
        else:
            self.activations = nn.ModuleList(nn.ReLU(inplace=relu == "inplace") for _ in widths[1:])
        self.head = nn.Linear(widths[-1], outputs)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the logits: (N, C, H, W) -> (N, outputs)."""
        features = images
        for index, (convolution, norm) in enumerate(zip(self.convolutions, self.norms, strict=True)):
            features = norm(convolution(features))
            features = self.activations[index](features) if self.activations else F.relu(features)
        logits: torch.Tensor = self.head(features.mean((2, 3)))
        return logits
