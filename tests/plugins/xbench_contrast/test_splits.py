"""The contrast phantom's options, splits and files."""

import csv
import hashlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from xbench import Session, UserError
from xbench.contracts.options import parse_options
from xbench.runtime.mapped import MappedArray
from xbench_contrast.options import ContrastPhantomOptions
from xbench_contrast.phantom import SPLITS, ContrastPhantom

SMALL = {"patients_train": 10, "patients_validation": 4, "patients_test": 6, "slices_test": 3}


def made(folder: Path, **options: Any) -> tuple[ContrastPhantom, np.ndarray, np.ndarray, list[dict[str, str]]]:
    """A prepared dataset: it, its images, masks and manifest."""
    dataset = ContrastPhantom(ContrastPhantomOptions(**SMALL | options))
    dataset.prepare(folder, Session(folder=folder / "session"))
    with (folder / "manifest.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    return dataset, np.load(folder / "images.npy")[:, 0], np.load(folder / "masks.npy"), rows


@pytest.fixture(scope="module")
def prepared(
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[ContrastPhantom, np.ndarray, np.ndarray, list[dict[str, str]]]:
    return made(tmp_path_factory.mktemp("contrast"))


class TestOptions:
    @pytest.mark.parametrize(
        ("values", "message"),
        [
            ({"sise": 64}, "did you mean size"),
            ({"size": 16}, "size=16"),
            ({"field_of_view": 100}, "field_of_view=100"),
            ({"patients_test": 1}, "patients_test=1"),
            ({"slices_train": 0}, "slices_train=0"),
            ({"enhancement_low": 300, "enhancement_high": 200}, "must not be below enhancement_low"),
            ({"confounder": 1.5}, r"confounder=1\.5"),
            ({"confounder": 0.9, "size": 32}, "size of 64 or more"),
            ({"confounder_test": 0.9}, "only if confounder is set"),
        ],
    )
    def test_refused(self, values: dict[str, Any], message: str) -> None:
        with pytest.raises(UserError, match=message):
            parse_options(ContrastPhantomOptions, values, "dataset contrast-phantom")

    def test_they_need_no_torch(self) -> None:
        code = "import sys, xbench_contrast.options; sys.exit('torch' in sys.modules)"
        assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

    def test_info_follows(self) -> None:
        info = ContrastPhantom(ContrastPhantomOptions(size=224, field_of_view=448)).info
        assert (info.spatial, info.spacing, info.classes) == ((224, 224), (2.0, 2.0), ("without", "with"))
        assert info.removal == (1.0, 0.0)
        assert info.synthetic
        assert info.has_masks


class TestSplits:
    def test_counts_and_patients(
        self, prepared: tuple[ContrastPhantom, np.ndarray, np.ndarray, list[dict[str, str]]]
    ) -> None:
        rows = prepared[3]
        seen = {split: {row["group"] for row in rows if row["split"] == split} for split in SPLITS}
        assert {split: len(groups) for split, groups in seen.items()} == {"train": 10, "validation": 4, "test": 6}
        assert len(set.union(*seen.values())) == 20
        for split, slices in (("train", 2), ("validation", 2), ("test", 3)):
            labels = [int(row["label"]) for row in rows if row["split"] == split]
            assert np.bincount(labels).tolist() == [len(labels) // 2] * 2
            assert len(labels) == slices * len(seen[split])
        assert all(len({row["label"] for row in rows if row["group"] == group}) == 1 for group in seen["test"])

    def test_batches_are_what_was_written(self, tmp_path: Path) -> None:
        dataset, images, masks, rows = made(tmp_path, patients_train=2)
        split = dataset.open("test", tmp_path)
        assert isinstance(split._images, MappedArray)
        batch = split.batch([4, 0])
        places = [place for place, row in enumerate(rows) if row["split"] == "test"]
        assert np.array_equal(batch.images[:, 0].numpy(), images[[places[4], places[0]]])
        assert np.array_equal(batch.masks.numpy(), masks[[places[4], places[0]]])
        assert batch.has_mask.all()
        with pytest.raises(UserError, match="no split 'dev'"):
            dataset.load("dev", tmp_path)

    def test_each_slice_is_its_own(
        self, prepared: tuple[ContrastPhantom, np.ndarray, np.ndarray, list[dict[str, str]]]
    ) -> None:
        """Rendered alone, last to first, it has the same bytes as in the set."""
        dataset, images, masks, rows = prepared
        for place in range(len(rows) - 1, 0, -7):
            row = rows[place]
            rendered = dataset.render(dataset.anatomy(row["group"]), row["id"], row["label"] == "1")
            assert hashlib.sha256(rendered.image.tobytes()).hexdigest() == row["sha256"]
            assert rendered.image.tobytes() == images[place].tobytes()
            assert np.array_equal(rendered.mask, masks[place])

    def test_more_patients_and_slices_change_none_of_the_others(
        self, prepared: tuple[ContrastPhantom, np.ndarray, np.ndarray, list[dict[str, str]]], tmp_path: Path
    ) -> None:
        before = {row["id"]: row for row in prepared[3]}
        *_, after = made(tmp_path, patients_train=6, patients_test=8, slices_test=4)
        shared = [row for row in after if row["id"] in before]
        assert len(shared) == 6 * 2 + 4 * 2 + 6 * 3
        assert all(row == before[row["id"]] for row in shared)

    def test_another_seed_gives_other_patients(self) -> None:
        dataset = ContrastPhantom(ContrastPhantomOptions(seed=1))
        assert dataset.anatomy("test-0000").fat != ContrastPhantom(ContrastPhantomOptions()).anatomy("test-0000").fat

    def test_levels_of_a_patient_show_the_same_person(
        self, prepared: tuple[ContrastPhantom, np.ndarray, np.ndarray, list[dict[str, str]]]
    ) -> None:
        """Slices of a patient share what is drawn per patient, and nothing but that."""
        rows = [row for row in prepared[3] if row["group"] == "test-0000"]
        assert len({row["noise"] for row in rows}) == 1
        assert len({row["agent_venous"] for row in rows}) == 1
        assert len({row["level_mm"] for row in rows}) == len(rows)
