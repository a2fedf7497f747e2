"""A patient's chest in three dimensions, drawn once per patient, independently of the slice and the class.

Coordinates are millimetres in a reference chest: x to the patient's left (right in the image), y to the back (down), z
up, 0 at the bifurcation of the pulmonary trunk. A patient is the reference chest with everything moved and scaled at
random.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from xbench_contrast.vessels import Beads, grow

VENOUS, ARTERIAL = 0, 1
"""Blood before the lungs (cava, right heart, pulmonary arteries), and after them, where the agent arrives later."""
LEVELS = (-90.0, 50.0)
"""z of the lowest and highest slice, from the ventricles to just above the aortic arch."""

_NODES: Mapping[str, tuple[float, float, float, float]] = {
    # x, y, z, radius
    "aortic root": (4, -13, -34, 14),
    "ascending aorta": (-14, -22, -5, 15),
    "upper ascending aorta": (-16, -18, 22, 14.5),
    "arch, front": (-7, -10, 38, 14),
    "arch, top": (11, 3, 43, 13),
    "arch, back": (22, 24, 37, 12.5),
    "descending aorta": (27, 38, 18, 12),
    "middle descending aorta": (26, 42, -25, 11.5),
    "lower descending aorta": (20, 43, -75, 11),
    "aortic hiatus": (13, 42, -130, 10.5),
    "innominate artery": (-8, -9, 46, 6.5),
    "innominate artery, end": (-19, -8, 100, 5.5),
    "left carotid": (6, -2, 46, 4.5),
    "left carotid, end": (9, -6, 100, 4),
    "left subclavian": (15, 12, 46, 5.5),
    "left subclavian, end": (28, 10, 100, 5),
    "outflow tract": (17, -44, -38, 14),
    "pulmonary trunk": (18, -32, -13, 14),
    "bifurcation": (17, -16, 0, 13),
    "left pulmonary artery": (31, 3, 5, 11),
    "left hilum": (45, 12, 0, 8.5),
    "right pulmonary artery": (-6, 9, -3, 10.5),
    "right hilum": (-42, 9, -9, 8.5),
    "superior cava, top": (-31, -14, 46, 9),
    "superior cava": (-33, -8, -28, 10),
    "right innominate vein": (-29, -16, 100, 6.5),
    "left innominate vein": (29, -26, 76, 6),
    "left innominate vein, middle": (-2, -33, 58, 6.5),
    "inferior cava, top": (-27, 6, -82, 11.5),
    "inferior cava": (-27, 14, -130, 11.5),
    "left atrium, upper right": (-16, 13, -34, 7.5),
    "right upper vein": (-45, 14, -26, 5.5),
    "left atrium, upper left": (28, 15, -33, 7.5),
    "left upper vein": (48, 10, -24, 5.5),
    "left atrium, lower right": (-14, 18, -43, 7.5),
    "right lower vein": (-45, 28, -50, 5.5),
    "left atrium, lower left": (26, 20, -42, 7.5),
    "left lower vein": (48, 30, -48, 5.5),
}
_PATHS: Sequence[tuple[int, tuple[str, ...]]] = (
    (
        ARTERIAL,
        (
            *("aortic root", "ascending aorta", "upper ascending aorta", "arch, front", "arch, top", "arch, back"),
            *("descending aorta", "middle descending aorta", "lower descending aorta", "aortic hiatus"),
        ),
    ),
    (ARTERIAL, ("innominate artery", "innominate artery, end")),
    (ARTERIAL, ("left carotid", "left carotid, end")),
    (ARTERIAL, ("left subclavian", "left subclavian, end")),
    (VENOUS, ("outflow tract", "pulmonary trunk", "bifurcation", "left pulmonary artery", "left hilum")),
    (VENOUS, ("bifurcation", "right pulmonary artery", "right hilum")),
    (VENOUS, ("right innominate vein", "superior cava, top", "superior cava")),
    (VENOUS, ("left innominate vein", "left innominate vein, middle", "superior cava, top")),
    (VENOUS, ("inferior cava, top", "inferior cava")),
    (ARTERIAL, ("left atrium, upper right", "right upper vein")),
    (ARTERIAL, ("left atrium, upper left", "left upper vein")),
    (ARTERIAL, ("left atrium, lower right", "right lower vein")),
    (ARTERIAL, ("left atrium, lower left", "left lower vein")),
)
_AIRWAYS = {
    "trachea, top": (-3, 22, 110, 9),
    "carina": (-4, 27, 12, 9),
    "left bronchus": (38, 24, -16, 6.5),
    "right bronchus": (-34, 24, -9, 7),
}
_AIRWAY_PATHS = (("trachea, top", "carina", "left bronchus"), ("carina", "right bronchus"))

_HEART = np.array([12.0, -12.0, -58.0])
_CHAMBERS = (
    # compartment, centre, semi-axes (the first along the heart's long axis), wall
    (ARTERIAL, (42, -14, -68), (38, 20, 20), 10.0),  # left ventricle
    (VENOUS, (18, -43, -66), (38, 22, 19), 4.0),  # right ventricle
    (VENOUS, (-26, -14, -54), (23, 25, 31), 3.0),  # right atrium
    (ARTERIAL, (6, 14, -38), (32, 18, 19), 3.0),  # left atrium
)
_APEX = np.array([0.68, -0.50, -0.53])
"""Direction of the ventricles' long axis: to the left, the front and the feet."""


@dataclass(frozen=True)
class Tubes:
    """Straight, tapering pieces of vessels or airways.

    Attributes:
        start: Starts, float64 (T, 3), mm.
        end: Ends, float64 (T, 3), mm.
        radius: Radius at either end, float64 (T, 2), mm.
        compartment: VENOUS or ARTERIAL, int64 (T,).
    """

    start: np.ndarray
    end: np.ndarray
    radius: np.ndarray
    compartment: np.ndarray


@dataclass(frozen=True)
class Heart:
    """Four ellipsoids of blood in their walls. The left ventricle comes first.

    Attributes:
        centre: Centres, float64 (4, 3), mm.
        axes: Directions of the semi-axes in rows, float64 (4, 3, 3).
        semi_axes: Lengths of the semi-axes, float64 (4, 3), mm.
        wall: Thickness of the walls, float64 (4,), mm.
        fat: Thickness of the fat around the heart, mm.
        compartment: VENOUS or ARTERIAL, int64 (4,).
    """

    centre: np.ndarray
    axes: np.ndarray
    semi_axes: np.ndarray
    wall: np.ndarray
    fat: float
    compartment: np.ndarray


@dataclass(frozen=True)
class Tissues:
    """Hounsfield units of a patient's tissues, without agent."""

    lung: float
    fat: float
    muscle: float
    blood: float
    marrow: float
    cortex: float


@dataclass(frozen=True)
class Anatomy:
    """Everything that is drawn about a patient.

    Attributes:
        scale: Size along x and y, relative to the reference chest.
        shift: Shift of the chest's middle in the image, (x, y), mm.
        rotation: Rotation in the image, radians.
        torso: Semi-axes and exponent of the superellipse of muscle.
        cavity: Semi-axes and exponent of the chest cavity at its widest.
        fat: Thickness of the fat under the skin, mm.
        mediastinum: Half the width of the mediastinum, mm.
        ribs: Number of ribs that a slice cuts on each side, and their phase.
        spine: y of a vertebra's centre, and half its width, mm.
        heart: Chambers of the heart.
        vessels: Aorta, cava, pulmonary trunk and their large branches.
        airways: Trachea and main bronchi.
        lungs: Arteries and veins of the lungs.
        tissues: Attenuation of the tissues.
        noise: Standard deviation of the noise in the middle of the body, HU.
        agent: HU that the agent would add to venous and to arterial blood, float64 (2,).
    """

    scale: np.ndarray
    shift: np.ndarray
    rotation: float
    torso: tuple[float, float, float]
    cavity: tuple[float, float, float]
    fat: float
    mediastinum: float
    ribs: tuple[float, float]
    spine: tuple[float, float]
    heart: Heart
    vessels: Tubes
    airways: Tubes
    lungs: Beads
    tissues: Tissues
    noise: float
    agent: np.ndarray


def draw_anatomy(draw: np.random.Generator, enhancement: tuple[float, float]) -> Anatomy:
    """Draw a patient. The class is not known here: all patients are drawn in the same way, including the agent.

    Args:
        draw: Generator for everything random.
        enhancement: Lowest and highest enhancement of the blood, HU.
    """
    cavity = (draw.uniform(118, 132), draw.uniform(78, 88), draw.uniform(2.1, 2.6))
    wall = draw.uniform(17, 23)
    nodes = _moved(_NODES, draw)
    # A bolus that is seen early is denser before the lungs, and one that is seen late is denser after them.
    phase = draw.uniform(-0.2, 0.2)
    return Anatomy(
        scale=draw.uniform(0.97, 1.12) * np.exp(draw.normal(0, 0.02, 2)),
        shift=np.clip(draw.normal(0, 4, 2), -8, 8),
        rotation=float(np.radians(np.clip(draw.normal(0, 3), -8, 8))),
        torso=(cavity[0] + wall, cavity[1] + wall, cavity[2] + 0.2),
        cavity=cavity,
        fat=min(4 + draw.gamma(2.5, 4.0), 26.0),
        mediastinum=draw.uniform(22, 29),
        ribs=(draw.uniform(5.0, 6.5), draw.uniform(0, 1)),
        spine=(draw.uniform(59, 64), draw.uniform(15, 19)),
        heart=_heart(draw),
        vessels=_tubes(nodes, [path for _, path in _PATHS], [compartment for compartment, _ in _PATHS]),
        airways=_tubes(_moved(_AIRWAYS, draw), _AIRWAY_PATHS, [VENOUS] * len(_AIRWAY_PATHS)),
        lungs=_lung_vessels(nodes, draw),
        tissues=Tissues(
            lung=draw.uniform(-890, -790),
            fat=draw.normal(-100, 6),
            muscle=draw.normal(52, 6),
            blood=draw.normal(42, 6),
            marrow=draw.uniform(110, 260),
            cortex=draw.uniform(450, 750),
        ),
        noise=draw.uniform(14, 34),
        agent=draw.uniform(*enhancement) * np.array([1 - phase, 1 + phase]),
    )


def _moved(nodes: Mapping[str, tuple[float, float, float, float]], draw: np.random.Generator) -> dict[str, np.ndarray]:
    """Return the nodes, each moved by about 2 mm and scaled, and all radii scaled by one more factor."""
    table = np.array(list(nodes.values()), dtype=np.float64)
    table[:, :3] += draw.normal(0, 1.8, (len(table), 3))
    table[:, 3] *= np.exp(draw.normal(0, 0.08) + draw.normal(0, 0.04, len(table)))
    return dict(zip(nodes, table, strict=True))


def _tubes(nodes: Mapping[str, np.ndarray], paths: Sequence[Sequence[str]], compartments: Sequence[int]) -> Tubes:
    pairs = [pair for path in paths for pair in pairwise(path)]
    start, end = (np.stack([nodes[pair[side]] for pair in pairs]) for side in range(2))
    lengths = [len(path) - 1 for path in paths]
    return Tubes(start[:, :3], end[:, :3], np.stack([start[:, 3], end[:, 3]], axis=1), np.repeat(compartments, lengths))


def _heart(draw: np.random.Generator) -> Heart:
    """Return the heart, turned about the body's long axis and scaled as a whole, with chambers scaled a little more."""
    compartment, centre, semi_axes, wall = (np.array(column) for column in zip(*_CHAMBERS, strict=True))
    angle = np.radians(draw.normal(0, 6))
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    size = draw.uniform(0.92, 1.15)
    own = np.exp(draw.normal(0, 0.04, (len(centre), 3)))
    apex = turn @ _APEX / np.linalg.norm(_APEX)
    aside = np.cross(apex, [0.0, 0.0, 1.0])
    aside /= np.linalg.norm(aside)
    ventricle = np.stack([apex, aside, np.cross(apex, aside)])
    return Heart(
        centre=_HEART + draw.normal(0, 2.0, 3) + size * (centre - _HEART) @ turn.T,
        axes=np.stack([ventricle, ventricle, turn.T, turn.T]),
        semi_axes=size * own * semi_axes,
        wall=wall * draw.uniform(0.85, 1.25),
        fat=draw.uniform(2, 9),
        compartment=compartment,
    )


def _lung_vessels(nodes: Mapping[str, np.ndarray], draw: np.random.Generator) -> Beads:
    """Return the arteries and veins of both lungs, which grow from the ends of the large vessels."""
    roots = (
        (VENOUS, 6, ("left hilum", "right hilum")),
        (ARTERIAL, 3, ("left upper vein", "right upper vein", "left lower vein", "right lower vein")),
    )
    trees = []
    for compartment, stems, names in roots:
        for name in names:
            x, y, z, radius = nodes[name]
            trees.append(grow(np.array([x, y, z]), float(np.sign(x)), 0.6 * radius, stems, compartment, draw))
    return Beads.joined(trees)
