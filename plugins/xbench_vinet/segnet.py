"""SegNet (Badrinarayanan et al., IEEE TPAMI 2017): VGG-16 there and back, un-pooling to where a maximum came from."""

from __future__ import annotations

import itertools

import torch
from torch import nn

# Output channels of the 13 convolutions of VGG-16, by the pooling that ends their block.
_BLOCKS = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))


class SegNet(nn.Module):
    """Images to one channel of the same size.

    Sizes need not be even: un-pooling goes back to the stored size. The smallest side is 32, five halvings.

    Args:
        channels: Of the image.
        width: Multiplies the channels of every layer; 1 is the published network.
    """

    smallest = 2 ** len(_BLOCKS)

    def __init__(self, channels: int, width: float = 1.0) -> None:
        super().__init__()
        blocks = [[max(1, round(size * width)) for size in block] for block in _BLOCKS]
        inputs = [channels, *(block[-1] for block in blocks)]
        self.encoder = nn.ModuleList(_block([first, *block]) for first, block in zip(inputs, blocks, strict=False))
        # The mirror image: a block ends on the channels that its twin was given, the last on the one channel wanted.
        mirrored = [[*reversed(block), first] for first, block in zip(inputs, blocks, strict=False)]
        mirrored[0][-1] = 1
        self.decoder = nn.ModuleList(_block(sizes, last=index == 0) for index, sizes in enumerate(mirrored))
        self.pool = nn.MaxPool2d(2, return_indices=True)
        self.unpool = nn.MaxUnpool2d(2)
        self.apply(he_initialise)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) -> (N, 1, H, W), any real number."""
        features = images
        pooled = []
        for block in self.encoder:
            features = block(features)
            size = features.shape[2:]
            features, indices = self.pool(features)
            pooled.append((indices, size))
        for block, (indices, size) in zip(reversed(self.decoder), reversed(pooled), strict=True):
            features = block(self.unpool(features, indices, output_size=size))
        return features


def _block(sizes: list[int], last: bool = False) -> nn.Sequential:
    layers: list[nn.Module] = []
    for before, after in itertools.pairwise(sizes):
        layers += [nn.Conv2d(before, after, 3, padding=1), nn.BatchNorm2d(after), nn.ReLU()]
    return nn.Sequential(*(layers[:-2] if last else layers))


def he_initialise(module: nn.Module) -> None:
    """He et al. 2015, the initialisation that Gu et al. name (section IV-B); biases start at nought."""
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)
