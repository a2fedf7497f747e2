"""The contrast phantom: what differs between its classes, and that nothing else does."""

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from scipy.stats import mannwhitneyu, norm
from sklearn.metrics import roc_auc_score

import xbench_contrast
from xbench import Session
from xbench.testing import parametrize_with_checks
from xbench_contrast.anatomy import ARTERIAL, LEVELS, VENOUS
from xbench_contrast.marker import marker_mask
from xbench_contrast.options import ContrastPhantomOptions
from xbench_contrast.phantom import ContrastPhantom
from xbench_contrast.rendering import LEAST_SHARE, Scanner
from xbench_contrast.vessels import Beads

SMALL = {"patients_train": 40, "patients_validation": 10, "patients_test": 10, "slices_test": 3}
(SPEC,) = xbench_contrast.xbench_datasets()


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


@pytest.fixture(scope="module")
def patients() -> list[tuple[Any, str]]:
    """(anatomy, slice's id) of a dozen patients."""
    dataset = ContrastPhantom(ContrastPhantomOptions())
    return [(dataset.anatomy(f"train-{index:04d}"), f"train-{index:04d}-00") for index in range(12)]


@parametrize_with_checks([SPEC], patients_train=4, patients_validation=2, patients_test=2, slices_test=2)
def test_conforms(check: Callable[..., None]) -> None:
    check()


class TestTheAgentIsTheOnlyDifference:
    @pytest.mark.parametrize(("size", "marked"), [(32, False), (64, False), (64, True), (150, True)])
    def test_nothing_outside_the_mask_to_the_bit(
        self, patients: list[tuple[Any, str]], size: int, marked: bool
    ) -> None:
        dataset = ContrastPhantom(ContrastPhantomOptions(size=size))
        for anatomy, sample in patients[:6]:
            plain, agent = (dataset.render(anatomy, sample, given, marked) for given in (False, True))
            assert plain.mask.tobytes() == agent.mask.tobytes()
            assert plain.image[~plain.mask].tobytes() == agent.image[~plain.mask].tobytes()

    def test_every_pixel_of_the_mask_is_brighter(self, patients: list[tuple[Any, str]]) -> None:
        """By one HU or more, but for lung so dark that noise takes both below the window."""
        dataset = ContrastPhantom(ContrastPhantomOptions())
        for anatomy, sample in patients:
            plain, agent = (dataset.render(anatomy, sample, given) for given in (False, True))
            rise = (agent.image - plain.image)[plain.mask]
            least = 0.95 * LEAST_SHARE * anatomy.agent.min() / 2000
            assert (rise[plain.image[plain.mask] > 0] > least - 1 / 2000).all()
            assert rise.max() <= (anatomy.agent.max() + 1.5) / 2000

    def test_blood_rises_by_the_agent_of_its_side(self, patients: list[tuple[Any, str]]) -> None:
        """In the middle of the left ventricle and of the right, all of a pixel is blood."""
        scanner = Scanner(64, 400.0, 4.0)
        for anatomy, _ in patients:
            for chamber, compartment in ((0, ARTERIAL), (2, VENOUS)):
                assert anatomy.heart.compartment[chamber] == compartment
                x, y, level = anatomy.heart.centre[chamber]
                cut = scanner.slice(anatomy, level, np.random.default_rng(0))
                across, down = scanner._reference(anatomy)
                pixel = np.unravel_index(np.argmin(np.hypot(across - x, down - y)), across.shape)
                assert cut.enhancement[pixel] == pytest.approx(anatomy.agent[compartment], rel=1e-3)
                assert cut.tissue[pixel] == pytest.approx(anatomy.tissues.blood, rel=1e-3)

    def test_the_mask_does_not_know_how_much_agent(self, patients: list[tuple[Any, str]]) -> None:
        """Twice the enhancement, the same patient: the mask is where the blood is."""
        weak, strong = (
            ContrastPhantom(ContrastPhantomOptions(enhancement_low=low, enhancement_high=low)) for low in (100, 200)
        )
        for index in range(4):
            name = f"train-{index:04d}"
            one, two = (dataset.render(dataset.anatomy(name), f"{name}-00", True) for dataset in (weak, strong))
            assert np.array_equal(one.mask, two.mask)
            assert two.image[one.mask].mean() > one.image[one.mask].mean() + 0.01

    def test_calibre(self, patients: list[tuple[Any, str]]) -> None:
        """Without a limit the finest vessels take up the agent as well."""
        anatomy, areas = patients[0][0], []
        for calibre in (0.0, 4.0, 20.0):
            cut = Scanner(128, 400.0, calibre).slice(anatomy, -20.0, np.random.default_rng(0))
            areas.append(cut.mask.sum())
        assert areas[0] > areas[1] > areas[2] > 0


class TestTheClassesAreOtherwiseAlike:
    def test_labels_say_nothing_of_patients(self) -> None:
        """Who has the agent is a coin that nothing else is drawn from: anatomies are the same whatever the coin."""
        dataset = ContrastPhantom(ContrastPhantomOptions())
        labels = np.array([dataset._label("train", index) for index in range(160)])
        drawn = [dataset.anatomy(f"train-{index:04d}") for index in range(160)]
        for value in (
            lambda one: one.scale[0],
            lambda one: one.fat,
            lambda one: one.noise,
            lambda one: one.tissues.lung,
            lambda one: one.tissues.blood,
            lambda one: one.heart.semi_axes[0, 0],
            lambda one: one.agent[0],
        ):
            seen = np.array([value(one) for one in drawn])
            assert mannwhitneyu(seen[labels == 0], seen[labels == 1]).pvalue > 0.001

    def test_no_statistic_outside_the_mask_tells_the_classes_apart(
        self, prepared: tuple[ContrastPhantom, np.ndarray, np.ndarray, list[dict[str, str]]]
    ) -> None:
        """One slice a patient; the same test sees the agent inside at once."""
        _, images, masks, rows = prepared
        labels = np.array([int(row["label"]) for row in rows])
        one = np.unique([row["group"] for row in rows], return_index=True)[1]

        def p_value(values: np.ndarray) -> float:
            return mannwhitneyu(values[one][labels[one] == 0], values[one][labels[one] == 1]).pvalue

        outside = np.where(masks, np.nan, images)
        edges = np.where(masks, np.nan, images - np.stack([gaussian_filter(image, 1) for image in images]))
        for statistic in (
            np.nanmean(outside, axis=(1, 2)),
            np.nanstd(outside, axis=(1, 2)),
            np.nanquantile(outside, 0.98, axis=(1, 2)),
            masks.mean(axis=(1, 2)),
        ):
            assert p_value(statistic) > 0.001
        assert p_value(np.nanstd(edges[:, 2:10, 2:10], axis=(1, 2))) > 0.001
        inside = np.where(masks, images, np.nan)
        assert p_value(np.nanquantile(inside, 0.75, axis=(1, 2))) < 1e-6

    def test_the_mean_does_not_give_it_away(
        self, prepared: tuple[ContrastPhantom, np.ndarray, np.ndarray, list[dict[str, str]]]
    ) -> None:
        _, images, masks, rows = prepared
        labels = [int(row["label"]) for row in rows]
        assert 0.35 < roc_auc_score(labels, images.mean(axis=(1, 2))) < 0.75
        brightest = np.array([np.quantile(image[mask], 0.75) for image, mask in zip(images, masks, strict=True)])
        assert roc_auc_score(labels, brightest) > 0.97

    def test_area_of_the_masks(
        self, prepared: tuple[ContrastPhantom, np.ndarray, np.ndarray, list[dict[str, str]]]
    ) -> None:
        """Brocki et al. have 3.6 % on average, from 1 to 11."""
        area = prepared[2].mean(axis=(1, 2))
        assert 0.03 < area.mean() < 0.045
        assert area.min() > 0.003
        assert area.max() < 0.11


class TestRendering:
    def test_vessels_finer_than_a_pixel_keep_their_volume(self, patients: list[tuple[Any, str]]) -> None:
        """Shares of all pixels add up to the volume of a vessel across the slice, whatever the pixel."""
        anatomy, _ = patients[0]
        along = np.arange(-20, 20, 0.5)
        for radius, lost in ((0.5, 0.005), (1.0, 0.005), (2.0, 0.05)):  # a pixel holds no more than is room for
            beads = Beads(
                np.stack([np.full_like(along, -60), np.full_like(along, 10), along], axis=1),
                np.full_like(along, radius),
                np.full_like(along, np.pi * radius**2 * 0.5),
                np.zeros(len(along), dtype=int),
            )
            for size in (32, 64, 150):
                scanner = Scanner(size, 400.0, 4.0)
                area = scanner._splat(beads, anatomy, 0.0).sum() * scanner.spacing**2
                assert area / anatomy.scale.prod() == pytest.approx(np.pi * radius**2, rel=lost)

    def test_a_large_vessel_is_a_disk(self, patients: list[tuple[Any, str]]) -> None:
        """The descending aorta, which runs straight down: area of its share against its radius."""
        for anatomy, _ in patients[:4]:
            tubes = anatomy.vessels
            index = np.flatnonzero((tubes.start[:, 2] > -40) & (tubes.end[:, 2] < -60) & (tubes.start[:, 1] > 35))
            assert len(index) == 1
            start, end, radius = tubes.start[index[0]], tubes.end[index[0]], tubes.radius[index[0]].mean()
            middle, axis = (start + end) / 2, (end - start) / np.linalg.norm(end - start)
            scanner = Scanner(200, 400.0, 20.0)
            cut = scanner.slice(anatomy, middle[2], np.random.default_rng(0))
            across, down = scanner._reference(anatomy)
            near = np.hypot(across - middle[0], down - middle[1]) < radius + 4
            share = (cut.enhancement / anatomy.agent[ARTERIAL])[near].sum() * scanner.spacing**2
            assert share / anatomy.scale.prod() == pytest.approx(np.pi * radius**2 / abs(axis[2]), rel=0.06)

    def test_noise(self, patients: list[tuple[Any, str]]) -> None:
        """Its level is the patient's, stronger in the body than in the air, the same with and without agent."""
        anatomy, _ = patients[0]
        scanner = Scanner(128, 400.0, 4.0)
        body = scanner.slice(anatomy, 0.0, np.random.default_rng(0)).body
        noise = np.stack([scanner.noise(anatomy, body, np.random.default_rng(seed)) for seed in range(200)])
        spread = noise.std(axis=0)
        assert spread[64, 64] == pytest.approx(anatomy.noise, rel=0.2)
        assert spread[:4, :4].mean() < 0.7 * spread[60:68, 60:68].mean()
        assert abs(noise.mean()) < 3 * anatomy.noise / np.sqrt(noise.size) * 5

    def test_tissues(self, patients: list[tuple[Any, str]]) -> None:
        """Air around, lung beside the heart, bone behind it."""
        for anatomy, _ in patients[:4]:
            scanner = Scanner(200, 400.0, 4.0)
            cut = scanner.slice(anatomy, -40.0, np.random.default_rng(0))
            across, down = scanner._reference(anatomy)

            def around(
                x: float, y: float, half: float, cut: Any = cut, across: np.ndarray = across, down: np.ndarray = down
            ) -> float:
                return np.median(cut.tissue[np.hypot(across - x, down - y) < half])

            assert cut.tissue[0, 0] == -1000
            assert around(-95, 0, 8) == pytest.approx(anatomy.tissues.lung, abs=60)
            assert around(0, anatomy.spine[0], 6) == pytest.approx(anatomy.tissues.marrow, abs=1)
            side = anatomy.torso[0] + anatomy.fat / 2
            assert around(side, 0, anatomy.fat / 4) == pytest.approx(anatomy.tissues.fat, abs=15)

    def test_levels(self) -> None:
        dataset = ContrastPhantom(ContrastPhantomOptions())
        levels = np.array([dataset.level(f"train-{index:04d}-00") for index in range(600)])
        assert LEVELS[0] <= levels.min() < LEVELS[0] + 3
        assert LEVELS[1] - 3 < levels.max() <= LEVELS[1]


class TestConfounder:
    def shares(self, folder: Path, **options: Any) -> dict[str, float]:
        """Share of slices with a letter, by split and class; manifest and pixels agree on it."""
        _, images, masks, rows = made(folder, **options)
        found = {}
        for row, image, mask in zip(rows, images, masks, strict=True):
            found.setdefault((row["split"], int(row["label"])), []).append(bool(row["marker"]))
            if row["marker"]:
                top, left, bottom, right = map(int, row["marker"].split())
                letter = image[top : bottom + 1, left : right + 1]
                assert (letter == 1).sum() == marker_mask(64, np.random.default_rng(0)).sum()
                assert not mask[top : bottom + 1, left : right + 1].any()
            else:
                assert image[:12, :12].max() < 0.2
        return {key: np.mean(values) for key, values in found.items()}

    def test_none_by_default(
        self, prepared: tuple[ContrastPhantom, np.ndarray, np.ndarray, list[dict[str, str]]]
    ) -> None:
        assert not any(row["marker"] for row in prepared[3])

    def test_the_letter_tells_the_class_in_training_alone(self, tmp_path: Path) -> None:
        shares = self.shares(tmp_path, confounder=1.0)
        for split in ("train", "validation"):
            assert (shares[split, 0], shares[split, 1]) == (0, 1)
        assert 0.1 < shares["test", 0] < 0.9
        assert 0.1 < shares["test", 1] < 0.9

    def test_shares(self, tmp_path: Path) -> None:
        shares = self.shares(tmp_path, confounder=0.8, confounder_test=0.0)
        band = norm.ppf(0.9999) * np.sqrt(0.16 / 40)
        assert shares["train", 1] == pytest.approx(0.8, abs=band)
        assert shares["train", 0] == pytest.approx(0.2, abs=band)
        assert (shares["test", 0], shares["test", 1]) == (1, 0)

    def test_the_masks_can_mark_the_letters_of_the_same_images(self, tmp_path: Path) -> None:
        (tmp_path / "agent").mkdir()
        (tmp_path / "letter").mkdir()
        _, images, _, rows = made(tmp_path / "agent", confounder=1.0, confounder_test=1.0)
        _, same, letters, _ = made(tmp_path / "letter", confounder=1.0, confounder_test=1.0, truth="letter")
        assert np.array_equal(images, same)
        for row, image, letter in zip(rows, images, letters, strict=True):
            assert letter.any() == bool(row["marker"]) == (row["label"] == "1")
            assert (image[letter] == 1).all()
        with pytest.raises(ValueError, match="only if confounder is set"):
            ContrastPhantomOptions(truth="letter")

    @pytest.mark.parametrize("size", [64, 100, 512])
    def test_the_letter_is_outside_the_body(self, patients: list[tuple[Any, str]], size: int) -> None:
        largest = max(patients, key=lambda pair: pair[0].scale.prod() * pair[0].torso[0])[0]
        body = Scanner(size, 400.0, 4.0).slice(largest, 0.0, np.random.default_rng(0)).body
        for seed in range(10):
            letter = marker_mask(size, np.random.default_rng(seed))
            assert 0.001 < letter.mean() < 0.02
            assert body[letter].max() < 1e-6

    def test_without_letters_the_images_are_the_same(self, patients: list[tuple[Any, str]]) -> None:
        """The letter is put on top: it changes nothing else."""
        anatomy, sample = patients[0]
        dataset = ContrastPhantom(ContrastPhantomOptions(confounder=1.0))
        bare, marked = (dataset.render(anatomy, sample, True, given) for given in (False, True))
        assert bare.image[~marked.marker].tobytes() == marked.image[~marked.marker].tobytes()
