"""Masks that are the message are found out, and those that are not are let off."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from xbench import Case, DatasetInfo, Metric, Options, Session, Split, TrainMaps
from xbench.runtime.seeding import rng
from xbench.testing.fakes import fake_case
from xbench_metrics.retraining.accuracy import KeepAccuracy
from xbench_metrics.retraining.leaks import MaskOnlyAccuracy, MaskSwapAgreement, partners
from xbench_metrics.retraining.options import KeepAccuracyOptions, MaskOnlyAccuracyOptions

SIDE = 12
QUICK = {"epochs": 15, "patience": 15, "learning_rate": 5e-3}


class Blind(nn.Module):
    """One logit that does not depend on the image."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.flatten(1).sum(1, keepdim=True) * 0 + 1


def noise(count: int, name: str, classes: int = 2, channels: int = 1) -> Split:
    """Images that know nothing of their labels; two a patient."""
    images = 0.2 + 0.6 * rng(0, name).random((count, channels, SIDE, SIDE), dtype=np.float32)
    labels = np.arange(count) // 2 % classes
    ids = [f"{name}-{index}" for index in range(count)]
    return Split.from_arrays(images, labels, ids, [f"{name}-patient-{index // 2}" for index in range(count)])


def label_in_the_corner(split: Split) -> np.ndarray:
    """The leak of all leaks: the top-left pixel is important where the class is 1."""
    maps = np.zeros((len(split), SIDE, SIDE), dtype=np.float32)
    maps[:, 0, 0] = split.labels
    return maps


def random(split: Split) -> np.ndarray:
    return rng(1, "maps", len(split)).random((len(split), SIDE, SIDE), dtype=np.float32)


def case_of(
    folder: Path,
    maps: Callable[[Split], np.ndarray],
    explanation: Any = None,
    test: Split | None = None,
    classes: int = 2,
    **more: Any,
) -> Case:
    train, test = noise(64, "train", classes), test or noise(40, "test", classes)
    info = DatasetInfo("toy", ("zero", "one", "two")[:classes], 1, (SIDE, SIDE))
    learned = TrainMaps(train, maps(train), train.labels)
    return fake_case(
        info, test, Blind(), maps(test), Session(folder), train=learned, training=train, explanation=explanation, **more
    )


def value(metric: Metric, case: Case) -> tuple[float, dict[str, np.ndarray]]:
    seen = {**metric.observe(case), "label": case.split.labels, "target": case.targets}
    return metric.summarise(seen), seen


# --- mask-only accuracy -----------------------------------------------------------------------------------------------


def test_a_mask_made_of_the_label_has_perfect_keep_and_mask_only_accuracy(tmp_path: Path) -> None:
    case = case_of(tmp_path, label_in_the_corner)
    metric = KeepAccuracy(KeepAccuracyOptions(**QUICK))
    keep, seen = value(metric, dataclasses.replace(case, prepared=metric.prepare(case)))
    only, shown = value(MaskOnlyAccuracy(MaskOnlyAccuracyOptions(**QUICK)), case)
    assert keep == only == 1
    assert seen["kept"].max() == 1 / SIDE**2
    assert np.array_equal(seen["kept"], shown["kept"])
    assert seen["right_original"].mean() < 0.8  # the images themselves know nothing: 0.5 expected


def test_a_mask_without_a_message_has_mask_only_accuracy_at_chance(tmp_path: Path) -> None:
    chance, _ = value(MaskOnlyAccuracy(MaskOnlyAccuracyOptions(shares="0.3", **QUICK)), case_of(tmp_path, random))
    assert 0.2 < chance < 0.8  # 0.5 expected, 3.8 standard deviations of 40 guesses


def test_an_empty_mask_has_that_of_a_constant_answer(tmp_path: Path) -> None:
    metric = MaskOnlyAccuracy(MaskOnlyAccuracyOptions(**QUICK))
    chance, seen = value(metric, case_of(tmp_path, lambda split: np.ones((len(split), SIDE, SIDE), dtype=np.float32)))
    assert chance == 0.5
    assert len(np.unique(seen["right"][:, 0, 0] == (seen["label"] == 1))) == 1


def test_the_image_itself_is_never_shown(tmp_path: Path) -> None:
    case = case_of(tmp_path, random)
    black = np.zeros((40, 1, SIDE, SIDE), dtype=np.float32)
    dark = dataclasses.replace(
        case, split=Split.from_arrays(black, case.split.labels, case.split.ids, case.split.groups)
    )
    metric = MaskOnlyAccuracy(MaskOnlyAccuracyOptions(shares="0.3", seeds=2, epochs=3))
    assert np.array_equal(value(metric, case)[1]["right"], value(metric, dark)[1]["right"])
    assert not metric.higher_is_better
    assert metric.needs == {"train"}


# --- mask-swap agreement ----------------------------------------------------------------------------------------------


class ReadsImage:
    """Its classifier looks at the brightest of the first pixels: `image_with_label` writes the class there."""

    def masked_logits(self, images: torch.Tensor, maps: torch.Tensor) -> torch.Tensor:
        del maps
        return images.flatten(1)[:, :3]


class ReadsMap:
    """Its classifier looks at the map alone: `map_with_label` writes the class there."""

    def masked_logits(self, images: torch.Tensor, maps: torch.Tensor) -> torch.Tensor:
        del images
        return maps.flatten(1)[:, :3]


def image_with_label(split: Split, wrong: Sequence[int] = ()) -> Split:
    images = split.batch(range(len(split))).images.numpy().copy()
    said = split.labels.copy()
    said[list(wrong)] = (said[list(wrong)] + 1) % 3
    images.reshape(len(images), -1)[:, :3] = np.eye(3)[said]
    return Split.from_arrays(images, split.labels, split.ids, split.groups)


def map_with_label(split: Split) -> np.ndarray:
    maps = random(split)
    maps.reshape(len(maps), -1)[:, :3] = np.eye(3)[split.labels]
    return maps


def swap_case(
    folder: Path,
    explanation: Any,
    test: Split | None = None,
    maps: Callable[[Split], np.ndarray] = map_with_label,
    batch_size: int = 7,
) -> Case:
    case = case_of(folder, maps, explanation, test or image_with_label(noise(60, "test", 3)), 3)
    return dataclasses.replace(case, session=Session(folder, batch_size=batch_size))


def test_a_classifier_that_reads_the_image_never_follows(tmp_path: Path) -> None:
    agreement, seen = value(MaskSwapAgreement(Options()), swap_case(tmp_path, ReadsImage()))
    assert agreement == 0
    assert seen["follows_image"].all()
    assert seen["right_own"].all()


def test_a_classifier_that_reads_the_map_always_follows(tmp_path: Path) -> None:
    agreement, seen = value(MaskSwapAgreement(Options()), swap_case(tmp_path, ReadsMap()))
    assert agreement == 1
    assert not seen["follows_image"].any()
    assert seen["follows_owner_answer"].all()
    assert not seen["agreed_before"].any()


def test_errors_of_a_classifier_that_ignores_the_map_are_the_level_before(tmp_path: Path) -> None:
    test = image_with_label(noise(60, "test", 3), wrong=range(0, 60, 2))
    agreement, seen = value(MaskSwapAgreement(Options()), swap_case(tmp_path, ReadsImage(), test))
    assert agreement > 0
    assert np.array_equal(seen["follows_owner"], seen["agreed_before"])
    assert np.array_equal(seen["follows_image"], seen["right_own"])


def test_a_classifier_that_guesses_follows_one_time_in_k(tmp_path: Path) -> None:
    class Guesses:
        def masked_logits(self, images: torch.Tensor, maps: torch.Tensor) -> torch.Tensor:
            # Depends on both, on no class.
            return (images.flatten(1)[:, 10:13] * 977 + maps.flatten(1)[:, 10:13] * 911) % 1

    agreement, _ = value(MaskSwapAgreement(Options()), swap_case(tmp_path, Guesses(), noise(600, "test", 3)))
    assert agreement == pytest.approx(1 / 3, abs=4 * np.sqrt(2 / 9 / 600))


def test_batches_and_order_change_nothing(tmp_path: Path) -> None:
    class Both:
        def masked_logits(self, images: torch.Tensor, maps: torch.Tensor) -> torch.Tensor:
            return images.flatten(1)[:, :3] + 1.5 * maps.flatten(1)[:, 5:8]

    case = swap_case(tmp_path, Both(), image_with_label(noise(60, "test", 3)))
    _, expected = value(MaskSwapAgreement(Options()), case)
    assert 0 < expected["follows_image"].mean() < 1
    order = rng(0, "order").permutation(60)
    turned = dataclasses.replace(case, split=case.split.select(order), maps=case.maps[order], targets=case.targets)
    larger = dataclasses.replace(case, session=Session(tmp_path, batch_size=64))
    for name, values in value(MaskSwapAgreement(Options()), turned)[1].items():
        if name != "target":
            assert np.array_equal(values, expected[name][order])
    for name, values in value(MaskSwapAgreement(Options()), larger)[1].items():
        assert np.array_equal(values, expected[name])


def test_without_a_partner_nothing_is_said(tmp_path: Path) -> None:
    test = noise(10, "test", 1)
    agreement, seen = value(MaskSwapAgreement(Options()), swap_case(tmp_path, ReadsMap(), test))
    assert np.isnan(agreement)
    assert np.isnan(seen["follows_owner"]).all()
    metric = MaskSwapAgreement(Options())
    with np.errstate(all="raise"):
        assert np.isnan(metric.summarise({"follows_owner": np.empty(0)}))
        assert metric.summarise({"follows_owner": np.array([1, np.nan, 0, 0])}) == pytest.approx(1 / 3)


# --- partners ---------------------------------------------------------------------------------------------------------


def labelled(labels: Sequence[int] | np.ndarray, groups: Sequence[str]) -> Split:
    ids = [f"sample-{index}" for index in range(len(labels))]
    return Split.from_arrays(np.zeros((len(labels), 1, 1, 1), dtype=np.float32), np.array(labels), ids, groups)


def test_partners_are_of_another_class_and_patient_and_evenly_drawn() -> None:
    labels = np.arange(3000) % 3
    groups = [f"patient-{index % 40}" for index in range(3000)]
    partner = partners(labelled(labels, groups))
    assert (labels[partner] != labels).all()
    assert all(groups[index] != groups[other] for index, other in enumerate(partner))
    counts = np.bincount(partner, minlength=3000)
    assert counts.mean() == 1
    assert counts.var() == pytest.approx(1, abs=0.25)  # a Poisson variance: nobody is everybody's partner


def test_the_next_patient_is_taken_and_nobody_where_there_is_none() -> None:
    split = labelled([0, 1, 1, 0], ["a", "a", "b", "a"])
    assert partners(split)[[0, 3]].tolist() == [2, 2]
    assert partners(split)[1] == -1  # those of the other class are all of its own patient
    assert partners(split)[2] in {0, 3}


def test_partners_depend_on_the_seed_of_the_run() -> None:
    split = labelled(np.arange(50) % 2, [str(index) for index in range(50)])
    everyone = np.arange(50)
    assert np.array_equal(partners(split.select(everyone, 1)), partners(split.select(everyone, 1)))
    assert not np.array_equal(partners(split.select(everyone, 1)), partners(split.select(everyone, 2)))


def test_the_maps_handed_over_are_the_own_and_the_partners(tmp_path: Path) -> None:
    given = []

    class Recorder:
        def masked_logits(self, images: torch.Tensor, maps: torch.Tensor) -> torch.Tensor:
            given.append(maps)
            return images.flatten(1)[:, :3]

    case = swap_case(tmp_path, Recorder(), batch_size=60)
    MaskSwapAgreement(Options()).observe(case)
    own, swapped = given
    assert torch.equal(own, torch.from_numpy(case.maps))
    assert torch.equal(swapped, torch.from_numpy(case.maps[partners(case.split)]))
