"""Label maps of an image at several scales, computed once per image for all explainers and metrics."""

from __future__ import annotations

import functools

import numpy as np
from scipy import ndimage
from skimage.segmentation import felzenszwalb
from skimage.transform import resize

from xbench import ImageFeature, UserError
from xbench_regions.options import REFERENCE_SIDE

# Scales of the authors' package.
SCALES = (50.0, 100.0, 150.0, 250.0, 500.0, 1200.0)
_WORKING_SHAPE = (REFERENCE_SIDE, REFERENCE_SIDE)


class Regions(ImageFeature):
    """Felzenszwalb's over-segmentations of an image: int32 (S, H, W), a label map 0, 1, ... per scale.

    This is the recipe of the paper's authors, with the same labels. The image's values are stretched to [-1, 1], all
    channels together. It is resized to 224 x 224 (bicubic, anti-aliased) and segmented at each scale (Felzenszwalb and
    Huttenlocher 2004). The labels are resized back by nearest neighbour, where small images may lose a label.

    A constant image is one region. The authors' code segments NaN there.

    Args:
        scale: Factor of the paper's six scales.
        sigma: Standard deviation of the blur before the segmentation, in pixels of 224 x 224.
        min_size: Size of the smallest region, in pixels of 224 x 224.
    """

    def __init__(self, scale: float = 1.0, sigma: float = 0.8, min_size: int = 150) -> None:
        scales = [scale * value for value in SCALES]
        super().__init__("xrai-regions", {"scales": scales, "sigma": sigma, "min_size": min_size}, "int32")
        self.scales, self.sigma, self.min_size = scales, sigma, min_size

    def shape(self, spatial: tuple[int, ...]) -> tuple[int, ...]:
        """Return (S, H, W).

        Raises:
            UserError: The images are not two-dimensional.
        """
        if len(spatial) != 2:
            raise UserError(
                f"XRAI's regions are made from two-dimensional images, these have {len(spatial)} spatial axes",
                "leave out xrai for this dataset",
            )
        return (len(self.scales), *spatial)

    def compute(self, image: np.ndarray) -> np.ndarray:
        """Return the label maps: float32 (C, H, W) -> int32 (S, H, W). Two threads do 1.6 times the work of one."""
        shape = self.shape(image.shape[1:])
        low, high = image.min(), image.max()
        if low == high:
            return np.zeros(shape, dtype=np.int32)
        # Without the axis of a single channel, the labels are the same and resizing is several times faster.
        picture = image[0] if len(image) == 1 else np.moveaxis(image, 0, -1)
        picture = (picture - low) / (high - low) * 2 - 1
        picture = _resized(picture, _WORKING_SHAPE, order=3, anti_aliasing=True).astype(np.float64)
        # felzenszwalb() would blur again for each scale, so a sigma of 0 turns off its own blur.
        picture = ndimage.gaussian_filter(picture, self.sigma, axes=(0, 1))
        segmented = [felzenszwalb(picture, scale=scale, sigma=0, min_size=self.min_size) for scale in self.scales]
        back = _nearest(shape[1], shape[2])
        return np.stack([labels.ravel()[back] for labels in segmented]).astype(np.int32)


@functools.lru_cache(maxsize=4)
def _nearest(height: int, width: int) -> np.ndarray:
    """Return which pixel of 224 x 224 each pixel takes its label from: int64 (H, W), for all scales and images."""
    pixels = np.arange(REFERENCE_SIDE**2).reshape(_WORKING_SHAPE)
    taken = _resized(pixels, (height, width), order=0, anti_aliasing=False)
    taken.flags.writeable = False
    return taken


def _resized(values: np.ndarray, shape: tuple[int, int], order: int, anti_aliasing: bool) -> np.ndarray:
    resized: np.ndarray = resize(  # type: ignore[no-untyped-call]
        values, shape, order=order, mode="constant", preserve_range=True, anti_aliasing=anti_aliasing
    )
    return resized
