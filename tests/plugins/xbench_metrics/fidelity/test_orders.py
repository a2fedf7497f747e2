"""Fidelity evaluates no order of pixels twice, and what it remembers changes no number."""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from xbench import Case, DatasetInfo, Metric, Session, Split
from xbench.runtime.mapped import MappedArray
from xbench.runtime.seeding import rng
from xbench.testing.fakes import fake_case
from xbench_metrics.fidelity import orders
from xbench_metrics.fidelity.fidelity import Fidelity
from xbench_metrics.fidelity.options import FidelityOptions

N, BATCH = 12, 4


class Counting:
    """A scorer that counts the images it was given."""

    def __init__(self, score: Callable[[torch.Tensor], torch.Tensor]) -> None:
        self.score, self.images = score, 0

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        self.images += len(images)
        return self.score(images)


def undecided(seed: int, images: np.ndarray) -> nn.Module:
    """A linear network whose boundary runs through the middle of the images: every removal may change a class."""
    torch.manual_seed(seed)
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 2)).requires_grad_(False).eval()
    network[1].bias -= network(torch.from_numpy(images)).mean(0)
    return network


@pytest.fixture
def case(tmp_path: Path) -> Case:
    random = rng(0, "orders")
    images = random.random((N, 1, 8, 8), dtype=np.float32)
    ids = [str(index) for index in range(N)]
    split = Split.from_arrays(images, np.arange(N) % 2, ids, ids)
    maps = random.normal(size=(N, 8, 8)).astype(np.float32)
    info = DatasetInfo("toy", ("a", "b"), 1, (8, 8), removal=(1.0, 0.0))
    made = fake_case(info, split, undecided(0, images), maps, Session(tmp_path, batch_size=BATCH))
    return dataclasses.replace(made, logits_of=Counting(made.logits_of))


def observed(metric: Metric, case: Case, maps: np.ndarray | MappedArray) -> dict[str, np.ndarray]:
    case = dataclasses.replace(case, maps=maps)
    return metric.observe(dataclasses.replace(case, prepared=metric.prepare(case)))


def afresh(case: Case, maps: np.ndarray | MappedArray, **options: Any) -> dict[str, np.ndarray]:
    return observed(Fidelity(FidelityOptions(**options)), case, maps)


def passes(case: Case, work: Callable[[], Any]) -> tuple[Any, int]:
    before = case.logits_of.images
    found = work()
    return found, case.logits_of.images - before


def equal(one: Mapping[str, np.ndarray], other: Mapping[str, np.ndarray]) -> None:
    assert one.keys() == other.keys()
    for name, values in one.items():
        np.testing.assert_array_equal(values, other[name])


@pytest.mark.parametrize("options", [{}, {"score": "logit"}, {"score": "probability", "removal": "opposite"}])
@pytest.mark.parametrize(
    "alike",
    [
        pytest.param(lambda maps: -maps, id="inverted"),
        pytest.param(lambda maps: np.exp(3 * maps), id="monotone"),
        pytest.param(lambda maps: maps.copy(), id="the same"),
    ],
)
def test_an_order_and_its_reverse_are_evaluated_once(
    case: Case, alike: Callable[..., Any], options: dict[str, Any]
) -> None:
    metric = Fidelity(FidelityOptions(**options))
    first, spent = passes(case, lambda: observed(metric, case, case.maps))
    prepared = N  # images of nothing but the fill
    assert spent == prepared + N * 2 * (metric.options.steps - 1)
    again, spent = passes(case, lambda: observed(metric, case, alike(case.maps)))
    assert spent == prepared
    equal(again, afresh(case, alike(case.maps), **options))
    assert not np.array_equal(first["mif"], first["lif"])


def test_a_chunk_with_one_other_order_is_evaluated_whole(case: Case) -> None:
    metric = Fidelity(FidelityOptions())
    observed(metric, case, case.maps)
    maps = -case.maps
    maps[5] = case.maps[4]
    found, spent = passes(case, lambda: observed(metric, case, maps))
    assert spent == N + BATCH * 2 * (metric.options.steps - 1)
    equal(found, afresh(case, maps))


def test_the_reverse_of_a_map_with_ties_is_another_order(case: Case) -> None:
    maps = np.maximum(case.maps, 0)  # type: ignore[arg-type]  # its zeros are ranked at random, and those of -map alike, not in reverse
    metric = Fidelity(FidelityOptions())
    observed(metric, case, maps)
    equal(observed(metric, case, -maps), afresh(case, -maps))


def test_other_images_labels_or_classifiers_are_not_taken_for_those_before(case: Case) -> None:
    metric = Fidelity(FidelityOptions())
    observed(metric, case, case.maps)
    other = undecided(1, case.split.batch(range(N)).images.numpy())
    fake = fake_case(case.info, case.split, other, case.maps, case.session)  # type: ignore[arg-type]
    equal(observed(metric, fake, case.maps), afresh(fake, case.maps))
    images = 1 - case.split.batch(range(N)).images.numpy()
    for split in (
        Split.from_arrays(images, case.split.labels, case.split.ids, case.split.groups),
        Split.from_arrays(1 - images, 1 - case.split.labels, case.split.ids, case.split.groups),
    ):
        changed = dataclasses.replace(case, split=split)
        equal(observed(metric, changed, case.maps), afresh(changed, case.maps))


def test_memory_is_bounded_and_the_oldest_goes(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    metric = Fidelity(FidelityOptions())
    _, whole = passes(case, lambda: observed(metric, case, case.maps))
    monkeypatch.setattr(orders, "_MOST_BYTES", N * 2 * (metric.options.steps - 1))  # of one byte each: one explainer
    draws = rng(2, "orders").normal(size=case.maps.shape).astype(np.float32)
    assert passes(case, lambda: observed(metric, case, draws))[1] == whole
    assert passes(case, lambda: observed(metric, case, -draws))[1] == N
    assert passes(case, lambda: observed(metric, case, case.maps))[1] == whole


def test_a_scorer_that_can_not_be_referred_to_is_asked_every_time(case: Case) -> None:
    class Slotted:
        __slots__ = ("counting",)

        def __init__(self, counting: Callable[[torch.Tensor], torch.Tensor]) -> None:
            self.counting = counting

        def __call__(self, images: torch.Tensor) -> torch.Tensor:
            return self.counting(images)

    metric = Fidelity(FidelityOptions())
    slotted = dataclasses.replace(case, logits_of=Slotted(case.logits_of))
    spent = [passes(case, lambda: observed(metric, slotted, case.maps))[1] for _ in range(2)]
    assert spent[0] == spent[1] > N
