"""The Quantus bridge: every supported metric runs, closed forms, independence of the batch, options, refusals."""

import dataclasses
import inspect
import random
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from xbench import Batch, Case, DatasetInfo, Session, Split, UserError
from xbench.compute.passes import gradients
from xbench.runtime.seeding import rng
from xbench.testing import Scenario, default_scenarios, metric_checks
from xbench.testing.fakes import FakeDataset, FakeOptions, TinyModel, TinyOptions, fake_case
from xbench_quantus.bridge import QuantusMetric
from xbench_quantus.catalogue import CATALOGUE, EVERY, RESERVED
from xbench_quantus.options import QuantusOptions

SUPPORTED = [name for name, entry in CATALOGUE.items() if not entry.refused]
# As few steps as the metric allows: what is checked is the bridge.
QUICK: dict[str, dict[str, Any]] = {
    "FaithfulnessCorrelation": {"subset_size": 32, "nr_runs": 6},
    "MonotonicityCorrelation": {"nr_samples": 2, "features_in_step": 64},
    "ROAD": {"percentages": (10, 50)},
    "Infidelity": {"n_perturb_samples": 1, "perturb_patch_sizes": (8,)},
    "TopKIntersection": {"k": 20},
    "Continuity": {"nr_steps": 4},
    "SmoothMPRT": {"nr_samples": 3},
}
QUICK |= {
    name: {"features_in_step": 32} for name in ("FaithfulnessEstimate", "PixelFlipping", "Monotonicity", "SensitivityN")
}
QUICK |= {
    name: {"nr_samples": 3, "return_nan_when_prediction_changes": False}
    for name in CATALOGUE
    if name.startswith("Relative") or name.endswith(("Sensitivity", "Lipschitz", "LipschitzEstimate"))
    if "nr_samples" in CATALOGUE[name].parameters
}


class Gradient:
    """Gradient x input, as the explainer at work."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model

    def maps(self, batch: Batch, targets: torch.Tensor, model: nn.Module | None = None) -> torch.Tensor:
        return (gradients(model or self.model, batch.images, targets) * batch.images).sum(1)


@pytest.fixture(scope="module")
def scenario() -> Scenario:
    return Scenario("small", FakeDataset(FakeOptions(size=16, test=4)), TinyModel(TinyOptions(width=4)))


def case_of(
    scenario: Scenario,
    folder: Path,
    maps: np.ndarray | None = None,
    batch_size: int = 4,
    rows: Sequence[int] | None = None,
    **replaced: Any,
) -> Case:
    split, module = scenario.split("test"), scenario.module()
    split = split if rows is None else split.select(rows)
    case = fake_case(scenario.info, split, module, np.zeros(0), Session(folder, batch_size=batch_size))
    explanation: Any = Gradient(module)
    batch = split.batch(np.arange(len(split)))
    made = explanation.maps(batch, torch.from_numpy(case.targets)).numpy()
    maps = made if maps is None else np.asarray(maps, dtype=np.float32)
    return dataclasses.replace(case, maps=maps, explanation=explanation, **replaced)


def made(name: str, **options: Any) -> QuantusMetric:
    return QuantusMetric(QuantusOptions(**options), name)


def observed(case: Case, name: str, **options: Any) -> tuple[QuantusMetric, dict[str, np.ndarray]]:
    metric = made(name, **options)
    return metric, {**metric.observe(case), "label": case.split.labels, "target": case.targets}


def scores(case: Case, name: str, **options: Any) -> np.ndarray:
    return observed(case, name, **options)[1]["score"]


# --- every metric -----------------------------------------------------------------------------------------------------


def test_the_catalogue_is_that_of_the_installed_quantus() -> None:
    import quantus

    installed = {metric.__name__: metric for kind in quantus.AVAILABLE_METRICS.values() for metric in kind.values()}
    assert CATALOGUE.keys() == installed.keys()
    for name, entry in CATALOGUE.items():
        declared = installed[name]
        assert entry.category == declared.evaluation_category.value, name
        assert (entry.higher == (declared.score_direction.value == "higher")) != bool(entry.corrected), name
        knows = inspect.signature(declared.__init__).parameters.keys() - RESERVED
        assert knows == EVERY | entry.parameters | entry.ignored, name
        assert not entry.parameters & entry.ignored, name
        if entry.softmax is not None:
            assert inspect.signature(declared.__call__).parameters["softmax"].default == entry.softmax, name
    fields = QuantusOptions.model_fields.keys()
    assert fields == {"softmax"}.union(EVERY, *(entry.parameters for entry in CATALOGUE.values()))


@pytest.mark.parametrize("name", SUPPORTED)
def test_every_supported_metric_scores_every_image_by_itself(scenario: Scenario, tmp_path: Path, name: str) -> None:
    options = QUICK.get(name, {})
    metric = made(name, **options)
    assert metric.supports(scenario.info) is None
    has_trapz = hasattr(np, "trapz")
    before = np.random.get_state()[1].copy(), random.getstate(), torch.get_rng_state(), warnings.filters[:]
    case = case_of(scenario, tmp_path)
    weights = [weight.clone() for weight in case.explanation.model.parameters()]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _, seen = observed(case, name, **options)
        value = metric.summarise(seen)
    assert np.isfinite(value)
    assert not seen["failed"].any()
    assert np.array_equal(before[0], np.random.get_state()[1])
    assert before[1] == random.getstate()
    assert torch.equal(before[2], torch.get_rng_state())
    assert before[3] == warnings.filters
    assert hasattr(np, "trapz") == has_trapz
    assert all(map(torch.equal, weights, case.explanation.model.parameters()))
    turned = case_of(scenario, tmp_path, rows=[3, 1, 0, 2], batch_size=3)
    again = observed(turned, name, **options)[1]
    for key in seen.keys() - {"label", "target"}:
        np.testing.assert_allclose(again[key], seen[key][[3, 1, 0, 2]], rtol=2e-4, atol=2e-5, err_msg=key)
    if "score" in seen:
        assert np.isfinite(seen["score"]).all()


@pytest.mark.parametrize("name", ["PixelFlipping", "IROF", "EfficientMPRT", "RelativeOutputStability", "RandomLogit"])
def test_a_model_of_one_logit_has_two_class_scores(tmp_path: Path, name: str) -> None:
    one = Scenario("one", FakeDataset(FakeOptions(size=16, test=3)), TinyModel(TinyOptions(width=4, one_logit=True)))
    assert np.isfinite(scores(case_of(one, tmp_path), name, **QUICK.get(name, {}))).all()


@pytest.mark.parametrize("name", ["IROF", "Selectivity", "Infidelity", "MaxSensitivity", "MPRT", "RandomLogit", "AUC"])
def test_colour_images(tmp_path: Path, name: str) -> None:
    colour = Scenario(
        "colour", FakeDataset(FakeOptions(size=16, test=6, channels=3, classes=3)), TinyModel(TinyOptions(width=4))
    )
    assert made(name).supports(colour.info) is None
    assert np.isfinite(scores(case_of(colour, tmp_path), name, **QUICK.get(name, {}))).all()


@pytest.mark.parametrize("name", ["PointingGame", "RelevanceMassAccuracy", "AUC", "EffectiveComplexity", "Sparseness"])
def test_conformance_on_maps(name: str) -> None:
    for _, check in metric_checks():
        check(lambda: made(name))


def test_conformance_on_a_model() -> None:
    for _, check in metric_checks(default_scenarios()[:2]):
        check(lambda: made("PixelFlipping", features_in_step=128))


# --- closed forms -----------------------------------------------------------------------------------------------------


def masked_case(tmp_path: Path, maps: np.ndarray, masks: np.ndarray, **replaced: Any) -> Case:
    """Maps and masks of images that don't matter."""
    masks = np.asarray(masks, dtype=bool)
    images = rng(0, "images").random((len(masks), 1, *masks.shape[1:]), dtype=np.float32)
    ids = [f"sample-{index}" for index in range(len(masks))]
    split = Split.from_arrays(images, np.arange(len(masks)) % 2, ids, ids, masks)
    info = DatasetInfo("toy", ("a", "b"), 1, masks.shape[1:], has_masks=True)
    module = TinyModel(TinyOptions(network="linear")).build(info)
    maps = np.asarray(maps, dtype=np.float32)
    return fake_case(info, split, module, maps, Session(tmp_path, batch_size=3), **replaced)


def test_localisation_has_closed_forms(tmp_path: Path) -> None:
    random_maps = rng(1, "maps").standard_normal((5, 8, 8)).astype(np.float32)
    masks = np.zeros((5, 8, 8), dtype=bool)
    masks[:, 2:5, 1:5] = True
    case = masked_case(tmp_path, random_maps, masks)
    flat, inside = random_maps.reshape(5, -1).astype(float), masks.reshape(5, -1)
    positive = flat.clip(0)
    mass = (positive * inside).sum(1) / positive.sum(1)
    np.testing.assert_allclose(scores(case, "RelevanceMassAccuracy"), mass, atol=1e-9)
    absolute = (abs(flat) * inside).sum(1) / abs(flat).sum(1)
    np.testing.assert_allclose(scores(case, "RelevanceMassAccuracy", abs=True), absolute, atol=1e-9)
    np.testing.assert_allclose(scores(case, "AttributionLocalisation"), absolute, atol=1e-8)
    top = np.argsort(-flat, axis=1)[:, :12]
    hits = np.take_along_axis(inside, top, axis=1)
    np.testing.assert_allclose(scores(case, "RelevanceRankAccuracy"), hits.mean(1), atol=1e-12)
    np.testing.assert_allclose(scores(case, "TopKIntersection", k=5), hits[:, :5].mean(1), atol=1e-12)
    np.testing.assert_allclose(scores(case, "PointingGame"), hits[:, 0], atol=0)
    from sklearn.metrics import roc_auc_score

    areas = [roc_auc_score(mask, values) for mask, values in zip(inside, flat, strict=True)]
    np.testing.assert_allclose(scores(case, "AUC"), areas, atol=1e-12)


def test_the_mask_as_map_is_perfect(tmp_path: Path) -> None:
    masks = rng(2, "masks").random((4, 8, 8)) < 0.3
    case = masked_case(tmp_path, masks, masks)
    for name in ("RelevanceMassAccuracy", "RelevanceRankAccuracy", "PointingGame", "AUC", "AttributionLocalisation"):
        np.testing.assert_allclose(scores(case, name), 1, atol=1e-8, err_msg=name)


def test_complexity_has_closed_forms(tmp_path: Path) -> None:
    maps = np.zeros((3, 8, 8))
    maps[0, 3, 3] = 5  # one pixel
    maps[1] = 2  # all alike
    maps[2, :4] = 1  # half of them
    case = masked_case(tmp_path, maps, np.ones((3, 8, 8)))
    np.testing.assert_allclose(scores(case, "Complexity"), [0, np.log(64), np.log(32)], atol=1e-8)
    np.testing.assert_allclose(scores(case, "Sparseness"), [63 / 64, 0, 0.5], atol=1e-5)
    np.testing.assert_allclose(scores(case, "EffectiveComplexity"), [1, 64, 32], atol=0)


def test_pixel_flipping_of_a_linear_model_has_a_closed_form(tmp_path: Path) -> None:
    case = masked_case(tmp_path, np.zeros((3, 8, 8)), np.ones((3, 8, 8)))
    module = TinyModel(TinyOptions(network="linear")).build(case.info)
    case = fake_case(case.info, case.split, module, np.zeros((3, 8, 8)), case.session)
    images = case.split.batch(np.arange(3)).images.double().flatten(1).numpy()
    linear = module.linear
    weights, bias = (value.detach().double().numpy()[case.targets] for value in (linear.weight, linear.bias))
    contributions = weights * (images - images.min(1, keepdims=True))
    case = dataclasses.replace(case, maps=contributions.reshape(3, 8, 8).astype(np.float32))
    removed = np.cumsum(-np.sort(-contributions, axis=1), axis=1)
    start = (weights * images).sum(1) + bias
    curve = np.concatenate([start[:, None], start[:, None] - removed], axis=1)
    expected = np.trapezoid(curve, dx=1 / 64, axis=1)
    np.testing.assert_allclose(scores(case, "PixelFlipping", softmax=False), expected, atol=1e-5)


# --- what must not spoil a score --------------------------------------------------------------------------------------


def test_images_without_a_score_are_nan_and_leave_the_others_alone(tmp_path: Path) -> None:
    maps = rng(4, "maps").random((5, 8, 8)).astype(np.float32)
    masks = rng(4, "masks").random((5, 8, 8)) < 0.3
    whole = scores(masked_case(tmp_path, maps, masks), "RelevanceMassAccuracy")
    maps[1, 0, 0], masks[3] = np.nan, False
    metric, seen = observed(masked_case(tmp_path, maps, masks), "RelevanceMassAccuracy")
    assert np.isnan(seen["score"]).tolist() == [False, True, False, True, False]
    np.testing.assert_array_equal(seen["score"][[0, 2, 4]], whole[[0, 2, 4]])
    assert metric.summarise(seen) == pytest.approx(whole[[0, 2, 4]].mean())
    assert np.isnan(metric.summarise({key: values[[1, 3]] for key, values in seen.items()}))


def test_an_image_on_which_quantus_fails_is_counted_and_all_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import quantus

    plain = quantus.Sparseness.evaluate_batch

    def failing(self: Any, x_batch: np.ndarray, a_batch: np.ndarray, **rest: Any) -> Any:
        if (a_batch[:, 0, 0, 0] == 1).any():  # the largest value of a normalised map
            raise RuntimeError("no luck")
        return plain(self, x_batch=x_batch, a_batch=a_batch, **rest)

    monkeypatch.setattr(quantus.Sparseness, "evaluate_batch", failing)
    maps = rng(5, "maps").random((4, 8, 8))
    maps[2, 0, 0] = 7
    case = masked_case(tmp_path, maps, np.ones((4, 8, 8)))
    _, seen = observed(case, "Sparseness")
    assert seen["failed"].tolist() == [False, False, True, False]
    assert np.isnan(seen["score"]).tolist() == [False, False, True, False]
    assert "fails on 1 of 4 images" in case.session.progress.warnings[0]
    maps[:, 0, 0] = 7
    with pytest.raises(UserError, match="fails on every image: RuntimeError: no luck"):
        scores(masked_case(tmp_path, maps, np.ones((4, 8, 8))), "Sparseness")


@pytest.mark.parametrize("value", [0, 1])
def test_a_map_of_one_value_scores_alone_as_among_others(tmp_path: Path, value: int) -> None:
    maps, masks = rng(6, "maps").random((3, 8, 8)), rng(6, "masks").random((3, 8, 8)) < 0.3
    maps[1] = value
    case = masked_case(tmp_path, maps, masks)
    alone = dataclasses.replace(case, session=Session(tmp_path, batch_size=1))
    for name in ("Sparseness", "Complexity", "EffectiveComplexity", "RelevanceMassAccuracy", "AUC", "PixelFlipping"):
        among = scores(case, name)
        np.testing.assert_allclose(scores(alone, name), among, rtol=1e-5, err_msg=name)
        assert np.isfinite(among[[0, 2]]).all()
        undefined = value == 0 and name in {"Complexity", "RelevanceMassAccuracy"}
        assert np.isnan(among[1]) == undefined, name
    ranked = scores(case, "FaithfulnessEstimate", similarity_func="correlation_spearman", perturb_baseline="mean")
    assert np.isnan(ranked).tolist() == [False, True, False]
    assert not case.session.progress.warnings  # undefined, not failed


def test_ties_are_broken_by_the_seed_not_by_the_place(tmp_path: Path) -> None:
    masks = np.zeros((400, 4, 4))
    masks[:, 0] = 1  # a quarter, first in memory
    case = masked_case(tmp_path, np.zeros((400, 4, 4)), masks)
    case = dataclasses.replace(case, session=Session(tmp_path, batch_size=400))
    for name in ("PointingGame", "RelevanceRankAccuracy"):
        assert scores(case, name).mean() == pytest.approx(0.25, abs=3 * np.sqrt(0.25 * 0.75 / 400)), name


def test_sensitivity_n_is_the_correlation_over_any_subset(scenario: Scenario, tmp_path: Path) -> None:
    metric, seen = observed(case_of(scenario, tmp_path), "SensitivityN", features_in_step=32)
    rows = np.array([0, 1, 1, 3])
    drops, sums = seen["drops"][rows], seen["sums"][rows]
    assert drops.shape == (4, 6)  # 80 % of 256 pixels in steps of 32
    expected = np.mean([np.corrcoef(drops[:, n], sums[:, n])[0, 1] for n in range(6)])
    assert metric.summarise({key: values[rows] for key, values in seen.items()}) == pytest.approx(expected, abs=1e-9)
    assert np.isnan(metric.summarise({key: values[:1] for key, values in seen.items()}))
