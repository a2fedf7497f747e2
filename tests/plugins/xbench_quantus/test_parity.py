"""Twelve defects of Quantus 0.6.0: each shown on Quantus itself, and gone through the bridge.

One that fails on Quantus itself after an upgrade says that Quantus has been repaired: strike the line from the page.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import quantus
import torch
from torch import nn

from xbench import Batch, DatasetInfo, Session, Split, UserError
from xbench.runtime.seeding import rng
from xbench.testing.fakes import fake_case
from xbench_quantus.bridge import QuantusMetric
from xbench_quantus.catalogue import CATALOGUE
from xbench_quantus.options import QuantusOptions
from xbench_quantus.quantus_patches import contained

pytestmark = pytest.mark.filterwarnings("ignore")


class Linear(nn.Module):
    """Two logits, w x and -w x."""

    def __init__(self, size: int, seed: int = 0, channels: int = 1) -> None:
        super().__init__()
        drawn = rng(seed, "weights").standard_normal(channels * size * size)
        self.weights = nn.Parameter(torch.from_numpy(drawn.astype(np.float32)))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        score = images.flatten(1) @ self.weights
        return torch.stack([score, -score], dim=1)


class Constant(nn.Module):
    """Probability 3/4 of class 0, whatever the image."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.tensor([[np.log(3.0), 0.0]], dtype=torch.float32).expand(len(images), 2) + 0 * images.sum()


def images_of(count: int, size: int = 8, channels: int = 1, seed: int = 0) -> np.ndarray:
    return rng(seed, "images").random((count, channels, size, size), dtype=np.float32)


def maps_of(count: int, size: int = 8, seed: int = 0) -> np.ndarray:
    return rng(seed, "maps").random((count, size, size)).astype(np.float32)


def raw(
    metric: Any,
    model: nn.Module,
    images: np.ndarray,
    targets: Sequence[int] | np.ndarray,
    maps: np.ndarray,
    masks: np.ndarray | None = None,
    **call: Any,
) -> Any:
    """Quantus as its manual calls it."""
    return metric(
        model=model,
        x_batch=images,
        y_batch=np.asarray(targets),
        a_batch=maps[:, None].copy(),
        s_batch=None if masks is None else np.asarray(masks)[:, None],
        channel_first=True,
        device="cpu",
        **call,
    )


def bridged(
    tmp_path: Path,
    name: str,
    model: nn.Module,
    images: np.ndarray,
    targets: Sequence[int] | np.ndarray,
    maps: np.ndarray,
    masks: np.ndarray | None = None,
    *,
    batch_size: int = 8,
    explanation: Any = None,
    **options: Any,
) -> tuple[QuantusMetric, np.ndarray]:
    """(metric, scores)."""
    count, channels, height, width = images.shape
    ids = [f"sample-{index}" for index in range(count)]
    masks = None if masks is None else np.asarray(masks, dtype=bool)
    split = Split.from_arrays(images, np.arange(count) % 2, ids, ids, masks)
    info = DatasetInfo("toy", ("a", "b"), channels, (height, width), has_masks=masks is not None)
    case = fake_case(info, split, model, maps, Session(tmp_path, batch_size=batch_size), targets=np.asarray(targets))
    metric = QuantusMetric(QuantusOptions(**options), name)
    if reason := metric.supports(info):
        raise UserError(reason)
    return metric, metric.observe(dataclasses.replace(case, explanation=explanation))["score"]


def test_1_road_scores_the_first_batch_only(tmp_path: Path) -> None:
    model, images, maps = Linear(8).eval(), images_of(8), maps_of(8)
    right = model(torch.from_numpy(images)).argmax(1).numpy()
    targets = np.where(np.arange(8) < 2, right, 1 - right)
    road = lambda: quantus.ROAD(percentages=[2, 4], noise=0.0, disable_warnings=True)  # noqa: E731
    first = raw(road(), model, images[:2], targets[:2], maps[:2])
    assert raw(road(), model, images, targets, maps, batch_size=2) == first
    assert raw(road(), model, images, targets, maps, batch_size=8) != first
    alone = [
        np.mean(list(raw(road(), model, images[row : row + 1], targets[row : row + 1], maps[row : row + 1]).values()))
        for row in range(8)
    ]
    for size in (2, 8):
        options: dict[str, Any] = {"percentages": (2, 4), "noise": 0.0, "batch_size": size}
        metric, scores = bridged(tmp_path, "ROAD", model, images, targets, maps, **options)
        np.testing.assert_array_equal(scores, alone)
    assert metric.summarise({"score": scores}) == np.mean(alone) != np.mean(alone[:2])


def test_2_road_crashes_on_colour(tmp_path: Path) -> None:
    model, images, maps = Linear(8, channels=3).eval(), images_of(2, channels=3), maps_of(2)
    with pytest.raises(IndexError):
        raw(quantus.ROAD(percentages=[50]), model, images, [0, 0], maps)
    with pytest.raises(UserError, match="images of one channel only"):
        bridged(tmp_path, "ROAD", model, images, [0, 0], maps)


def test_3_irof_crashes_on_colour_and_depends_on_the_batch(tmp_path: Path) -> None:
    model, colour, maps = Linear(16, channels=3).eval(), images_of(3, 16, channels=3), maps_of(3, 16)
    targets = model(torch.from_numpy(colour)).argmax(1).numpy()
    with contained(0), pytest.raises(AssertionError):
        raw(quantus.IROF(), model, colour, targets, maps)
    assert np.isfinite(bridged(tmp_path, "IROF", model, colour, targets, maps)[1]).all()

    model, images = Linear(16).eval(), images_of(4, 16) * np.array([1, 0.1, 0.6, 0.01], np.float32)[:, None, None, None]
    images[1, :, :8] = 0.5
    targets, maps = model(torch.from_numpy(images)).argmax(1).numpy(), maps_of(4, 16)
    with contained(0):
        together = raw(quantus.IROF(return_aggregate=False), model, images, targets, maps, batch_size=4)
        alone = raw(quantus.IROF(return_aggregate=False), model, images, targets, maps, batch_size=1)
    assert (abs(np.subtract(together, alone)) > 1e-3).all()
    for size in (1, 3, 4):
        scores = bridged(tmp_path, "IROF", model, images, targets, maps, batch_size=size)[1]
        np.testing.assert_allclose(scores, alone, rtol=1e-5)


def test_4_an_empty_mask_is_a_hit_of_the_pointing_game(tmp_path: Path) -> None:
    images, maps, masks = images_of(3), maps_of(3), np.zeros((3, 8, 8), dtype=bool)
    masks[0, maps[0] == maps[0].max()] = True
    masks[1, maps[1] == maps[1].min()] = True
    assert [bool(hit) for hit in raw(quantus.PointingGame(), None, images, [0] * 3, maps, masks)] == [True, False, True]
    with pytest.raises(TypeError, match="boolean array"):
        raw(quantus.PointingGame(weighted=True), None, images[:2], [0] * 2, maps[:2], [masks[0], masks[0] | masks[1]])  # type: ignore[arg-type]
    arguments = (Linear(8), images, [0] * 3, maps, masks)
    np.testing.assert_array_equal(bridged(tmp_path, "PointingGame", *arguments)[1], [1, 0, np.nan])
    weighted = bridged(tmp_path, "PointingGame", *arguments, weighted=True)[1]
    np.testing.assert_array_equal(weighted, [63 / 64, 0, np.nan])


def test_5_the_weight_of_attribution_localisation_is_the_batch(tmp_path: Path) -> None:
    images, maps, masks = images_of(8), maps_of(8), np.zeros((8, 8, 8), dtype=bool)
    masks[:, 2:4, 2:6] = True
    with np.errstate(all="ignore"):
        first = {
            count: raw(
                *(quantus.AttributionLocalisation(weighted=True), None, images[:count], [0] * count),
                *(maps[:count], masks[:count]),
            )[0]
            for count in (8, 4, 2)
        }
    assert first[4] == pytest.approx(3 * first[8])
    assert np.isinf(first[2])
    shares = (maps * masks).sum((1, 2)) / maps.sum((1, 2))
    for count in (8, 4, 2):
        arguments = (Linear(8), images[:count], [0] * count, maps[:count], masks[:count])
        weighted = bridged(tmp_path, "AttributionLocalisation", *arguments, weighted=True)[1]
        np.testing.assert_allclose(weighted, shares[:count] * 8 / 64, rtol=1e-6)


def test_6_normalisation_divides_by_the_maximum_of_the_batch(tmp_path: Path) -> None:
    images, maps = images_of(4), maps_of(4) * 1e-4
    maps[3] *= 1e6
    together = raw(quantus.EffectiveComplexity(), None, images, [0] * 4, maps)
    alone = [
        raw(quantus.EffectiveComplexity(), None, images[row : row + 1], [0], maps[row : row + 1])[0] for row in range(4)
    ]
    assert together[:3] == [0, 0, 0] != alone[:3]
    scores = bridged(tmp_path, "EffectiveComplexity", Linear(8), images, [0] * 4, maps)[1]
    np.testing.assert_array_equal(scores, alone)


def test_7_one_nan_makes_all_images_nan(tmp_path: Path) -> None:
    images, maps, masks = images_of(3), maps_of(3), np.ones((3, 8, 8), dtype=bool)
    masks[:, 4:] = False
    maps[1, 0, 0] = np.nan
    assert np.isnan(raw(quantus.RelevanceMassAccuracy(), None, images, [0] * 3, maps, masks)).all()
    scores = bridged(tmp_path, "RelevanceMassAccuracy", Linear(8), images, [0] * 3, maps, masks)[1]
    assert np.isnan(scores).tolist() == [False, True, False]


def test_8_evaluate_gives_one_explainer_the_arguments_of_another(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, images, maps = Linear(8).eval(), images_of(2), maps_of(2)
    received = []

    def custom(model: nn.Module, inputs: np.ndarray, targets: np.ndarray, **arguments: Any) -> np.ndarray:
        received.append(arguments)
        return maps[:, None]

    methods: dict[str, Any] = {"Saliency": {"xai_lib": "captum", "reduce_axes": []}, "mine": custom}
    arguments: dict[str, Any] = {
        "model": model,
        "x_batch": images,
        "y_batch": np.array([0, 0]),
        "explain_func_kwargs": {},
    }
    quantus.evaluate({"S": quantus.Sparseness()}, methods, **arguments)
    assert received[0].keys() >= {"xai_lib", "reduce_axes"}
    with pytest.raises(KeyError):
        quantus.evaluate({"K": quantus.TopKIntersection(k=1000)}, {"mine": custom}, **arguments)
    assert "Failed to evaluate" in capsys.readouterr().out

    class Custom:
        def __init__(self) -> None:
            self.model, self.calls = model, []

        def maps(self, batch: Batch, targets: torch.Tensor, model: nn.Module | None = None) -> torch.Tensor:
            self.calls.append((batch.images.shape, targets.tolist(), model))
            return torch.from_numpy(maps[: len(targets)])

    own = Custom()
    options: dict[str, Any] = {"nr_samples": 2, "explanation": own}
    bridged(tmp_path, "MaxSensitivity", model, images, [0, 1], maps, **options)
    assert own.calls == [(images.shape, [0, 1], None)] * 2
    with pytest.raises(UserError, match=r"quantus:TopKIntersection: k=1000 must be below the 64 pixels"):
        bridged(tmp_path, "TopKIntersection", model, images, [0, 0], maps, maps > 0.5)


@pytest.mark.skipif(hasattr(np, "trapz"), reason="this numpy still has np.trapz")
def test_9_np_trapz_is_no_more(tmp_path: Path) -> None:
    model, images, maps = Linear(16).eval(), images_of(2, 16), maps_of(2, 16)
    for metric in (quantus.IROF(), quantus.PixelFlipping(features_in_step=64, return_auc_per_sample=True)):
        with pytest.raises(AttributeError, match="trapz"):
            raw(metric, model, images, [0, 0], maps)
    for name, options in (("IROF", {}), ("PixelFlipping", {"features_in_step": 64})):
        assert np.isfinite(bridged(tmp_path, name, model, images, [0, 0], maps, **options)[1]).all()  # type: ignore[arg-type]
    assert not hasattr(np, "trapz")


def test_10_the_relevance_mass_of_signed_maps_has_no_bounds(tmp_path: Path) -> None:
    images, masks = images_of(40), np.zeros((40, 8, 8), dtype=bool)
    masks[:, 2:6, 2:6] = True
    maps = rng(1, "signed").standard_normal((40, 8, 8)).astype(np.float32)
    shares = np.array(raw(quantus.RelevanceMassAccuracy(), None, images, [0] * 40, maps, masks))
    assert shares.min() < 0
    assert shares.max() > 1
    scores = bridged(tmp_path, "RelevanceMassAccuracy", Linear(8), images, [0] * 40, maps, masks)[1]
    assert scores.min() > 0
    assert scores.max() < 1
    assert scores.mean() == pytest.approx(0.25, abs=0.05)  # of a random map: the mask's share


def test_11_pixel_flipping_flips_channels_and_its_area_counts_the_steps(tmp_path: Path) -> None:
    model, colour = Linear(2, channels=3).eval(), images_of(1, 2, channels=3)
    assert len(raw(quantus.PixelFlipping(), model, colour, [0], maps_of(1, 2))[0]) == 12  # of 4 pixels
    with pytest.raises(UserError, match="images of one channel only"):
        bridged(tmp_path, "PixelFlipping", model, colour, [0], maps_of(1, 2))

    linear, images, maps = Linear(8).eval(), images_of(2), maps_of(2)
    with torch.no_grad():
        start = linear(torch.from_numpy(images)).softmax(1)[:, 0].numpy()
    curve = np.array(raw(quantus.PixelFlipping(features_in_step=32), linear, images, [0, 0], maps))
    assert curve.shape == (2, 2)
    assert not np.allclose(curve[:, 0], start)  # f(x) is not on it
    scores = bridged(tmp_path, "PixelFlipping", linear, images, [0, 0], maps, features_in_step=32)[1]
    np.testing.assert_allclose(scores, (start / 2 + curve[:, 0] + curve[:, 1] / 2) / 2, rtol=1e-5)
    for step, raw_area in ((1, 63 * 0.75), (16, 3 * 0.75)):
        metric = quantus.PixelFlipping(features_in_step=step)
        with contained(0):
            raw(metric, Constant().eval(), images, [0, 0], maps)
            assert metric.get_auc_score == pytest.approx(raw_area)
        areas = bridged(tmp_path, "PixelFlipping", Constant(), images, [0, 0], maps, features_in_step=step)[1]
        np.testing.assert_allclose(areas, 0.75, rtol=1e-6)


def test_12_the_declared_direction_is_wrong(tmp_path: Path) -> None:
    model, images = Linear(8).eval(), images_of(6)
    exact = model.weights.detach().numpy().reshape(1, 8, 8) * images[:, 0]
    assert quantus.RegionPerturbation.score_direction.value == "lower"
    assert quantus.Consistency.score_direction.value == "lower"
    plain = {
        sign: np.mean(
            raw(quantus.RegionPerturbation(patch_size=2), model, images, [0] * 6, sign * exact, softmax=False)
        )
        for sign in (1, -1)
    }
    assert plain[1] > plain[-1]
    for order, sign in (("morf", 1), ("lerf", -1)):
        options: dict[str, Any] = {"patch_size": 2, "softmax": False, "order": order}
        metric, best = bridged(tmp_path, "RegionPerturbation", model, images, [0] * 6, exact, **options)
        worst = bridged(tmp_path, "RegionPerturbation", model, images, [0] * 6, -exact, **options)[1]
        assert metric.higher_is_better == (sign == 1)
        assert (sign * best > sign * worst).all()
        if order == "morf":
            np.testing.assert_allclose(best.mean(), plain[1] * 16 / 17, rtol=1e-5)  # AOPC has the zero at the start
    assert CATALOGUE["Consistency"].higher


# --- met on the way ---------------------------------------------------------------------------------------------------


def test_a_constant_map_breaks_spearman_if_it_is_one_of_the_first_two(tmp_path: Path) -> None:
    rows, others = rng(0, "rows").random((4, 9)), rng(0, "others").random((4, 9))
    rows[0] = 1
    with pytest.raises(AttributeError):
        quantus.correlation_spearman(rows, others, batched=True)
    assert np.isnan(quantus.correlation_spearman(rows[[1, 2, 0]], others[[1, 2, 0]], batched=True)).tolist() == [
        0,
        0,
        1,
    ]
    model, images, maps = Linear(8).eval(), images_of(3), maps_of(3)
    maps[0] = 1
    options: dict[str, Any] = {"similarity_func": "correlation_spearman", "features_in_step": 8}
    scores = bridged(tmp_path, "FaithfulnessEstimate", model, images, [0] * 3, maps, **options)[1]
    assert np.isfinite(scores[1:]).all()


def test_maps_of_one_value_are_refused_alone_and_not_in_company(tmp_path: Path) -> None:
    images, maps = images_of(2), maps_of(2)
    maps[0] = 0
    assert raw(quantus.EffectiveComplexity(), None, images, [0, 0], maps)[0] == 0
    with pytest.raises(AssertionError, match="all equal to zero"):
        raw(quantus.EffectiveComplexity(), None, images[:1], [0], maps[:1])
    assert bridged(tmp_path, "EffectiveComplexity", Linear(8), images[:1], [0], maps[:1])[1] == 0


def test_steps_and_patches_that_quantus_fails_on_are_refused_beforehand(tmp_path: Path) -> None:
    model, images, maps = Linear(8).eval(), images_of(2), maps_of(2)
    with pytest.raises(ValueError, match="broadcast"):
        raw(quantus.NonSensitivity(features_in_step=8), model, images, [0, 0], maps)
    with pytest.raises(UserError, match="no option 'features_in_step'"):
        bridged(tmp_path, "NonSensitivity", model, images, [0, 0], maps, features_in_step=8)
    with pytest.raises((ValueError, IndexError)):
        raw(quantus.Infidelity(perturb_patch_sizes=[3]), model, images, [0, 0], maps)
    with pytest.raises(UserError, match="perturb_patch_sizes=3 does not divide"):
        bridged(tmp_path, "Infidelity", model, images, [0, 0], maps, perturb_patch_sizes=(3,))


def test_mprt_counts_the_untouched_model_as_a_layer(tmp_path: Path) -> None:
    class Explainer:
        def __init__(self, model: nn.Module) -> None:
            self.model = model

        def maps(self, batch: Batch, targets: torch.Tensor, model: nn.Module | None = None) -> torch.Tensor:
            weights = (model or self.model)[1].weight[targets].detach()
            return weights.view(len(batch), 8, 8) * batch.images[:, 0]

    torch.manual_seed(0)
    model, images = nn.Sequential(nn.Flatten(), nn.Linear(64, 2)).eval(), images_of(2)
    maps = model[1].weight[[0, 0]].detach().view(2, 8, 8).numpy() * images[:, 0]

    def explain(model: Any, inputs: np.ndarray, targets: np.ndarray, **_: Any) -> np.ndarray:
        return (model[1].weight[targets].detach().view(-1, 8, 8).numpy() * inputs[:, 0])[:, None]

    with contained(0):
        layers = raw(quantus.MPRT(), model, images, [0, 0], maps, explain_func=explain)
        average = quantus.MPRT(return_average_correlation=True)
        counted = raw(average, model, images, [0, 0], maps, explain_func=explain)
    np.testing.assert_allclose(layers["original"], 1)
    np.testing.assert_allclose(counted, (1 + np.array(layers["1"])) / 2)
    scores = bridged(tmp_path, "MPRT", model, images, [0, 0], maps, explanation=Explainer(model))[1]
    np.testing.assert_allclose(scores, layers["1"], rtol=1e-6)
