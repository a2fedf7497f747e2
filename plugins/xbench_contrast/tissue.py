"""Rendering of a slice without blood: skin, fat, muscle, lung, airways, heart walls and bone, in Hounsfield units.

Everything is composed by volume: a structure takes a share of a pixel, so thin structures fade as they do in CT.
"""

from __future__ import annotations

import numpy as np

from xbench_contrast.anatomy import Anatomy
from xbench_contrast.geometry import View

AIR = -1000.0
_RIB_PITCH = 26.0
"""Distance between neighbouring ribs along z, in mm."""


def tissue(
    view: View, patient: Anatomy, chambers: np.ndarray, vessels: np.ndarray, texture: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the HU of everything but blood, the body's share, and the lungs' share: each float64 (H, W)."""
    tissues = patient.tissues
    torso = view.ellipse(0, 0, patient.torso[:2], patient.torso[2])
    body = view.share(torso + patient.fat * (1 + 0.25 * np.tanh(view.y / 60)))
    values = fill(np.full_like(body, AIR), body, tissues.fat)
    values = fill(values, view.share(torso), tissues.muscle)
    cavity = _cavity(view, patient)
    middle = _mediastinum(view, patient, chambers, vessels)
    lung = view.share(cavity) * (1 - view.share(middle))
    parenchyma = tissues.lung + 0.35 * view.y + 28 * texture
    values = fill(values, view.share(cavity), parenchyma)
    values = fill(values, view.share(np.minimum(middle, cavity)), 0.8 * tissues.fat)
    walls = (chambers + patient.heart.wall[:, None, None]).max(axis=0)
    values = fill(values, view.share(walls), tissues.muscle)
    values = fill(values, view.share(view.ellipse(7, 37, (7, 6))), tissues.muscle)  # oesophagus
    airways = view.tubes(patient.airways)[0]
    values = fill(values, view.share(airways + 1.5), tissues.muscle)
    values = fill(values, view.share(airways), AIR)
    bone = _bones(view, patient, cavity)
    values = fill(values, view.share(bone), tissues.cortex)
    values = fill(values, view.share(bone - 2.2), tissues.marrow)
    canal = view.ellipse(0, patient.spine[0] + 22, (9, 7))
    return fill(values, view.share(canal), tissues.muscle), body, lung


def _cavity(view: View, patient: Anatomy) -> np.ndarray:
    """Return the depth in the chest cavity, which narrows toward the apex: float64 (H, W), mm."""
    narrow = 1 - 0.3 * max(view.level - 5, 0) / 80
    wide, deep, exponent = patient.cavity
    return view.ellipse(0, 0, (wide * narrow, deep * (0.5 + 0.5 * narrow)), exponent)


def _mediastinum(view: View, patient: Anatomy, chambers: np.ndarray, vessels: np.ndarray) -> np.ndarray:
    """Return the depth in the tissue between the lungs: a band of fat, heart and vessels in their fat, the spine."""
    around = (chambers + patient.heart.wall[:, None, None]).max(axis=0) + patient.heart.fat
    band = view.ellipse(0, 2, (patient.mediastinum, 92), 2.0)
    spine = view.ellipse(0, patient.spine[0] + 14, (patient.spine[1] + 9, 31), 2.0)
    return np.asarray(np.max([around, band, vessels.max(axis=0) + 2.5, spine], axis=0))


def _bones(view: View, patient: Anatomy, cavity: np.ndarray) -> np.ndarray:
    """Return the depth in vertebra, ribs, sternum and shoulder blades: float64 (H, W), mm."""
    back, half = patient.spine
    parts = [
        view.ellipse(0, back, (half, 0.82 * half), 2.4),
        view.ellipse(0, back + 22, (14, 11)),  # arch; the canal is cut out of it
        view.ellipse(0, back + 36, (3.5, 12)),
        view.ellipse(0, -patient.cavity[1] - 6, (17, 5.5), 2.5),
    ]
    count, phase = patient.ribs
    # Ribs run downwards toward the front, so they move along the wall from slice to slice.
    turn = count * (np.arctan2(view.y, np.abs(view.x)) / np.pi + 0.5) + view.level / _RIB_PITCH + phase
    along = (0.25 - np.abs(turn - np.rint(turn))) * np.pi / count * np.hypot(view.x, view.y)
    parts.append(np.minimum(4.2 - np.abs(cavity + 7), along))
    if view.level > 0:
        for side in (-1, 1):
            blade = np.abs((view.y - 62) + side * (view.x - side * 112) * 0.75) / 1.25
            parts.append(np.minimum(3.2 - blade, 26 - np.abs(view.x - side * 112)))
    return np.asarray(np.max(parts, axis=0))


def fill(values: np.ndarray, share: np.ndarray, material: float | np.ndarray) -> np.ndarray:
    """Return the values with a share of each pixel given to another material."""
    return np.asarray(values + share * (material - values))
