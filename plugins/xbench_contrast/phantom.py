"""The dataset `contrast-phantom`: chest slices without and with contrast agent. They differ inside the exact mask."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from xbench import ArrayDataset, ArraySample, DatasetInfo, Session
from xbench.contracts.dataset import SPLITS
from xbench.runtime.seeding import rng
from xbench_contrast.anatomy import LEVELS, Anatomy, draw_anatomy
from xbench_contrast.marker import BRIGHT, marker_mask
from xbench_contrast.options import ContrastPhantomOptions
from xbench_contrast.rendering import Scanner

WINDOW = (-1000.0, 1000.0)
"""HU shown as 0 and 1."""
CLASSES = ("without", "with")


@dataclass(frozen=True)
class Rendered:
    """One rendered slice.

    Attributes:
        image: float32 (size, size), in [0, 1].
        mask: Pixels where blood takes up the agent, or would with agent, bool (size, size).
        marker: Pixels of the letter, bool (size, size); all False without a letter.
    """

    image: np.ndarray
    mask: np.ndarray
    marker: np.ndarray


@dataclass(frozen=True)
class Columns:
    """The columns of the manifest beside an image's id, patient (`group`), class, split and hash.

    Attributes:
        level_mm: Height above the bifurcation of the pulmonary trunk, mm.
        agent_venous: HU that the agent adds, or would add, to blood before the lungs.
        agent_arterial: HU that the agent adds, or would add, to blood after the lungs.
        noise: Standard deviation of the noise in the middle of the body, HU.
        mask_pixels: Number of pixels that take up the agent, or would with agent.
        marker: First row and column, last row and column of the letter; empty without one.
        window: HU shown as 0 and 1.
    """

    level_mm: float
    agent_venous: float
    agent_arterial: float
    noise: float
    mask_pixels: int
    marker: str
    window: str


class ContrastPhantom(ArrayDataset):
    """Axial chest slices of rendered patients, half of whom have contrast agent.

    A patient's anatomy, levels and noise are drawn from the patient's name. The class is drawn separately, and decides
    only whether the agent is added to the blood. The mask marks where it is added, and is the same without agent. With
    `truth=letter` the mask is the planted letter, and empty if there is none.
    """

    options: ContrastPhantomOptions

    def __init__(self, options: ContrastPhantomOptions) -> None:
        super().__init__(options)
        self._scanner = Scanner(options.size, options.field_of_view, options.calibre)

    @property
    def info(self) -> DatasetInfo:
        """Return two classes and the geometry of the options."""
        spacing = self.options.field_of_view / self.options.size
        return DatasetInfo(
            name="contrast-phantom",
            classes=CLASSES,
            channels=1,
            spatial=(self.options.size, self.options.size),
            spacing=(spacing, spacing),
            has_masks=True,
            removal=(1.0, 0.0),  # Brocki et al., section 3.1: white replaces pixels without agent, black those with it
            synthetic=True,
            licence="CC0 1.0 (rendered; no patient's data)",
            citation=(
                "xbench, contrast-phantom (rendered); the task: Brocki et al., Evaluation of importance estimators in "
                "deep learning classifiers for Computed Tomography, 2022"
            ),
        )

    def samples(self, session: Session) -> Iterator[ArraySample]:
        """Yield the rendered slices of all patients, split by split."""
        patients = [(split, index) for split in SPLITS for index in range(self._counts(split)[0])]
        for split, index in session.track(patients, "rendering contrast-phantom", len(patients)):
            yield from self._slices(split, index)

    def anatomy(self, patient: str) -> Anatomy:
        """Return a patient's anatomy, which does not depend on the class."""
        return draw_anatomy(
            self._rng("anatomy", patient), (self.options.enhancement_low, self.options.enhancement_high)
        )

    def level(self, sample: str) -> float:
        """Return the level of a slice, mm."""
        return float(self._rng("level", sample).uniform(*LEVELS))

    def render(self, anatomy: Anatomy, sample: str, agent: bool, marked: bool = False) -> Rendered:
        """Render one slice of a patient, independently of all others.

        Args:
            anatomy: The patient.
            sample: The slice's id, which determines level, texture and noise.
            agent: Whether the blood has the agent.
            marked: Whether the slice has a letter in its corner.
        """
        cut = self._scanner.slice(anatomy, self.level(sample), self._rng("texture", sample))
        values = cut.tissue + self._scanner.noise(anatomy, cut.body, self._rng("noise", sample))
        if agent:
            values = values + cut.enhancement
        marker = np.zeros_like(cut.mask)
        if marked:
            marker = marker_mask(self.options.size, self._rng("marker", sample))
            values[marker] = BRIGHT
        # Round to whole HU, as CT stores them. This removes the last bits of exp and cos, which differ between
        # processors.
        values = (np.rint(values) - WINDOW[0]) / (WINDOW[1] - WINDOW[0])
        return Rendered(np.clip(values, 0, 1).astype(np.float32), cut.mask, marker)

    def _counts(self, split: str) -> tuple[int, int]:
        """Return the number of patients of a split, and the number of slices of each."""
        options = self.options
        patients = {
            "train": options.patients_train,
            "validation": options.patients_validation,
            "test": options.patients_test,
        }
        return patients[split], options.slices_test if split == "test" else options.slices_train

    def _slices(self, split: str, index: int) -> Iterator[ArraySample]:
        """Yield the slices of a patient."""
        patient = f"{split}-{index:04d}"
        label, anatomy = self._label(split, index), self.anatomy(patient)
        for number in range(self._counts(split)[1]):
            sample = f"{patient}-{number:02d}"
            rendered = self.render(anatomy, sample, label == 1, self._marked(split, sample, label))
            yield ArraySample(
                split=split,
                id=sample,
                group=patient,
                label=label,
                image=rendered.image[None],
                # An empty mask is one too: without a letter, the second truth is that no pixel tells the class.
                mask=rendered.marker if self.options.truth == "letter" else rendered.mask,
                columns=vars(self._columns(sample, anatomy, rendered)),
            )

    def _label(self, split: str, index: int) -> int:
        """Return the class: a coin decides for each pair of patients, so that more patients change no one's class."""
        return int(self._rng("class", split, index // 2).integers(2)) ^ (index % 2)

    def _marked(self, split: str, sample: str, label: int) -> bool:
        if self.options.confounder is None:
            return False
        share = self.options.confounder_test if split == "test" else self.options.confounder
        return bool(self._rng("marked", sample).random() < (share if label == 1 else 1 - share))

    def _rng(self, *parts: object) -> np.random.Generator:
        return rng(self.options.seed, "contrast-phantom", *parts)

    def _columns(self, sample: str, anatomy: Anatomy, rendered: Rendered) -> Columns:
        return Columns(
            level_mm=round(self.level(sample), 2),
            agent_venous=round(float(anatomy.agent[0]), 1),
            agent_arterial=round(float(anatomy.agent[1]), 1),
            noise=round(anatomy.noise, 2),
            mask_pixels=int(rendered.mask.sum()),
            marker=_box(rendered.marker),
            window=f"[{WINDOW[0]:g}, {WINDOW[1]:g}] HU",
        )


def _box(mask: np.ndarray) -> str:
    """Return the first and last row and column of a mask, as text."""
    places = np.argwhere(mask)
    return " ".join(map(str, [*places.min(axis=0), *places.max(axis=0)])) if len(places) else ""
