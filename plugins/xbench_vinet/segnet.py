"""SegNet (Badrinarayanan et al., IEEE TPAMI 2017): VGG-16 and its mirror image, with un-pooling to the maxima."""

from __future__ import annotations

import itertools

import torch
from torch import nn

# Output channels of the 13 convolutions of VGG-16, by the pooling that ends their block.
_BLOCKS = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))


class SegNet(nn.Module):
    """A network from images to one channel of the same size.

    Sizes need not be even, because un-pooling restores the stored size. The smallest side is 32, for five halvings.

    Args:
        channels: Channels of the image.
        width: Factor of the channels of every layer; 1 is the published network.
    """

    smallest = 2 ** len(_BLOCKS)

    def __init__(self, channels: int, width: float = 1.0) -> None:
        super().__init__()
        blocks = [[max(1, round(size * width)) for size in block] for block in _BLOCKS]
        inputs = [channels, *(block[-1] for block in blocks)]
        self.encoder = nn.ModuleList(_block([first, *block]) for first, block in zip(inputs, blocks, strict=False))
        # The mirror image: a block ends with the input channels of its twin, and the last block with one channel.
        mirrored = [[*reversed(block), first] for first, block in zip(inputs, blocks, strict=False)]
        mirrored[0][-1] = 1
        self.decoder = nn.ModuleList(_block(sizes, last=index == 0) for index, sizes in enumerate(mirrored))
        self.pool = nn.MaxPool2d(2, return_indices=True)
        self.unpool = nn.MaxUnpool2d(2)
        self.apply(he_initialise)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the output, any real number: (N, C, H, W) -> (N, 1, H, W)."""
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
    """Initialise as in He et al. 2015, which Gu et al. name (section IV-B), with biases of zero."""
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)
