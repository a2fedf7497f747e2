"""GridNet (Fourure et al., BMVC 2017), in the version of VINet's authors (their `model_cover.py`)."""

from __future__ import annotations

import itertools
from typing import cast

import torch
from torch import nn
from torch.nn import functional as F

from xbench_vinet.segnet import he_initialise

_ROWS = (32, 64, 96, 128, 196)  # channels of each scale, the finest first
_DOWN, _UP = 3, 3  # columns that pass information to coarser scales, then back


class GridNet(nn.Module):
    """A network from images to one channel of the same size, for any size.

    The nodes form a grid of scales (rows) and columns. A node is the sum of its left neighbour, a residual step, and an
    input from another row: from the row above in the first three columns (by a strided convolution), from the row below
    in the last three (by a bilinear resize and a convolution). Every edge is batch norm, leaky ReLU, and a 3x3
    convolution with replicated borders.

    Args:
        channels: Channels of the image.
        width: Factor of the channels of every row; 1 is the authors' network.
    """

    def __init__(self, channels: int, width: float = 1.0) -> None:
        super().__init__()
        rows = [max(1, round(size * width)) for size in _ROWS]
        self.entry = nn.Sequential(_convolution(channels, rows[0]), nn.LeakyReLU())
        # The first column has no left neighbour.
        self.across = nn.ModuleList(nn.ModuleList(_edge(size, size) for size in rows) for _ in range(_DOWN + _UP - 1))
        steps = list(itertools.pairwise(rows))
        self.down = nn.ModuleList(nn.ModuleList(_edge(a, b, stride=2) for a, b in steps) for _ in range(_DOWN))
        self.up = nn.ModuleList(nn.ModuleList(_edge(b, a) for a, b in steps) for _ in range(_UP))
        self.exit = _convolution(rows[0], 1)
        self.apply(he_initialise)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the output, any real number: (N, C, H, W) -> (N, 1, H, W)."""
        column = [self.entry(images)]
        for down in _columns(self.down)[0]:
            column.append(down(column[-1]))
        for index, across in enumerate(_columns(self.across), start=1):
            column = [node + edge(node) for node, edge in zip(column, across, strict=True)]
            if index < _DOWN:
                for row, down in enumerate(_columns(self.down)[index]):
                    column[row + 1] = column[row + 1] + down(column[row])
            else:
                edges = _columns(self.up)[index - _DOWN]
                for row in reversed(range(len(edges))):
                    coarse = F.interpolate(column[row + 1], column[row].shape[2:], mode="bilinear", align_corners=False)
                    column[row] = column[row] + edges[row](coarse)
        return cast("torch.Tensor", self.exit(column[0]))


def _columns(grid: nn.ModuleList) -> list[list[nn.Module]]:
    return [list(cast("nn.ModuleList", column)) for column in grid]


def _edge(before: int, after: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.BatchNorm2d(before, momentum=0.05), nn.LeakyReLU(), _convolution(before, after, stride))


def _convolution(before: int, after: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(before, after, 3, stride, padding=1, padding_mode="replicate")
