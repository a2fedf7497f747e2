"""A case goes through its samples in batches, and joins what was seen of them."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from xbench import Case, DatasetInfo, Session, Split
from xbench.testing.fakes import fake_case

INFO = DatasetInfo("toy", ("a", "b"), 1, (2, 2))


class Constant(nn.Module):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.ones(len(images), 1)


@pytest.fixture
def case_of(tmp_path: Path) -> Callable[..., Case]:
    def make(count: int, batch_size: int) -> Case:
        ids = [str(index) for index in range(count)]
        split = Split.from_arrays(np.zeros((count, 1, 2, 2), dtype=np.float32), np.zeros(count, dtype=int), ids, ids)
        return fake_case(INFO, split, Constant(), np.zeros((count, 2, 2)), Session(tmp_path, batch_size=batch_size))

    return make


@pytest.mark.parametrize("batch_size", [1, 3, 7, 100])
def test_arrays_are_joined_in_the_order_of_the_samples(case_of: Callable[..., Case], batch_size: int) -> None:
    asked = []

    def work(start: int, stop: int) -> dict[str, np.ndarray]:
        asked.append(stop - start)
        places = np.arange(start, stop)
        return {"place": places, "pair": np.stack([places, -places], axis=1)}

    seen = case_of(7, batch_size).observed(work, "counting")
    assert seen["place"].tolist() == list(range(7))
    assert seen["pair"].tolist() == [[place, -place] for place in range(7)]
    assert max(asked) == min(batch_size, 7)


def test_batches_that_do_not_fit_are_halved(case_of: Callable[..., Case]) -> None:
    def work(start: int, stop: int) -> dict[str, np.ndarray]:
        if stop - start > 2:
            raise torch.OutOfMemoryError
        return {"place": np.arange(start, stop)}

    assert case_of(9, 8).observed(work)["place"].tolist() == list(range(9))
