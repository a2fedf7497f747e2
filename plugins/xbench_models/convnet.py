"""The classifier of Katzmann et al., section 3.2."""

from __future__ import annotations

import math
from collections import OrderedDict

from torch import nn

from xbench import DatasetInfo, Model, UserError

WIDTHS = (32, 64, 128, 256)
_REDUCTION = 2 ** (len(WIDTHS) - 1)
_CONVOLUTION = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
_BATCH_NORM = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}


class ConvNet(Model):
    """Four blocks of convolution, batch norm and ReLU, then one dense layer over the flattened features.

    The blocks have 32, 64, 128 and 256 kernels, with stride 1 in the first and 2 in the others. The paper does not give
    the size of the kernels; here it is 3 with padding 1. There are 421 570 parameters for 64 x 64 images of one channel
    and two classes.
    """

    def build(self, info: DatasetInfo) -> nn.Module:
        """Return the network for images of `info`: float32 (N, C, *spatial) in [0, 1] -> logits (N, K).

        Raises:
            UserError: The images have more than three axes, or a side of less than 8 pixels, too short for the strides.
        """
        size = " x ".join(map(str, info.spatial))
        if len(info.spatial) not in _CONVOLUTION:
            raise UserError(
                f"model convnet: images of {size} pixels have {len(info.spatial)} axes", "1, 2 or 3 are allowed"
            )
        if min(info.spatial) < _REDUCTION:
            raise UserError(f"model convnet: images of {size} pixels are too small", f"every side needs {_REDUCTION}")
        return nn.Sequential(self._layers(info))

    @staticmethod
    def _layers(info: DatasetInfo) -> OrderedDict[str, nn.Module]:
        convolution, batch_norm = _CONVOLUTION[len(info.spatial)], _BATCH_NORM[len(info.spatial)]
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        channels = info.channels
        for index, width in enumerate(WIDTHS, start=1):
            layers[f"conv{index}"] = convolution(channels, width, 3, stride=1 if index == 1 else 2, padding=1)
            layers[f"norm{index}"] = batch_norm(width)
            layers[f"relu{index}"] = nn.ReLU()
            channels = width
        layers["flatten"] = nn.Flatten()
        features = channels * math.prod(math.ceil(side / _REDUCTION) for side in info.spatial)
        layers["dense"] = nn.Linear(features, len(info.classes))
        return layers
