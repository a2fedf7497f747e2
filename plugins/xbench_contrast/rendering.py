"""Rendering of a slice through a patient: tissue and enhancement in Hounsfield units, and the exact mask.

Everything is composed by volume: a structure takes a share of a pixel, so thin structures fade as they do in CT. The
agent adds to a pixel in proportion to the share of blood in it. The noise depends on the size of the body, but not on
the agent, so that two slices of one patient, with and without agent, differ in blood alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter
from scipy.special import ndtr

from xbench_contrast.anatomy import ARTERIAL, VENOUS, Anatomy
from xbench_contrast.geometry import View
from xbench_contrast.tissue import fill, tissue
from xbench_contrast.vessels import Beads

LEAST_SHARE = 0.1
"""Least share of blood in a pixel that takes up agent and is in the mask. Smaller shares are below the noise."""
_BLUR, _THICKNESS = 0.7, 2.5
"""Standard deviation of the scanner's blur across an edge, and the thickness of the slice, in mm."""


@dataclass(frozen=True)
class Slice:
    """One level of a patient, without noise.

    Attributes:
        tissue: HU without agent, float64 (size, size).
        enhancement: HU that the agent adds, float64 (size, size); exactly 0 outside the mask.
        mask: Pixels with blood that takes up the agent, bool (size, size).
        body: The body's share of each pixel, float64 (size, size).
    """

    tissue: np.ndarray
    enhancement: np.ndarray
    mask: np.ndarray
    body: np.ndarray


class Scanner:
    """A scanner that makes slices of any patient on one grid.

    Args:
        size: Side of the slice in pixels.
        field_of_view: Side of the slice in mm.
        calibre: Diameter in mm from which the vessels of the lungs take up the agent.
    """

    def __init__(self, size: int, field_of_view: float, calibre: float) -> None:
        self.size, self.spacing, self._calibre = size, field_of_view / size, calibre
        self._offsets = (np.arange(size) - (size - 1) / 2) * self.spacing

    def slice(self, patient: Anatomy, level: float, draw: np.random.Generator) -> Slice:
        """Return one slice.

        Args:
            patient: The patient.
            level: z in the reference chest, mm.
            draw: Generator for the texture of the lungs.
        """
        x, y = self._reference(patient)
        sharp = np.hypot(_BLUR, self.spacing / np.sqrt(12)) / float(np.sqrt(patient.scale.prod()))
        view = View(x, y, level, sharp)
        chambers = view.chambers(patient.heart)
        vessels = view.tubes(patient.vessels)
        plain, body, lung = tissue(view, patient, chambers, vessels, self._texture(draw))
        fine, coarse = self._lung_vessels(patient, level)
        plain = fill(plain, lung * fine, patient.tissues.blood)
        share = np.stack(
            [
                _blood(view, patient, chambers, vessels, lung * coarse[compartment], compartment)
                for compartment in (VENOUS, ARTERIAL)
            ]
        )
        total = 1 - (1 - share[0]) * (1 - share[1])
        mask = total >= LEAST_SHARE
        mixed = np.tensordot(patient.agent, share, axes=1) / np.maximum(share.sum(axis=0), LEAST_SHARE)
        return Slice(fill(plain, total, patient.tissues.blood), np.where(mask, total * mixed, 0.0), mask, body)

    def noise(self, patient: Anatomy, body: np.ndarray, draw: np.random.Generator) -> np.ndarray:
        """Return quantum noise, strongest in the middle of the body, where least arrives: float64 (size, size), HU."""
        noise = gaussian_filter(draw.standard_normal((self.size, self.size)), 0.6, mode="wrap")
        depth = gaussian_filter(body, 40 / self.spacing)
        return np.asarray(patient.noise * (0.4 + 0.6 * depth / depth.max()) * noise / noise.std())

    def _reference(self, patient: Anatomy) -> tuple[np.ndarray, np.ndarray]:
        """Return x and y of the pixels in the reference chest."""
        y, x = np.meshgrid(self._offsets - patient.shift[1], self._offsets - patient.shift[0], indexing="ij")
        cosine, sine = np.cos(patient.rotation), np.sin(patient.rotation)
        return (cosine * x + sine * y) / patient.scale[0], (cosine * y - sine * x) / patient.scale[1]

    def _texture(self, draw: np.random.Generator) -> np.ndarray:
        """Return the texture of lung structures too fine to be drawn, standard deviation 1: float64 (size, size)."""
        fine, coarse = (
            gaussian_filter(draw.standard_normal((self.size, self.size)), max(width / self.spacing, 0.4), mode="wrap")
            for width in (2.5, 9.0)
        )
        return np.asarray(0.7 * fine / fine.std() + 0.7 * coarse / coarse.std())

    def _lung_vessels(self, patient: Anatomy, level: float) -> tuple[np.ndarray, np.ndarray]:
        """Return shares of blood without uptake (size, size), and with uptake by compartment (2, size, size)."""
        depth = np.sqrt(_BLUR**2 + _THICKNESS**2 / 12 + patient.lungs.radius**2 / 4)
        beads = patient.lungs.where(np.abs(patient.lungs.position[:, 2] - level) < 3 * depth)
        fine = 2 * beads.radius < self._calibre
        coarse = [
            self._splat(beads.where(~fine & (beads.compartment == compartment)), patient, level)
            for compartment in (VENOUS, ARTERIAL)
        ]
        return self._splat(beads.where(fine), patient, level), np.stack(coarse)

    def _splat(self, beads: Beads, patient: Anatomy, level: float) -> np.ndarray:
        """Return the share of each pixel that vessels fill: float64 (size, size).

        Each bead's volume is spread by a Gaussian with the variance of the scanner's blur plus that of the vessel's own
        cross-section (r^2 / 4), and integrated over pixels. So a vessel much finer than a pixel keeps its volume.
        """
        cosine, sine = np.cos(patient.rotation), np.sin(patient.rotation)
        x, y = beads.position[:, 0] * patient.scale[0], beads.position[:, 1] * patient.scale[1]
        middle = (self.size - 1) / 2
        column = (cosine * x - sine * y + patient.shift[0]) / self.spacing + middle
        row = (sine * x + cosine * y + patient.shift[1]) / self.spacing + middle
        own = beads.radius**2 / 4
        width = np.sqrt(_BLUR**2 + own) / self.spacing
        depth = np.sqrt(_BLUR**2 + _THICKNESS**2 / 12 + own)
        area = beads.volume * patient.scale.prod() * _normal((beads.position[:, 2] - level) / depth) / depth
        reach = int(np.ceil(3.5 * width.max(initial=0) + 0.5))
        rows, down = _profile(row, width, reach, self.size)
        columns, across = _profile(column, width, reach, self.size)
        flat = rows[:, :, None] * self.size + columns[:, None, :]
        values = (area / self.spacing**2)[:, None, None] * down[:, :, None] * across[:, None, :]
        share = np.bincount(flat.ravel(), values.ravel(), minlength=self.size**2)
        return np.asarray(np.minimum(share, 1).reshape(self.size, self.size))


def _profile(position: np.ndarray, width: np.ndarray, reach: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the pixels around each position along an axis, and a Gaussian's share in each: both (B, 2 reach + 1)."""
    pixels = np.rint(position).astype(np.int64)[:, None] + np.arange(-reach, reach + 1)
    edges = (np.concatenate([pixels - 0.5, pixels[:, -1:] + 0.5], axis=1) - position[:, None]) / width[:, None]
    share = np.diff(ndtr(edges), axis=1)
    return pixels.clip(0, size - 1), np.where((pixels >= 0) & (pixels < size), share, 0.0)


def _blood(
    view: View, patient: Anatomy, chambers: np.ndarray, vessels: np.ndarray, lung: np.ndarray, compartment: int
) -> np.ndarray:
    """Return the share of a compartment's blood in heart, large vessels and lung: float64 (H, W)."""
    cavities = chambers.copy()
    cavities[1:] = np.minimum(cavities[1:], -chambers[0] - patient.heart.wall[0])  # the septum belongs to the left
    own = cavities[patient.heart.compartment == compartment].max(axis=0)
    # Where two vessels meet, a pixel belongs to the vessel in which it lies deeper.
    large = np.minimum(vessels[compartment], (vessels[compartment] - vessels[1 - compartment]) / 2)
    return np.asarray(1 - (1 - view.share(np.maximum(own, large))) * (1 - lung))


def _normal(value: np.ndarray) -> np.ndarray:
    return np.asarray(np.exp(-0.5 * value**2) / np.sqrt(2 * np.pi))
