"""Testers: who is held out, which can be trained on what, and what the small one can tell apart."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from xbench import DatasetInfo, Session, Split, UserError
from xbench.runtime.seeding import rng
from xbench.testing.fakes import FakeDataset, FakeOptions
from xbench_metrics.retraining import testers
from xbench_metrics.retraining.accuracy import KeepAccuracy
from xbench_metrics.retraining.options import KeepAccuracyOptions
from xbench_metrics.retraining.testers import TinyTester, hold_out


@settings(max_examples=40, deadline=None)
@given(
    patients=st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=4), min_size=6, max_size=30),
    share=st.floats(0.05, 0.6),
    seed=st.integers(0, 99),
)
def test_patients_are_held_out_whole_and_classes_stay(patients: list[list[int]], share: float, seed: int) -> None:
    labels = np.concatenate(patients)
    groups = np.repeat([f"p{index}" for index in range(len(patients))], [len(rows) for rows in patients])
    split = Split.from_arrays(np.zeros((len(labels), 1, 1, 1)), labels, [str(i) for i in range(len(labels))], groups)  # type: ignore[arg-type]
    try:
        learn, stop = hold_out(split, share, seed)
    except UserError:
        # Whoever is held out takes the last image of some class away.
        assert all(any(np.all(labels[groups != name] != label) for label in labels[groups == name]) for name in groups)
        return
    assert sorted([*learn, *stop]) == list(range(len(labels)))
    assert not set(groups[learn]) & set(groups[stop])
    assert set(labels[learn]) == set(labels)
    assert len(stop) >= 1


def test_the_share_held_out_is_that_of_every_class() -> None:
    images = np.zeros((200, 1, 1, 1), dtype=np.float32)
    ids = [str(index) for index in range(200)]
    split = Split.from_arrays(images, np.arange(200) // 2 % 2, ids, [str(index // 2) for index in range(200)])
    _, stop = hold_out(split, 0.2, 0)
    assert np.bincount(split.labels[stop]).tolist() == [20, 20]
    order = rng(0, "order").permutation(200)
    turned = split.select(order)
    assert {turned.ids[index] for index in hold_out(turned, 0.2, 0)[1]} == {split.ids[index] for index in stop}
    assert set(hold_out(split, 0.2, 1)[1]) != set(stop)


def test_a_tester_that_can_not_be_is_refused_before_the_run() -> None:
    def supports(tester: str, spatial: tuple[int, ...] = (32, 32)) -> str | None:
        return KeepAccuracy(KeepAccuracyOptions(tester=tester)).supports(DatasetInfo("toy", ("a", "b"), 1, spatial))

    assert supports("tiny", (8, 8, 8)) is None
    assert supports("timm:resnet18") is None
    assert "resnet18" in supports("timm:resnet81")
    assert "use tester=tiny" in supports("timm:resnet18", (8, 8, 8))


@pytest.mark.parametrize("spatial", [(8, 8), (33, 27), (5, 6, 7), (3, 3)])
def test_the_tiny_tester_takes_any_size(spatial: tuple[int, ...]) -> None:
    logits = TinyTester(2, spatial, 3)(torch.rand(4, 2, *spatial))
    assert logits.shape == (4, 3)


def test_a_tester_learns_shapes_and_is_the_same_again(tmp_path: Path) -> None:
    dataset = FakeDataset(FakeOptions(train=64, test=40))
    dataset.prepare(tmp_path, Session(tmp_path))
    train, test = dataset.open("train", tmp_path), dataset.open("test", tmp_path)
    answers = []
    for name in ("first", "again"):
        (tmp_path / name).mkdir()
        panel = testers.Testers(KeepAccuracyOptions(seeds=2), dataset.info, 1, Session(tmp_path / name))
        answers.append(panel.answers(train, test, "images"))
    assert np.array_equal(*answers)  # type: ignore[arg-type]
    assert (answers[0] == test.labels[:, None]).mean() > 0.8
