"""Masks and depth maps of outlines whose area is known."""

from typing import Any

import numpy as np
import pytest
from scipy.ndimage import binary_dilation

from xbench_lidc.lesion import Findings, add_nodule, depth_map
from xbench_lidc.outlines import Patch, consensus
from xbench_lidc.records import Annotation, Contour, Nodule, Ratings, Scan
from xbench_lidc.tissue import lung

RATINGS = Ratings(5, 1, 6, 5, 5, 1, 1, 5, 3)


def nodule(*readers: Any, spacing: float = 0.7, ratings: Any = RATINGS) -> Nodule:
    """One reader's contours on slice 0 are a list of (points, inclusion)."""
    annotations = tuple(
        Annotation(number, ratings, tuple(Contour(0, inclusion, np.asarray(points)) for points, inclusion in contours))
        for number, contours in enumerate(readers)
    )
    return Nodule(Scan("1.2.3", "LIDC-IDRI-0000", 2.5, spacing, False, np.arange(3.0)), annotations)


def square(low: int, high: int) -> list[tuple[int, int]]:
    return [(low, low), (low, high), (high, high), (high, low)]


def circle(radius: float, centre: int = 100) -> np.ndarray:
    """The pixels next outside a disk, as LIDC's readers drew them."""
    row, column = np.indices((2 * centre + 1, 2 * centre + 1)) - centre
    disk = np.hypot(row, column) <= radius
    rim = np.argwhere(binary_dilation(disk) & ~disk)
    return rim[np.argsort(np.arctan2(*(rim - centre).T))]


def patch(
    size: int = 64, spacing: float = 0.7, centre: tuple[float, float] = (15.0, 15.0), pixel_spacing: float = 0.7
) -> Patch:
    return Patch(size, spacing, centre, pixel_spacing)


class TestConsensus:
    def test_square(self) -> None:
        """The outline itself is outside: corners 10 and 20 leave 11..19."""
        outline = consensus(nodule([(square(10, 20), True)]), 0)
        expected = np.zeros((11, 11), dtype=bool)
        expected[1:-1, 1:-1] = True
        assert np.array_equal(outline.mask, expected)
        assert outline.origin == (10, 10)

    def test_half_of_the_readers(self) -> None:
        """Nested squares: the 50 % consensus of four is the second largest, of three likewise, of five the third."""
        nested = [[(square(10 - extra, 20 + extra), True)] for extra in range(5)]
        for readers, sides in ((2, 9 + 2), (3, 9 + 2), (4, 9 + 4), (5, 9 + 4)):
            assert consensus(nodule(*nested[:readers]), 0).mask.sum() == sides**2

    def test_a_reader_who_drew_nothing_there_counts(self) -> None:
        absent = [(square(0, 5), True)]
        one = nodule([(square(10, 20), True)], absent, absent)
        assert consensus(one, 0).mask.sum() == 4**2
        assert consensus(one, 0).share.max() == pytest.approx(2 / 3)

    def test_hole(self) -> None:
        """The rim of a hole is not the nodule's either."""
        outline = consensus(nodule([(square(13, 17), False), (square(10, 20), True)]), 0)
        assert outline.mask.sum() == 9**2 - 5**2 + (
            5**2 - 3**2 - 4
        )  # all of the rim but its four corner points is kept

    def test_nothing_drawn(self) -> None:
        assert not consensus(nodule([(square(10, 20), True)]), 1).mask.any()


class TestSampling:
    def test_same_grid(self) -> None:
        mask = consensus(nodule([(square(10, 20), True)]), 0).sample(patch(size=63))
        assert mask.sum() == 81
        assert np.argwhere(mask).mean(axis=0).tolist() == [31, 31]

    def test_half_the_spacing_has_four_times_the_pixels(self) -> None:
        mask = consensus(nodule([(square(10, 20), True)]), 0).sample(patch(spacing=0.35))
        assert mask.sum() == 4 * 81

    def test_off_the_middle(self) -> None:
        mask = consensus(nodule([(square(10, 20), True)]), 0).sample(patch(size=63, centre=(12.0, 20.0)))
        assert np.argwhere(mask).mean(axis=0).tolist() == [31 + 3, 31 - 5]

    def test_reaching_over_the_patch(self) -> None:
        mask = consensus(nodule([(square(-80, 110), True)]), 0).sample(patch())
        assert mask.all()

    @pytest.mark.parametrize("pixel_spacing", [0.5, 0.7, 0.95])
    @pytest.mark.parametrize("radius", [5.0, 9.0])
    def test_area_in_square_millimetres(self, pixel_spacing: float, radius: float) -> None:
        """Right on average over where the centre falls between the pixels: nearest neighbours skip or repeat a row."""
        one = nodule([(circle(radius / pixel_spacing), True)], spacing=pixel_spacing)
        outline, spacing = consensus(one, 0), 45 / 64
        centres = 100 + np.random.default_rng(0).uniform(-0.5, 0.5, (200, 2))
        pixels = [outline.sample(patch(64, spacing, tuple(centre), pixel_spacing)).sum() for centre in centres]
        assert np.mean(pixels) * spacing**2 == pytest.approx(np.pi * radius**2, rel=0.03)
        assert one.diameter == pytest.approx(2 * radius + pixel_spacing, abs=pixel_spacing)


class TestDepth:
    def test_of_a_disk(self) -> None:
        """Radius less distance from the centre, within a pixel."""
        grid = patch(spacing=45 / 64, centre=(100.0, 100.0), pixel_spacing=0.6)
        depth = depth_map(consensus(nodule([(circle(15), True)], spacing=0.6), 0), grid)
        y, x = np.meshgrid(grid.offsets, grid.offsets, indexing="ij")
        assert np.abs(depth - (15 * 0.6 - np.hypot(y, x))).max() < 0.6

    def test_a_nodule_of_one_pixel_shows(self) -> None:
        depth = depth_map(consensus(nodule([(square(14, 16), True)]), 0), patch(size=63))
        assert depth.argmax() == 31 * 63 + 31
        assert depth.max() > 0

    def test_off_the_patch(self) -> None:
        outline = consensus(nodule([(square(400, 420), True)]), 0)
        assert depth_map(outline, patch()).max() < 0


class TestNodule:
    @staticmethod
    def rendered(**changes: Any) -> tuple[np.ndarray, Any]:
        grid = patch(spacing=45 / 64, centre=(100.0, 100.0))
        values = dict(zip(RATINGS.__dataclass_fields__, RATINGS.__dict__.values(), strict=True)) | changes
        one = nodule([(circle(12), True)], ratings=Ratings(**values))
        outline = consensus(one, 0)
        tissue = np.full((64, 64), -850.0)
        depth = depth_map(outline, grid)
        return add_nodule(tissue, depth, grid.offsets, Findings.of(one), np.random.default_rng(0)), depth

    def test_texture_is_attenuation(self) -> None:
        """From ground glass to solid; the core is denser than the rim in between."""
        means = []
        for texture in (1, 2, 3, 4, 5):
            values, depth = self.rendered(texture=texture)
            means.append(values[depth > 0.5].mean())
        assert np.all(np.diff(means) > 0)
        assert -700 < means[0] < -500
        assert means[-1] > -60
        values, depth = self.rendered(texture=3)
        assert values[depth > 6].mean() > values[(depth > 1) & (depth < 2)].mean() + 200

    def test_margin_is_sharpness(self) -> None:
        sharp, depth = self.rendered(margin=5)
        blurred, _ = self.rendered(margin=1)
        outside = (depth < -0.8) & (depth > -2.5)
        assert blurred[outside].mean() > sharp[outside].mean() + 50

    def test_spiculation_reaches_out(self) -> None:
        reach = []
        for spiculation in (1, 3, 5):
            values, depth = self.rendered(spiculation=spiculation)
            reach.append((values[(depth < -2) & (depth > -6)] > -600).mean())
        assert reach[0] == 0
        assert reach[0] < reach[1] < reach[2]

    @pytest.mark.parametrize("pattern", [1, 2, 3, 4, 5])
    def test_calcium_is_bright_and_inside(self, pattern: int) -> None:
        values, depth = self.rendered(calcification=pattern)
        assert values[depth > 0].max() > 400
        assert values[depth < -1.5].max() < 100
        assert self.rendered()[0].max() < 200

    def test_air_inside(self) -> None:
        values, depth = self.rendered(internal_structure=4)
        assert values[depth > 6].mean() < -700


def test_lung_looks_like_lung() -> None:
    """Most of it aerated, some of it vessels, on any grid."""
    for size, extent in ((64, 45.0), (32, 20.0), (128, 90.0)):
        offsets = (np.arange(size) - (size - 1) / 2) * extent / size
        values = np.stack([lung(offsets, np.random.default_rng(seed)) for seed in range(12)])
        assert -900 < np.median(values) < -780
        assert 0.03 < (values > -400).mean() < 0.4
