"""Many passes in few rows: the same numbers, whatever fits."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest
import torch
from torch import nn

from xbench.compute import passes
from xbench.testing.networks import ConvNetwork, LinearNetwork


def test_the_mean_over_samples_does_not_depend_on_the_rows_of_a_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    images = torch.rand(3, 1, 4, 4)
    scale = torch.arange(1.0, 8.0)

    def sample(which: slice | torch.Tensor, number: torch.Tensor) -> torch.Tensor:
        return images[which] * scale[number].view(-1, 1, 1, 1)

    expected = images * scale.mean()
    for rows in (1, 2, 5, 100):
        monkeypatch.setattr(passes, "rows_of", lambda images, rows=rows: rows)
        torch.testing.assert_close(passes.mean_over_samples(images, 7, sample), expected)


def test_chunks_are_halved_when_the_memory_runs_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passes, "rows_of", lambda images: 16)
    done = []

    def work(start: int, stop: int) -> None:
        if stop - start > 4:
            raise torch.OutOfMemoryError
        done.append((start, stop))

    passes.chunks(10, torch.zeros(1, 1, 2, 2), work)
    assert done == [(0, 3), (3, 6), (6, 9), (9, 10)]

    def never(start: int, stop: int) -> None:
        raise torch.OutOfMemoryError

    with pytest.raises(torch.OutOfMemoryError):
        passes.chunks(4, torch.zeros(1, 1, 2, 2), never)


def test_chunks_stay_halved_while_the_model_is_unchanging(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passes, "rows_of", lambda images: 16)
    asked = []

    def work(start: int, stop: int) -> None:
        asked.append(stop - start)
        if stop - start > 4:
            raise torch.OutOfMemoryError

    model, images, others = nn.Identity(), torch.zeros(1, 1, 2, 2), torch.zeros(1, 1, 3, 3)
    with passes.unchanging(model):
        passes.chunks(16, images, work)
        assert asked[:3] == [16, 8, 4]
        asked.clear()
        passes.chunks(16, images, work)
        assert asked == [4] * 4
        asked.clear()
        passes.chunks(16, others, work)
        assert asked[0] == 16  # what is larger or smaller is tried by itself
    asked.clear()
    passes.chunks(16, images, work)
    assert asked[0] == 16


def test_rows_shrink_with_the_image() -> None:
    small, large = torch.zeros(1, 1, 64, 64), torch.zeros(1, 3, 224, 224)
    assert passes.rows_of(small) == 64
    assert 1 <= passes.rows_of(large) <= 4
    assert passes.rows_of(torch.zeros(1, 1, 4096, 4096)) == 1


def test_gradients_of_a_linear_model_are_its_weights() -> None:
    network = LinearNetwork(1, (4, 4), 2)
    found = passes.gradients(network, torch.rand(3, 1, 4, 4), torch.tensor([0, 1, 1]))
    torch.testing.assert_close(found.flatten(1), network.linear.weight[[0, 1, 1]].detach())


def test_one_logit_has_opposite_scores() -> None:
    network = LinearNetwork(1, (4, 4), 1)
    images = torch.rand(2, 1, 4, 4)
    scores = passes.target_scores(network, images, torch.tensor([1, 0]))
    torch.testing.assert_close(scores, network(images)[:, 0] * torch.tensor([1.0, -1.0]))


def test_the_gradient_of_a_blind_model_is_zero() -> None:
    class Blind(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return images.new_ones(len(images), 2)

    assert not passes.gradients(Blind(), torch.rand(2, 1, 4, 4), torch.tensor([0, 1])).any()


def test_forward_gives_the_models_scores_and_leaves_it_alone() -> None:
    network = ConvNetwork(1, 2, batch_norm=True).eval().requires_grad_(False)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    images = torch.rand(150, 1, 16, 16)
    state = {name: value.clone() for name, value in network.state_dict().items()}
    score = passes.forward(network, images)
    torch.testing.assert_close(score(images), network(images), rtol=1e-4, atol=1e-5)
    assert all(torch.equal(value, network.state_dict()[name]) for name, value in state.items())


def test_forward_falls_back_to_the_model_itself() -> None:
    class Counting(nn.Module):
        """Its logits depend on its dtype's layout: no copy in another layout is the same."""

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return images.flatten(1)[:, :2] * (1 + images.is_contiguous(memory_format=torch.contiguous_format))

    images = torch.rand(4, 3, 6, 6)
    score = passes.forward(Counting(), images)
    torch.testing.assert_close(score(images), 2 * images.flatten(1)[:, :2])


def test_the_differentiable_copy_gives_the_models_gradients() -> None:
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Softplus(), nn.Flatten(), nn.Linear(4 * 36, 3))
    model(torch.rand(16, 1, 8, 8))  # the running statistics move
    model.eval().requires_grad_(False)
    images, targets = torch.rand(5, 1, 8, 8), torch.tensor([0, 1, 2, 0, 1])
    copy = passes.differentiable(model, images, passes=1000)
    assert copy is not model
    torch.testing.assert_close(
        passes.gradients(copy, images, targets), passes.gradients(model, images, targets), atol=1e-6, rtol=1e-5
    )


def test_a_copy_is_made_where_it_pays_and_once_for_a_model_that_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    make = passes._make_equivalent
    monkeypatch.setattr(passes, "_make_equivalent", lambda *what: made.append(what) or make(*what))
    model, images = ConvNetwork(1, 2).eval().requires_grad_(False), torch.rand(2, 1, 8, 8)
    assert passes.differentiable(model, images, passes=2) is model
    assert not made
    with passes.unchanging(model):
        for _ in range(3):
            passes.differentiable(model, images, passes=2)
            passes.forward(model, images)
        assert len(made) == 1
        with passes.unchanging(model):  # a promise of its own, such as another count of passes
            passes.forward(model, images)
        assert len(made) == 2
        passes.forward(model, images)
        assert len(made) == 2
    passes.forward(model, images)
    assert len(made) == 3


def test_a_promise_ends_where_its_block_does_and_is_of_its_thread_alone() -> None:
    model, images = ConvNetwork(1, 2).eval().requires_grad_(False), torch.rand(2, 1, 8, 8)

    def copied() -> bool:
        return passes.differentiable(model, images, passes=1) is not model

    with passes.unchanging(model), ThreadPoolExecutor(1) as pool:
        assert copied()
        assert not pool.submit(copied).result()
    assert not copied()
    with suppress(KeyError), passes.unchanging(model):
        raise KeyError
    assert not copied()


def test_what_changed_between_two_promises_is_seen() -> None:
    model, images = LinearNetwork(1, (4, 4), 2).eval().requires_grad_(False), torch.rand(2, 1, 4, 4)
    targets = torch.zeros(2, dtype=torch.int64)
    with passes.unchanging(model):
        before = passes.gradients(passes.differentiable(model, images, 1), images, targets)
    for parameter in model.parameters():
        parameter.data.mul_(3)
    with passes.unchanging(model):
        after = passes.gradients(passes.differentiable(model, images, 1), images, targets)
    torch.testing.assert_close(after, 3 * before)
