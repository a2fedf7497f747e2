"""The metric `dice`: overlap of the regions that a map ranks highest with the expert's mask."""

from __future__ import annotations

from typing import Any

import numpy as np

from xbench import Batch, Case, Curves, DatasetInfo, Metric, Observations
from xbench_regions.greedy import rank_regions
from xbench_regions.membership import RegionSet
from xbench_regions.options import DiceOptions
from xbench_regions.segmentation import Regions

_ROUNDING = 1e-9  # tolerance of a position in the order of pixels


class Dice(Metric):
    """Dice of the expert's mask and the map's regions, at the best displayed area (Brocki et al., section 3.3).

    The image, not the map, is cut into regions. They are ranked by the map's mean over them, as in XRAI (`Regions`,
    `rank_regions`), so that any map becomes a map of regions, R. For each p of a grid of areas, X_p = {R >=
    percentile(R, 100 - p)} is displayed, and Dice_p = 2 |X_p and m| / (|X_p| + |m|). The value is the maximum over p of
    the mean of Dice_p over images. So there is one p for all images, and the value is less than the mean of each
    image's own maximum (`best`).

    The regions cannot follow every mask, and one p cannot fit masks of every size. So not even the mask itself, used as
    the map, reaches 1. Its value, `ceiling`, is computed once per classifier and kept beside the observations. At p =
    100 %, any map has 2 |m| / (n + |m|). The pixels of a region are tied, so X_p may be larger than p. Its share of the
    image is kept as `displayed`. A constant map displays the whole image at every p.

    Higher is better. Images with a missing, empty or full mask, and constant images, which have no regions, are NaN and
    do not count.
    """

    needs = frozenset({"masks"})
    options: DiceOptions

    def __init__(self, options: DiceOptions, argument: str = "") -> None:
        super().__init__(options, argument)
        self.feature: Regions = Regions(options.scale, options.sigma, options.min_size)

    def supports(self, info: DatasetInfo) -> str | None:
        """Return a reason for images that are not two-dimensional."""
        if len(info.spatial) != 2:
            return f"its regions are made from two-dimensional images, {info.name} has {len(info.spatial)} spatial axes"
        return None

    def prepare(self, case: Case) -> dict[str, np.ndarray]:
        """Return Dice of the mask itself, taken as the map.

        Returns:
            ceiling: Dice at each area, float64 (N, P). NaN for an image that is not used.
        """

        def of_masks(start: int, stop: int) -> dict[str, np.ndarray]:
            batch, labels = self._regions(case, start, stop)
            dice, _ = self._overlap(labels, batch.masks.float().numpy(), batch.masks.numpy(), _usable(batch))
            return {"ceiling": dice}

        return case.observed(of_masks, "dice: ceiling")

    def observe(self, case: Case) -> dict[str, np.ndarray]:
        """Return Dice at every area of each image.

        Returns:
            dice: Dice at each area of the grid, float64 (N, P).
            displayed: Displayed share of the image, float64 (N, P).
            best: The image's own maximum, float64 (N,).
            ceiling: Dice of the mask itself, float64 (N, P).
            used: Whether the image counts, bool (N,).
        """
        ceiling = case.prepared["ceiling"]
        used = ~np.isnan(ceiling[:, 0])

        def of_maps(start: int, stop: int) -> dict[str, np.ndarray]:
            batch, labels = self._regions(case, start, stop)
            maps = np.asarray(case.maps[start:stop])
            dice, displayed = self._overlap(labels, maps, batch.masks.numpy(), used[start:stop])
            return {"dice": dice, "displayed": displayed, "best": dice.max(1)}

        return case.observed(of_maps, "dice") | {"ceiling": ceiling, "used": used}

    def summarise(self, observations: Observations) -> float:
        """Return the highest point of the mean curve, or NaN if no image is used."""
        dice, used = observations["dice"], observations["used"]
        return float(dice[used].mean(0).max()) if used.any() else float("nan")

    def curves(self, observations: Observations) -> Curves | None:
        """Return the mean Dice at each area, of the map and of the mask itself. The map's maximum is the value."""
        used = observations["used"]
        if not used.any():
            return None
        return Curves(
            x=np.array(self.options.grid),
            y={"map": observations["dice"][used].mean(0), "mask as map": observations["ceiling"][used].mean(0)},
            x_label="image displayed, most important regions first (%)",
            y_label="Dice with the expert's mask",
        )

    def card(self, info: DatasetInfo) -> dict[str, Any]:
        """Return what the value means."""
        return {
            "score": "Dice of the displayed regions and the mask",
            "mask": "the expert's; images without one, with an empty or full one, or of one value do not count",
            "map": "as it is; a region's rank is its mean over the pixels that the region adds",
            "regions": self.feature.parameters,
            "dilation": self.options.radius(info.spatial),
            "min_pixel_diff": self.options.min_new_pixels(info.spatial),
            "displayed": "pixels >= the (100 - p)th percentile of the region map",
            "ties": "displayed together",
            "areas": list(self.options.grid),
            "aggregation": "mean over images at each area, then the maximum over areas",
        }

    def _regions(self, case: Case, start: int, stop: int) -> tuple[Batch, np.ndarray]:
        """Return a batch of images, and the labels of their regions, int32 (n, S, H, W)."""
        batch = case.split.batch(np.arange(start, stop))
        if case.feature is not None:
            return batch, np.asarray(case.feature[start:stop])
        joined = self.feature.join(batch).feature
        assert joined is not None
        return batch, joined.numpy()

    def _overlap(
        self, labels: np.ndarray, maps: np.ndarray, masks: np.ndarray, used: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return Dice and displayed share of each image at each area: float64 (n, P), NaN where `used` is False."""
        dice, displayed = np.full((2, len(maps), len(self.options.grid)), np.nan)
        if used.any():
            radius, least = self.options.radius(maps.shape[1:]), self.options.min_new_pixels(maps.shape[1:])
            ranked = [
                rank_regions(RegionSet.dilated(labels[index], radius), maps[index], least).map
                for index in np.flatnonzero(used)
            ]
            dice[used], displayed[used] = dice_at(np.stack(ranked), masks[used], self.options.grid)
        return dice, displayed


def dice_at(maps: np.ndarray, masks: np.ndarray, areas: tuple[float, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Return Dice of {map >= percentile(map, 100 - p)} and the mask, and the displayed share of the image, for each p.

    A percentile between two values displays the same as the upper value. So the threshold is a value of the map, at the
    position ceil((1 - p / 100) (n - 1)) of their order, and rounding can't move it.

    Args:
        maps: float32 (n, H, W).
        masks: bool (n, H, W).
        areas: P areas, in percent.

    Returns:
        Dice and displayed share, float64 (n, P) each.
    """
    maps, masks = maps.reshape(len(maps), -1), masks.reshape(len(masks), -1)
    pixels, size = maps.shape[1], masks.sum(1)
    positions = np.ceil((1 - np.array(areas) / 100) * (pixels - 1) - _ROUNDING).astype(np.int64)
    thresholds = np.sort(maps, axis=1)[:, positions]
    dice, displayed = np.empty((2, len(maps), len(areas)))
    for index in range(len(areas)):
        shown = maps >= thresholds[:, index, None]
        number = shown.sum(1)
        dice[:, index] = 2 * (shown & masks).sum(1) / (number + size)
        displayed[:, index] = number / pixels
    return dice, displayed


def _usable(batch: Batch) -> np.ndarray:
    """Return which images have a mask that is neither empty nor full, and more than one value: bool (n,)."""
    masks, images = batch.masks.flatten(1), batch.images.flatten(1)
    usable: np.ndarray = (masks.any(1) & ~masks.all(1) & (images.amin(1) < images.amax(1))).numpy()
    return usable
