"""Keep and occlude accuracy: closed forms, plain loops, curves, testers, and what a killed training leaves."""

import dataclasses
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, balanced_accuracy_score
from torch import nn

import xbench_metrics
from xbench import Case, DatasetInfo, Metric, MetricSpec, Session, Split, TrainMaps, UserError
from xbench.contracts.session import Bar, SilentProgress
from xbench.runtime.seeding import rng
from xbench.testing import parametrize_with_checks
from xbench.testing.fakes import fake_case
from xbench.testing.networks import ConvNetwork
from xbench_metrics.retraining.accuracy import KeepAccuracy, OccludeAccuracy, mean_over_samples
from xbench_metrics.retraining.options import KeepAccuracyOptions, OccludeAccuracyOptions

SIDE, DECIDING = 12, 27
QUICK = {"epochs": 15, "patience": 15, "learning_rate": 5e-3}


def split_of(images: np.ndarray, labels: np.ndarray, per_patient: int = 2) -> Split:
    ids = [f"sample-{index}" for index in range(len(images))]
    groups = [f"patient-{index // per_patient}" for index in range(len(images))]
    return Split.from_arrays(np.asarray(images, dtype=np.float32), np.asarray(labels), ids, groups)


def noise(count: int, name: str, spatial: tuple[int, ...] = (SIDE, SIDE)) -> Split:
    """Noise whose deciding pixel is the class: 0 or 1; two images a patient."""
    images = 0.45 + 0.1 * rng(0, name).random((count, 1, *spatial), dtype=np.float32)
    labels = np.arange(count) // 2 % 2
    images.reshape(count, -1)[:, DECIDING] = labels
    return split_of(images, labels)


def deciding(split: Split) -> np.ndarray:
    maps = np.zeros((len(split), SIDE * SIDE), dtype=np.float32)
    maps[:, DECIDING] = 1
    return maps.reshape(-1, SIDE, SIDE)


def random(split: Split) -> np.ndarray:
    return rng(1, "maps", len(split)).random((len(split), SIDE, SIDE), dtype=np.float32)


def constant(split: Split) -> np.ndarray:
    return np.ones((len(split), SIDE, SIDE), dtype=np.float32)


class OnePixel(nn.Module):
    """Class 1 exactly where the deciding pixel is above one half."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.flatten(1)[:, DECIDING : DECIDING + 1] - 0.5


def case_of(
    folder: Path,
    maps: Callable[[Split], np.ndarray] = deciding,
    module: nn.Module | None = None,
    train: Split | None = None,
    test: Split | None = None,
    info: DatasetInfo | None = None,
    batch_size: int = 32,
    **session: Any,
) -> Case:
    folder.mkdir(parents=True, exist_ok=True)
    train, test = train or noise(64, "train"), test or noise(30, "test")
    info = info or DatasetInfo("toy", ("zero", "one"), 1, (SIDE, SIDE))
    learned = TrainMaps(train, maps(train), train.labels)
    work = Session(folder, batch_size=batch_size, **session)
    return fake_case(info, test, module or OnePixel(), maps(test), work, train=learned, training=train)


def observed(metric: Metric, case: Case) -> dict[str, np.ndarray]:
    prepared = metric.prepare(dataclasses.replace(case, maps=np.empty((0,), dtype=np.float32)))
    case = dataclasses.replace(case, prepared=prepared)
    return {**metric.observe(case), "label": case.split.labels, "target": case.targets}


def keep(case: Case, **options: Any) -> tuple[Any, dict[str, np.ndarray]]:
    metric = KeepAccuracy(KeepAccuracyOptions(**{**QUICK, **options}))
    return metric, observed(metric, case)


def occlude(case: Case, **options: Any) -> tuple[Any, dict[str, np.ndarray]]:
    metric = OccludeAccuracy(OccludeAccuracyOptions(**options))
    return metric, observed(metric, case)


# --- closed forms -----------------------------------------------------------------------------------------------------


def test_keeping_everything_is_the_original(tmp_path: Path) -> None:
    metric, seen = keep(case_of(tmp_path, constant), threshold=1, seeds=2)
    assert seen["kept"].tolist() == [[1]] * 30
    assert np.array_equal(seen["right"][:, 0], seen["right_original"])
    assert metric.summarise(seen) == seen["right_original"].mean() > 0.7


def test_keeping_nothing_is_a_constant_answer(tmp_path: Path) -> None:
    metric, seen = keep(case_of(tmp_path, constant), seeds=2)
    assert seen["kept"].tolist() == [[0]] * 30
    for tester in seen["right"][:, 0].T:
        assert len(np.unique(tester == (seen["label"] == 1))) == 1
    assert metric.summarise(seen) in {1 - seen["label"].mean(), seen["label"].mean(), 0.5}


def test_occluding_nothing_is_the_original_and_everything_a_constant_answer(tmp_path: Path) -> None:
    case = case_of(tmp_path, constant)
    metric, nothing = occlude(case)
    assert nothing["occluded"].tolist() == [[0]] * 30
    assert np.array_equal(nothing["right"][:, 0], nothing["right_original"])
    assert metric.summarise(nothing) == 1
    metric, everything = occlude(case, threshold=1)
    assert np.array_equal(everything["right"][:, 0], everything["right_blank"])
    assert np.array_equal(everything["right_blank"], case.split.labels == 0)
    assert metric.summarise(everything) == np.mean(case.split.labels == 0)


def test_the_deciding_pixel_suffices_and_is_missed(tmp_path: Path) -> None:
    case = case_of(tmp_path)
    metric, kept = keep(case)
    assert metric.summarise(kept) == 1
    assert np.allclose(kept["kept"], 1 / SIDE**2)
    metric, occluded = occlude(case)
    assert occluded["predicted"].tolist() == [[0]] * 30  # the deciding pixel is filled with zero
    assert metric.summarise(occluded) == np.mean(case.split.labels == 0)


def test_shares_kept_and_left_add_up_to_the_whole(tmp_path: Path) -> None:
    case = case_of(tmp_path, random)
    for options in ({}, {"shares": "0.1,0.5"}):
        kept, occluded = keep(case, epochs=0, **options)[1]["kept"], occlude(case, **options)[1]["occluded"]
        assert np.array_equal(kept, occluded)
    np.testing.assert_allclose(100 * kept + 100 * (1 - occluded), 100, rtol=1e-14)


def test_a_random_map_lies_between_nothing_and_the_deciding_pixel(tmp_path: Path) -> None:
    best, middle = (keep(case_of(tmp_path, maps), shares="0.1")[1] for maps in (deciding, random))
    # One image in ten keeps its deciding pixel; the others leave a guess.
    assert best["right"].mean() == 1
    assert 0.3 < middle["right"].mean() < 0.8


def test_fill_is_what_takes_the_place_of_a_pixel(tmp_path: Path) -> None:
    class Mean(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return images.mean((1, 2, 3))[:, None] - 0.1

    case = case_of(tmp_path, constant, module=Mean())
    assert occlude(case, threshold=1)[1]["predicted"].sum() == 0
    assert occlude(case, threshold=1, fill="mean")[1]["predicted"].tolist() == [[1]] * 30


# --- independent computations, aggregation ----------------------------------------------------------------------------


@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_occlusion_agrees_with_plain_loops(tmp_path: Path, batch_size: int) -> None:
    torch.manual_seed(0)
    module = ConvNetwork(1, 2).eval()
    module.head.weight.data *= 30
    case = case_of(tmp_path, random, module=module, batch_size=batch_size)
    images = case.split.batch(range(30)).images.numpy()
    for options, limit in (({}, 0.1), ({"threshold": 0.25}, 0.75)):
        metric, seen = occlude(case, fill="mean", **options)
        predicted = []
        for image, map_ in zip(images, case.maps, strict=True):  # type: ignore[arg-type]
            scaled = (map_ - map_.min()) / (map_.max() - map_.min())
            holed = np.where(scaled >= limit, case.train_mean[:, None, None], image)
            predicted.append(int(module(torch.from_numpy(holed)[None])[0].argmax()))
        assert seen["predicted"][:, 0].tolist() == predicted
        assert metric.summarise(seen) == pytest.approx(accuracy_score(case.split.labels, predicted), abs=1e-12)
        balanced = OccludeAccuracy(OccludeAccuracyOptions(accuracy="balanced")).summarise(seen)
        assert balanced == pytest.approx(balanced_accuracy_score(case.split.labels, predicted), abs=1e-12)


def test_several_shares_give_a_curve_and_the_area_under_it(tmp_path: Path) -> None:
    torch.manual_seed(1)
    module = ConvNetwork(1, 2)
    module.head.weight.data *= 30
    metric, seen = occlude(case_of(tmp_path, random, module=module), shares="0,0.2,0.3,1")
    curves = metric.curves(seen)
    assert curves.x.tolist() == pytest.approx([0, 20, 30, 100])
    heights = curves.y["accuracy"]
    assert heights[0] == seen["right_original"].mean()
    assert heights[-1] == seen["right_blank"].mean()
    assert metric.summarise(seen) == pytest.approx(np.trapezoid(heights, curves.x) / 100, abs=1e-12)
    some = {key: values[[3, 4, 4, 9, 20]] for key, values in seen.items()}
    area = np.trapezoid(metric.curves(some).y["accuracy"], curves.x) / 100
    assert metric.summarise(some) == pytest.approx(area, abs=1e-12)
    assert occlude(case_of(tmp_path, random, module=module), shares="0.2")[0].curves(seen) is None


def test_the_keep_curve_has_a_tester_for_every_share_and_seed(tmp_path: Path) -> None:
    metric, seen = keep(case_of(tmp_path), shares="0.05,0.2,0.5", seeds=2, epochs=2)
    assert seen["right"].shape == (30, 3, 2)
    assert seen["right_original"].shape == (30, 2)
    assert np.allclose(seen["kept"], np.floor(np.array([0.05, 0.2, 0.5]) * 144 + 0.5) / 144)
    expected = np.trapezoid(seen["right"].mean((0, 2)), [0.05, 0.2, 0.5]) / 0.45
    assert metric.summarise(seen) == pytest.approx(expected, abs=1e-12)


def test_no_sample_and_one_class() -> None:
    labels, values = np.array([1, 1, 0]), np.array([1.0, 0.0, 1.0])
    assert mean_over_samples(values, labels, "balanced") == 0.75
    assert mean_over_samples(values, labels, "plain") == pytest.approx(2 / 3)
    assert mean_over_samples(values[:2], labels[:2], "balanced") == 0.5
    with np.errstate(all="raise"):
        assert np.isnan(mean_over_samples(values[:0], labels[:0], "plain"))


def test_order_and_batch_size_change_nothing(tmp_path: Path) -> None:
    case = case_of(tmp_path, random)
    order = rng(0, "order").permutation(30)
    turned = dataclasses.replace(case, split=case.split.select(order), maps=case.maps[order], logits=case.logits[order])
    small = dataclasses.replace(case, session=dataclasses.replace(case.session, batch_size=7))
    for run in (keep, occlude):
        _, expected = run(case)
        _, seen = run(turned)
        for name in expected.keys() - {"target"}:
            assert np.array_equal(seen[name], expected[name][order])
        _, seen = run(small)
        for name in expected:
            assert np.array_equal(seen[name], expected[name])


# --- testers ----------------------------------------------------------------------------------------------------------


class Killed(SilentProgress):
    """The progress of a run that is killed after so many steps."""

    def __init__(self, after: float = np.inf) -> None:
        super().__init__()
        self.left, self.labels = after, []

    @contextmanager
    def task(self, label: str, total: float | None = None) -> Iterator[Bar]:
        self.labels.append(label)
        yield self

    def advance(self, amount: float = 1) -> None:
        self.left -= amount
        if self.left < 0:
            raise KeyboardInterrupt

    def note(self, text: str) -> None:
        pass


def test_a_killed_run_goes_on_and_ends_the_same(tmp_path: Path) -> None:
    metric = KeepAccuracy(KeepAccuracyOptions(epochs=3, seeds=2))
    prepared = {"original": np.ones((30, 2), dtype=bool)}
    runs, again = {}, case_of(tmp_path / "sizes", random)
    masked = len(again.train.split) + len(again.split)
    for name, after in (("whole", np.inf), ("killed", masked + 1 + 3 + 1 + 1.3)):  # masking, tester 0, its step
        case = case_of(tmp_path / name, random, progress=Killed(after), batch_size=64)
        runs[name] = dataclasses.replace(case, prepared=prepared)
    expected = metric.observe(runs["whole"])
    with pytest.raises(KeyboardInterrupt):
        metric.observe(runs["killed"])
    assert (tmp_path / "killed" / "testers" / "level-0-0.npy").exists()
    assert not (tmp_path / "killed" / "testers" / "level-0-1.npy").exists()
    runs["killed"].session.progress.left = np.inf
    runs["killed"].session.progress.labels.clear()
    seen = metric.observe(runs["killed"])
    assert np.array_equal(seen["right"], expected["right"])
    assert runs["killed"].session.progress.labels.count("training") == 1
    assert not [*(tmp_path / "killed").iterdir()]


def test_originals_are_learned_once_for_all_explainers(tmp_path: Path) -> None:
    case = case_of(tmp_path, random)
    metric = KeepAccuracy(KeepAccuracyOptions(**QUICK, seeds=2))
    prepared = metric.prepare(dataclasses.replace(case, train=None, maps=np.empty((0,), dtype=np.float32)))
    assert prepared["original"].shape == (30, 2)
    assert prepared["original"].mean() > 0.7  # the deciding pixel is there
    given = dataclasses.replace(case, prepared={"original": ~prepared["original"]})
    assert np.array_equal(metric.observe(given)["right_original"], ~prepared["original"])


def test_what_no_tester_can_learn_is_said(tmp_path: Path) -> None:
    lonely = split_of(np.zeros((8, 1, SIDE, SIDE)), np.arange(8) // 4, per_patient=4)
    with pytest.raises(UserError, match="one patient"):
        keep(case_of(tmp_path / "lonely", train=lonely))
    of_one_class = split_of(np.zeros((8, 1, SIDE, SIDE)), np.zeros(8, dtype=int))
    with pytest.raises(UserError, match="no training image of class one"):
        keep(case_of(tmp_path / "one", train=of_one_class))


def test_a_tester_of_timm_and_one_for_volumes(tmp_path: Path) -> None:
    _, seen = keep(case_of(tmp_path), tester="timm:test_resnet", epochs=1)
    assert seen["right"].shape == (30, 1, 1)
    train, test = noise(20, "train", (4, 6, 6)), noise(6, "test", (4, 6, 6))
    info = DatasetInfo("toy", ("zero", "one"), 1, (4, 6, 6))
    _, seen = keep(case_of(tmp_path, lambda split: np.ones((len(split), 4, 6, 6)), None, train, test, info), epochs=1)
    assert seen["right"].shape == (6, 1, 1)


# --- the contract -----------------------------------------------------------------------------------------------------


def test_directions_and_cards() -> None:
    info = DatasetInfo("toy", ("a", "b"), 1, (32, 32))
    high, low = KeepAccuracy(KeepAccuracyOptions()), OccludeAccuracy(OccludeAccuracyOptions(shares="0.1"))
    assert high.higher_is_better
    assert high.expensive
    assert high.needs == {"train"}
    assert not low.higher_is_better
    assert not low.expensive
    cards = [json.dumps(metric.card(info), sort_keys=True, allow_nan=False) for metric in (high, low)]
    assert "I + T >= 1" in cards[0]
    assert "highest values" in cards[1]


def named(name: str) -> list[MetricSpec]:
    return [spec for spec in xbench_metrics.xbench_metrics() if spec.name == name]


@parametrize_with_checks(named("occlude_accuracy"), shares="0.1,0.5")
def test_conformance(check: Callable[..., None]) -> None:
    check()


@parametrize_with_checks(named("keep_accuracy"), shares="0.1,0.5", epochs=1)
def test_conformance_of_keep_accuracy(check: Callable[..., None]) -> None:
    check()


@parametrize_with_checks(named("mask_only_accuracy"), epochs=1, seeds=2)
def test_conformance_of_mask_only_accuracy(check: Callable[..., None]) -> None:
    check()
