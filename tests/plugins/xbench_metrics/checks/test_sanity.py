"""Randomisation tests: closed forms, and the re-initialised networks they are made of."""

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr
from torch import nn

from xbench import Batch, Case, DatasetInfo, Session, Split
from xbench.compute.passes import gradients
from xbench.compute.training import train_network
from xbench.runtime.seeding import rng
from xbench.testing import parametrize_with_checks
from xbench.testing.fakes import fake_case
from xbench.testing.networks import ConvNetwork, LinearNetwork
from xbench_metrics import xbench_metrics
from xbench_metrics.checks.options import LabelRandomisationOptions, ParameterRandomisationOptions
from xbench_metrics.checks.reinitialisation import layers, reinitialised, stages
from xbench_metrics.checks.sanity import LabelRandomisation, ParameterRandomisation, _ByHeart, permuted_labels

SPECS = {spec.name: spec for spec in xbench_metrics()}


class Gradient:
    """Maps of dS_c/dx, summed over the channels."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model

    def maps(self, batch: Batch, targets: torch.Tensor, model: nn.Module | None = None) -> torch.Tensor:
        return gradients(model or self.model, batch.images, targets).sum(1)


class Image(Gradient):
    """Maps that have nothing to do with the model."""

    def maps(self, batch: Batch, targets: torch.Tensor, model: nn.Module | None = None) -> torch.Tensor:
        return batch.images.sum(1)


class Contrary(Gradient):
    """The opposite map for any other model."""

    def maps(self, batch: Batch, targets: torch.Tensor, model: nn.Module | None = None) -> torch.Tensor:
        return super().maps(batch, targets) * (1 if model is None else -1)


def case_of(
    tmp_path: Path,
    explanation: Any,
    n: int = 10,
    channels: int = 1,
    spatial: tuple[int, ...] = (12, 14),
    classes: int = 2,
    batch_size: int = 4,
    **replaced: Any,
) -> Case:
    images = rng(0, "images").random((n, channels, *spatial), dtype=np.float32)
    ids = [f"sample-{index}" for index in range(n)]
    split = Split.from_arrays(images, np.arange(n) % classes, ids, ids)
    info = DatasetInfo("toy", tuple("abc"[:classes]), channels, spatial)
    model = explanation.model.eval()
    nothing = np.zeros((n, *spatial), dtype=np.float32)
    session = Session(tmp_path, batch_size=batch_size)
    case = fake_case(info, split, model, nothing, session, explanation=explanation, **replaced)
    maps = explanation.maps(split.batch(range(n)), torch.from_numpy(case.targets)).numpy()
    return dataclasses.replace(case, maps=maps)


def randomised(case: Case, **options: Any) -> tuple[Any, dict[str, np.ndarray], float]:
    metric = ParameterRandomisation(ParameterRandomisationOptions(**options))
    seen = metric.observe(case)
    return metric, seen, metric.summarise(seen)


# --- re-initialised networks ------------------------------------------------------------------------------------------


def test_layers_come_in_the_order_in_which_they_run() -> None:
    names = layers(ConvNetwork(1, 2, batch_norm=True), torch.zeros(1, 1, 12, 12))
    expected = [f"{kind}.{index}" for index in range(3) for kind in ("convolutions", "norms")]
    assert names == [*expected, "head"]


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(8, 2)  # registered first, called last
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.token = nn.Parameter(torch.arange(8.0).view(1, 1, 8))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        tokens = torch.cat([self.token.expand(len(images), -1, -1), images.flatten(2).transpose(1, 2)], 1)
        return self.head(self.attention(tokens, tokens, tokens)[0][:, 0])


def test_layers_that_are_not_called_come_with_what_holds_them() -> None:
    model = Attention().eval()
    names = layers(model, torch.zeros(1, 8, 3, 3))
    assert names == ["", "attention", "attention.out_proj", "head"]
    changed = reinitialised(model, [""], 0)
    assert sorted(changed.token.flatten().tolist()) == list(range(8))
    assert not torch.equal(changed.token, model.token)  # type: ignore[arg-type]
    assert torch.equal(changed.head.weight, model.head.weight)  # type: ignore[arg-type]
    assert torch.equal(changed.attention.in_proj_weight, model.attention.in_proj_weight)  # type: ignore[arg-type]


def test_stages_go_from_the_output_to_the_input() -> None:
    names = ["a", "b", "c", "d", "e"]
    assert stages(names, 9) == [["e"], ["d"], ["c"], ["b"], ["a"]]
    assert stages(names, 2) == [["e", "d", "c"], ["b", "a"]]
    assert stages([], 3) == []


def test_only_the_named_layers_are_new() -> None:
    torch.manual_seed(0)
    model = ConvNetwork(1, 2, batch_norm=True)
    model(torch.rand(8, 1, 12, 12))  # running statistics of its own
    before = {key: value.clone() for key, value in model.eval().state_dict().items()}
    state, alone = torch.get_rng_state(), reinitialised(model, ["head", "norms.1"], 7).state_dict()
    assert torch.equal(state, torch.get_rng_state())
    changed = {key for key, value in alone.items() if not torch.equal(value, before[key])}
    assert changed == {"head.weight", "head.bias"} | {
        f"norms.1.{name}" for name in ("running_mean", "running_var", "num_batches_tracked")
    }
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    with_more = reinitialised(model, ["convolutions.0", "head"], 7).state_dict()
    assert torch.equal(alone["head.weight"], with_more["head.weight"])
    assert not torch.equal(alone["head.weight"], reinitialised(model, ["head"], 8).state_dict()["head.weight"])


# --- parameter randomisation ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", ["cascading", "independent"])
@pytest.mark.parametrize("similarity", ["spearman", "ssim"])
def test_a_map_that_ignores_the_model_has_one(tmp_path: Path, order: str, similarity: str) -> None:
    case = case_of(tmp_path, Image(ConvNetwork(1, 2)))
    _, seen, value = randomised(case, order=order, similarity=similarity)
    assert value == pytest.approx(1, abs=1e-9)
    assert seen["spearman"].shape == seen["ssim"].shape == (10, 4)


def test_the_opposite_map_has_minus_one(tmp_path: Path) -> None:
    assert randomised(case_of(tmp_path, Contrary(ConvNetwork(1, 2))))[2] == pytest.approx(-1)


def test_the_gradient_of_a_linear_network_is_its_new_weights(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = LinearNetwork(1, (12, 14), 2)
    case = case_of(tmp_path, Gradient(model))
    _, seen, value = randomised(case, seed=5)
    weights = [one.linear.weight.detach()[case.targets] for one in (model, reinitialised(model, ["linear"], 5))]
    expected = [spearmanr(*pair).statistic for pair in zip(*weights, strict=True)]
    np.testing.assert_allclose(seen["spearman"][:, 0], expected, atol=1e-9)
    assert value == pytest.approx(np.mean(expected))
    assert abs(value) < 4 / math.sqrt(12 * 14)  # two draws have nothing in common


def test_cascade_and_single_layers(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = ConvNetwork(1, 2)
    case = case_of(tmp_path, Gradient(model), n=3)
    names = layers(model, case.split.batch([0]).images)[::-1]
    for order, groups in (("cascading", [names[: n + 1] for n in range(4)]), ("independent", [[n] for n in names])):
        _, seen, value = randomised(case, order=order)
        for stage, group in enumerate(groups):
            other = reinitialised(model, group, 0).eval()
            maps = Gradient(other).maps(case.split.batch(range(3)), torch.from_numpy(case.targets)).numpy()
            expected = [spearmanr(a.ravel(), b.ravel()).statistic for a, b in zip(case.maps, maps, strict=True)]  # type: ignore[arg-type]
            np.testing.assert_allclose(seen["spearman"][:, stage], expected, atol=1e-6)
        last = seen["spearman"][:, -1] if order == "cascading" else seen["spearman"]
        assert value == pytest.approx(last.mean())


def test_value_and_curves(tmp_path: Path) -> None:
    metric, seen, full = randomised(case_of(tmp_path, Gradient(ConvNetwork(1, 2)), n=4))
    assert full == pytest.approx(seen["spearman"][:, -1].mean())
    mean = ParameterRandomisation(ParameterRandomisationOptions(value="mean"))
    assert mean.summarise(seen) == pytest.approx(seen["spearman"].mean())
    curves = metric.curves(seen)
    assert curves.x.tolist() == [0, 1, 2, 3, 4]
    np.testing.assert_allclose(curves.y["spearman"], [1, *seen["spearman"].mean(0)])
    assert metric.card(DatasetInfo("toy", ("a", "b"), 1, (8, 8))) != mean.card(
        DatasetInfo("toy", ("a", "b"), 1, (8, 8))
    )


def test_stages_are_limited(tmp_path: Path) -> None:
    _, seen, value = randomised(case_of(tmp_path, Gradient(ConvNetwork(1, 2, batch_norm=True)), n=3), stages=2)
    assert seen["ssim"].shape == (3, 2)
    whole = randomised(case_of(tmp_path, Gradient(ConvNetwork(1, 2, batch_norm=True)), n=3), stages=1)
    assert math.isfinite(value)
    assert whole[1]["ssim"].shape == (3, 1)


def test_a_limit_leaves_the_others_out(tmp_path: Path) -> None:
    case = case_of(tmp_path, Gradient(ConvNetwork(1, 2)))
    everything, some = (randomised(case, limit=limit)[1]["spearman"] for limit in (None, 3))
    kept = ~np.isnan(some).any(1)
    assert kept.sum() == 3
    np.testing.assert_allclose(some[kept], everything[kept], atol=1e-6)
    assert not kept[:3].all()  # chosen by seed, not by place


def test_the_model_is_left_alone(tmp_path: Path) -> None:
    model = ConvNetwork(1, 2, batch_norm=True).eval()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    randomised(case_of(tmp_path, Gradient(model), n=2))
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert not any(module._forward_pre_hooks for module in model.modules())


# --- label randomisation ----------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(1, 4)), min_size=1, max_size=12), st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_permuted_labels_keep_their_numbers(patients: list[tuple[int, int]], seed: int) -> None:
    labels = np.repeat([label for label, _ in patients], [count for _, count in patients])
    groups = [f"patient-{index}" for index, (_, count) in enumerate(patients) for _ in range(count)]
    changed = permuted_labels(labels, groups, seed)
    assert sorted(changed) == sorted(labels)
    np.testing.assert_array_equal(changed, permuted_labels(labels, groups, seed))


def test_patients_of_equal_size_stay_whole() -> None:
    labels, groups = np.repeat(np.arange(40) % 2, 3), [f"patient-{index // 3}" for index in range(120)]
    changed = permuted_labels(labels, groups, 0).reshape(40, 3)
    assert (changed == changed[:, :1]).all()
    assert 5 < (changed[:, 0] != labels[::3]).sum() < 35


def training_of(n: int = 24, spatial: tuple[int, ...] = (12, 14)) -> Split:
    draw = rng(1, "training")
    labels = np.arange(n) % 2
    images = draw.random((n, 1, *spatial), dtype=np.float32) * 0.2 + 0.6 * labels[:, None, None, None]
    ids = [f"train-{index}" for index in range(n)]
    return Split.from_arrays(images.astype(np.float32), labels, ids, ids)


def relabelled(case: Case, **options: Any) -> tuple[Any, dict[str, np.ndarray], float]:
    metric = LabelRandomisation(LabelRandomisationOptions(**options))
    seen = metric.observe(dataclasses.replace(case, prepared=metric.prepare(case)))
    return metric, seen, metric.summarise(seen)


def test_maps_of_a_network_that_learned_permuted_labels(tmp_path: Path) -> None:
    torch.manual_seed(0)
    explanation = Gradient(ConvNetwork(1, 2).requires_grad_(False))
    case = case_of(tmp_path, explanation, training=training_of())
    _, seen, value = relabelled(case, epochs=3)
    assert -1 < value < 0.999
    assert 0 <= seen["fitted"][0] <= 1
    again = relabelled(case, epochs=3)
    np.testing.assert_allclose(again[1]["spearman"], seen["spearman"], atol=1e-5)
    assert relabelled(case, epochs=3, seed=1)[2] != value
    assert not any(parameter.requires_grad for parameter in explanation.model.parameters())


def test_it_is_trained_on_the_same_images_with_other_labels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained = []
    monkeypatch.setattr(
        "xbench_metrics.checks.sanity.train_network",
        lambda objective, train, validation, schedule, session: trained.append(train) or [],
    )
    case = case_of(tmp_path, Gradient(ConvNetwork(1, 2)), training=training_of())
    LabelRandomisation(LabelRandomisationOptions()).prepare(case)
    original = training_of()
    assert sorted(trained[0].labels) == sorted(original.labels)
    assert (trained[0].labels != original.labels).any()
    assert torch.equal(trained[0].batch([3]).images, original.batch([3]).images)


def test_training_ends_when_the_labels_are_known_by_heart(tmp_path: Path) -> None:
    # Two labels that any image tells apart: known within a few epochs, never a reason to go on for long.
    images = np.repeat([0.1, 0.9], 8).astype(np.float32).reshape(16, 1, 1, 1) * np.ones((16, 1, 16, 16), np.float32)
    names = [str(index) for index in range(16)]
    split = Split.from_arrays(images, np.repeat([0, 1], 8), names, ["a"] * 8 + ["b"] * 8)
    session = Session(tmp_path / "train")
    session.folder.mkdir()
    objective = _ByHeart(ConvNetwork(1, 2), split)
    schedule = LabelRandomisationOptions(epochs=200, patience=3, learning_rate=0.05, train_batch=16)
    history = train_network(objective, split, split, schedule, session)
    known = [row["epoch"] for row in history if row["validation_criterion"] <= 0.05]
    assert known
    assert len(history) == known[0] + 3
    assert min(row["validation_criterion"] for row in history) == 0.05


def test_a_map_that_ignores_the_labels_has_one(tmp_path: Path) -> None:
    case = case_of(tmp_path, Image(ConvNetwork(1, 2)), training=training_of())
    assert relabelled(case, epochs=1)[2] == pytest.approx(1)


def test_it_warns_where_too_little_was_learned(tmp_path: Path) -> None:
    case = case_of(tmp_path, Image(ConvNetwork(1, 2)), training=training_of())
    relabelled(case, epochs=1)
    assert "use more epochs" in case.session.progress.warnings[0]


# --- conformance ------------------------------------------------------------------------------------------------------


@parametrize_with_checks([SPECS["parameter_randomisation"]], stages=2)
def test_parameter_randomisation_conforms(check: Callable[..., None]) -> None:
    check()


@pytest.mark.slow
@parametrize_with_checks([SPECS["label_randomisation"]], epochs=1)
def test_label_randomisation_conforms(check: Callable[..., None]) -> None:
    check()
