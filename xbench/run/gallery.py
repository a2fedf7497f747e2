"""Drawing the gallery of a run: the samples and maps that it shows, as pictures and as arrays."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from xbench.contracts.samples import Batch
from xbench.jobs.gallery import gallery_samples
from xbench.report import GalleryItem, Overlay, gallery
from xbench.report.overlays import plane_of, sliced
from xbench.results.gallery import GalleryArrays, eight_bits, write_gallery
from xbench.run.plan import Cell
from xbench.run.scoring import ScoredCell
from xbench.runtime.mapped import MappedArray

_DRAWN = 8  # samples in the pictures
_MANY = 24  # explainers and controls in a gallery, above which copies are left out

Maps = dict[str, np.ndarray | MappedArray]


def draw_gallery(members: Sequence[ScoredCell], stem: Path) -> None:
    """Write the gallery of the cells of one dataset and model: `<stem>.svg`, `<stem>.png` and `<stem>.npz`."""
    first = members[0].cell
    shown = _shown(members)
    maps: Maps = {label: cell.maps.maps() for label, cell in shown.items()}
    chances = _chances(first)
    labels = first.maps.data.scored.labels
    kept = gallery_samples(labels, chances)
    # An inverted map has negative values even where the map itself is unsigned.
    signed = {
        label: cell.maps.innermost.explainer.signed or any((maps[label][index] < 0).any() for index in kept)
        for label, cell in shown.items()
    }
    _draw(stem, first, shown, maps, signed, chances)
    batch = first.maps.data.scored.batch(kept)
    write_gallery(_arrays(first, shown, maps, signed, chances, kept, batch), stem.with_name(f"{stem.name}.npz"))


def _shown(members: Sequence[ScoredCell]) -> dict[str, Cell]:
    # Maps that are constant on every image show nothing.
    shown = {
        item.row.explainer: item.cell
        for item in sorted(members, key=lambda item: item.row.control)
        if item.cell.maps.facts.get("constant_maps") != item.row.n
    }
    if len(shown) > _MANY:  # pages of inverted and blurred copies would hide the rest
        shown = {label: cell for label, cell in shown.items() if not (cell.control and cell.maps.inner is not None)}
    return shown


def _chances(cell: Cell) -> np.ndarray:
    """Return the class probabilities (N, K) of the scored samples."""
    import torch

    from xbench.contracts.model import probabilities

    chances: np.ndarray = probabilities(torch.from_numpy(cell.maps.predictions.logits)).numpy()
    return chances


def _draw(
    stem: Path, first: Cell, shown: dict[str, Cell], maps: Maps, signed: dict[str, bool], chances: np.ndarray
) -> None:
    data = first.maps.data
    chosen, classes = gallery_samples(data.scored.labels, chances, _DRAWN), data.info.classes
    batch = data.scored.batch(chosen)
    items = [
        GalleryItem(
            id=batch.ids[row],
            image=batch.images[row].numpy(),
            mask=batch.masks[row].numpy() if batch.has_mask[row] else None,
            label=classes[int(batch.labels[row])],
            predicted=classes[int(chances[index].argmax())],
            probability=float(chances[index].max()),
            overlays=[Overlay(label, maps[label][index], signed[label], cell.control) for label, cell in shown.items()],
        )
        for row, index in enumerate(chosen)
    ]
    stem.parent.mkdir(exist_ok=True)
    gallery(stem, items, f"{data.label}, {first.maps.predictions.calibration.label}")


def _arrays(
    first: Cell,
    shown: dict[str, Cell],
    maps: Maps,
    signed: dict[str, bool],
    chances: np.ndarray,
    kept: np.ndarray,
    batch: Batch,
) -> GalleryArrays:
    images, masks, has_mask = batch.images.numpy(), batch.masks.numpy(), batch.has_mask.numpy()
    planes = [plane_of(image, mask if has else None) for image, mask, has in zip(images, masks, has_mask, strict=True)]
    flat = np.stack([sliced(image, plane, leading=1) for image, plane in zip(images, planes, strict=True)])
    # One explainer's maps at a time, because all of them in full precision may not fit the memory.
    bits = [
        eight_bits(np.stack([sliced(maps[label][index], plane) for index, plane in zip(kept, planes, strict=True)]))
        for label in shown
    ]
    return GalleryArrays(
        dataset=first.maps.data.label,
        model=first.maps.predictions.calibration.label,
        classes=tuple(first.maps.data.info.classes),
        ids=tuple(batch.ids),
        labels=batch.labels.numpy(),
        probabilities=chances[kept].astype(np.float32),
        images=np.rint(255 * flat.clip(0, 1)).astype(np.uint8),
        masks=np.stack([sliced(mask, plane) for mask, plane in zip(masks, planes, strict=True)]),
        has_mask=has_mask,
        explainers=tuple(shown),
        control=np.array([cell.control for cell in shown.values()], dtype=bool),
        signed=np.array([signed[label] for label in shown], dtype=bool),
        targets=np.array([cell.maps.targets[kept] for cell in shown.values()], dtype=np.int64).reshape(-1, len(kept)),
        maps=np.array([values for values, _ in bits], dtype=np.int8).reshape(-1, *flat.shape[:1], *flat.shape[2:]),
        scales=np.array([scales for _, scales in bits], dtype=np.float32).reshape(-1, len(kept)),
    )
