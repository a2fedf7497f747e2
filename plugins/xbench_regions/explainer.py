"""XRAI, which turns another explainer's map into a map of regions."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from xbench import Batch, DatasetInfo, MapTransform
from xbench.runtime.devices import upload
from xbench_regions.greedy import rank_regions
from xbench_regions.membership import RegionSet
from xbench_regions.options import XraiOptions
from xbench_regions.segmentation import Regions


class Xrai(MapTransform):
    """Kapishnikov et al., XRAI: Better Attributions Through Regions (ICCV 2019): `xrai:<explainer>`.

    The image is over-segmented at six scales (`Regions`), and each region is dilated by a disk. Regions are taken one
    after the other, first the region with the highest mean of the inner map over the pixels that it adds. These pixels
    get that mean (`rank_regions`). Signs keep their meaning, so a region against the target stays negative.

    The paper uses integrated gradients over a black and a white baseline as the inner map. The radius of the disk and
    the smallest number of pixels that a region must add are the authors' for 224 x 224, scaled to the image's size.
    With the unscaled numbers at 64 x 64, a perfect map of a nodule has a Dice of at most 0.60.

    The authors' package segments the image for every map, loops over regions and pixels in Python, and takes the
    maximum over channels. Here the channels of maps are summed before.
    """

    options: XraiOptions

    def __init__(self, options: XraiOptions, argument: str = "") -> None:
        super().__init__(options, argument)
        self.feature = Regions(options.scale, options.sigma, options.min_size)

    def supports(self, model: nn.Module, info: DatasetInfo) -> str | None:
        """Return a reason for images that are not two-dimensional."""
        del model
        if len(info.spatial) != 2:
            return f"its regions are made from two-dimensional images, {info.name} has {len(info.spatial)} spatial axes"
        return None

    def transform_batch(self, maps: torch.Tensor, batch: Batch) -> torch.Tensor:
        """Return maps of regions, float32 (N, H, W), from maps (N, H, W) and labels (N, S, H, W) in `batch.feature`."""
        batch = self.ready(batch)
        assert batch.feature is not None
        spatial = tuple(maps.shape[1:])
        radius, least = self.options.radius(spatial), self.options.min_new_pixels(spatial)
        ranked = [
            rank_regions(RegionSet.dilated(labels, radius), attribution, least).map
            for labels, attribution in zip(batch.feature.cpu().numpy(), maps.cpu().numpy(), strict=True)
        ]
        return upload(torch.from_numpy(np.stack(ranked)), maps.device)
