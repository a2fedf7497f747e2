"""XRAI's time per map compared with its authors' package, for one and for several maps of an image.

    python benchmarks/performance/xrai.py [--sizes 64 224] [--maps 1 10] [--repeats R]

Both sides get the same image, the same attributions and the authors' own parameters (dilation 5, 50 pixels), so they
do the same work and must give the same maps. The largest difference is printed. The sides are timed in turn on one
thread, and medians are printed.

- `whole`: includes the segmentation of the image. xbench makes it once per image, whatever the number of maps. The
  package makes it for every map.
- `shared`: starts from a finished segmentation. xbench starts from the label maps and dilates them for every map, as
  the explainer does. The package starts from its list of dilated masks, so it has less to do.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np
from saliency.core.xrai import XRAI, XRAIParameters
from scipy.ndimage import gaussian_filter

from xbench_regions.greedy import rank_regions
from xbench_regions.membership import RegionSet
from xbench_regions.segmentation import Regions

RADIUS, MIN_PIXEL_DIFF = 5, 50
Maps = list[np.ndarray]


def timed(work: Callable[[], Maps]) -> tuple[float, Maps]:
    """Return the wall time in seconds, and the result."""
    start = time.perf_counter()
    made = work()
    return time.perf_counter() - start, made


def ours(image: np.ndarray, attributions: Maps, labels: np.ndarray | None = None) -> Maps:
    """Make the maps as the explainer does: the label maps once, the rest for every map."""
    found = Regions().compute(image[None]) if labels is None else labels
    return [rank_regions(RegionSet.dilated(found, RADIUS), values, MIN_PIXEL_DIFF).map for values in attributions]


def theirs(image: np.ndarray, attributions: Maps, masks: Maps | None = None) -> Maps:
    """Make the maps as users of the package do."""
    parameters = XRAIParameters()
    parameters.experimental_params["min_pixel_diff"] = MIN_PIXEL_DIFF
    return [
        XRAI().GetMask(image, None, segments=masks, base_attribution=values, extra_parameters=parameters)
        for values in attributions
    ]


def compare(size: int, count: int, repeats: int) -> None:
    """Print a line for `whole` and one for `shared`."""
    draws = np.random.default_rng(size)
    smooth = gaussian_filter(draws.random((size, size)), 3)
    smooth = (smooth - smooth.min()) / np.ptp(smooth)
    image = (0.95 * smooth + 0.05 * draws.random(smooth.shape)).astype(np.float32)
    attributions = [gaussian_filter(draws.standard_normal((size, size)), 2) for _ in range(count)]
    labels = Regions().compute(image[None])
    masks = list(RegionSet.dilated(labels, RADIUS).masks())
    sides = {
        "whole": (lambda: ours(image, attributions), lambda: theirs(image, attributions)),
        "shared": (lambda: ours(image, attributions, labels), lambda: theirs(image, attributions, masks)),
    }
    for name, (mine, reference) in sides.items():
        pairs = [(timed(mine), timed(reference)) for _ in range(repeats)]
        ms = [1e3 * statistics.median(pair[side][0] for pair in pairs) / count for side in (0, 1)]
        (_, found), (_, expected) = pairs[0]
        difference = max(float(abs(a - b).max()) for a, b in zip(found, expected, strict=True))
        row = f"{size:4d} {count:5d}  {name:8s} {ms[0]:9.1f} {ms[1]:9.1f} {ms[1] / ms[0]:7.1f}  {difference:.0e}"
        print(row, flush=True)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--sizes", type=int, nargs="+", default=[64, 224])
    parser.add_argument("--maps", type=int, nargs="+", default=[1, 10])
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    print("size  maps  regions   ms a map   package  faster  largest difference")
    for size in options.sizes:
        for count in options.maps:
            compare(size, count, options.repeats)


if __name__ == "__main__":
    main()
