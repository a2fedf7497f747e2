"""How single artifacts are made, with the tiny fakes, in this process."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from xbench import (
    ArtifactError,
    Case,
    DatasetInfo,
    ImageFeature,
    Metric,
    Model,
    Observations,
    Options,
    PluginError,
    Session,
    Split,
    UserError,
    class_scores,
)
from xbench.jobs.base import Settings
from xbench.jobs.content import content_of
from xbench.jobs.data import DataJob
from xbench.jobs.feature import FeatureJob
from xbench.jobs.model import CalibrationJob, ModelJob, PredictionsJob
from xbench.jobs.pairing import MapsFactory
from xbench.jobs.scores import PreparationJob
from xbench.jobs.store import Manifest, Store
from xbench.registry.discovery import discover
from xbench.registry.entries import Entry, Registry
from xbench.registry.references import choose
from xbench.testing import fakes


@pytest.fixture
def registry() -> Registry:
    entries = [Entry(spec, "stranger", "1.0") for spec in (*fakes.xbench_datasets(), *fakes.xbench_models())]
    return Registry.collect([*discover().entries.values(), *entries])


@pytest.fixture
def data(registry: Registry, tmp_path: Path) -> Callable[..., DataJob]:
    def make(reference: str = "fake", **settings: Any) -> DataJob:
        return DataJob(Store(tmp_path / "cache"), Settings(**settings), choose("dataset", reference, registry))

    return make


def test_a_limit_takes_classes_in_turn_and_the_same_samples_for_every_seed(data: Callable[..., DataJob]) -> None:
    whole = data("fake:test=60").scored
    chosen = data("fake:test=60", limit=10, seed=3).scored
    assert len(chosen) == 10
    assert chosen.class_counts(2).tolist() == [5, 5]
    assert set(chosen.ids) == set(data("fake:test=60", limit=10, seed=4).scored.ids) < set(whole.ids)
    more = data("fake:test=60", limit=20).scored
    assert set(chosen.ids) < set(more.ids)


def test_what_scores_must_share_is_the_content_of_who_is_scored(
    data: Callable[..., DataJob], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, again = data("fake:test=60", seed=0), data("fake:test=60", seed=1)
    assert whole.dataset_identity == whole.fingerprint  # nothing is prepared yet
    _ = whole.manifest
    known = data("fake:test=60").dataset_identity
    assert known == again.dataset_identity != whole.fingerprint
    assert data("fake:test=60", limit=10).dataset_identity != known
    others = [data("fake:test=60", split="validation"), data("fake:test=60,seed=1"), data("fake:test=60,removal=true")]
    assert known not in [job.dataset_identity for job in others if job.manifest]
    for name, value in (("core_digest", "another"), ("library_versions", {"torch": "9"})):
        monkeypatch.setattr(f"xbench.jobs.base.{name}", lambda value=value: value)
    monkeypatch.setattr("xbench.registry.references.code_of", lambda entry: {"source": "edited"})
    elsewhere = data("fake:test=60")
    assert elsewhere.fingerprint != whole.fingerprint
    assert elsewhere.manifest
    assert elsewhere.dataset_identity == known
    # Options that change nothing of what is scored change nothing of this either.
    more = data("fake:test=60,train=30")
    assert more.manifest
    assert more.dataset_identity == known


def test_the_content_of_data_is_hashed_once(data: Callable[..., DataJob], monkeypatch: pytest.MonkeyPatch) -> None:
    first = data("fake")
    assert first.manifest
    known = first.dataset_identity
    monkeypatch.setattr("xbench.jobs.data.content_of", lambda *what: pytest.fail("hashed again"))
    assert data("fake").dataset_identity == known


def test_content_does_not_depend_on_how_it_is_read(
    data: Callable[..., DataJob], monkeypatch: pytest.MonkeyPatch
) -> None:
    job = data("fake:test=60")
    known = content_of(job.info, job.scored)
    monkeypatch.setattr("xbench.jobs.content._BATCH", 7)
    assert content_of(job.info, job.scored) == known
    split = job.scored
    order = np.arange(len(split))[::-1]
    assert content_of(job.info, split.select(order)) != known
    assert content_of(job.info, split.select(order).select(order)) == known


@pytest.mark.parametrize("column", ["images", "masks", "has_mask", "labels", "ids", "groups"])
def test_every_column_is_part_of_the_content(data: Callable[..., DataJob], column: str) -> None:
    job = data("fake")
    whole = job.scored.batch(np.arange(len(job.scored)))
    columns = {name: getattr(whole, name).numpy().copy() for name in ("images", "labels", "masks", "has_mask")}
    columns |= {"ids": list(whole.ids), "groups": list(whole.groups)}
    assert content_of(job.info, Split.from_arrays(**columns)) == content_of(job.info, job.scored)
    if column in ("ids", "groups"):
        columns[column][3] = "another"
    elif column == "images":
        columns[column][3, 0, 2, 5] = np.nextafter(columns[column][3, 0, 2, 5], np.float32(2))
    elif column == "masks":
        columns[column][3, 2, 5] ^= True
    else:
        columns[column][3] = 1 - columns[column][3]
    assert content_of(job.info, Split.from_arrays(**columns)) != content_of(job.info, job.scored)


def test_data_that_can_not_be_kept_have_the_same_content(
    data: Callable[..., DataJob], monkeypatch: pytest.MonkeyPatch
) -> None:
    job = data("fake")
    assert job.manifest
    known = content_of(job.info, job.scored)
    ensure = Store.ensure

    def full(self: Store, item: Any, wait: bool = True) -> Manifest:
        if item.kind == "content":
            raise ArtifactError("no space left on device")
        return ensure(self, item, wait)

    monkeypatch.setattr(Store, "ensure", full)
    assert data("fake").dataset_identity == known


def test_data_that_can_not_be_read_have_no_content(
    data: Callable[..., DataJob], monkeypatch: pytest.MonkeyPatch
) -> None:
    job = data("fake")
    assert job.manifest
    monkeypatch.setattr("xbench.jobs.data.content_of", lambda *what: 1 / 0)
    assert job.dataset_identity == job.fingerprint


def test_sample_seeds_follow_the_run_and_the_sample(data: Callable[..., DataJob]) -> None:
    first, second = data(seed=0).scored, data(seed=1).scored
    assert not np.array_equal(first.seeds, second.seeds)
    few = data(seed=0, limit=4).scored
    of = dict(zip(first.ids, first.seeds.tolist(), strict=True))
    assert [of[name] for name in few.ids] == few.seeds.tolist()


def test_the_training_mean_is_the_mean_of_all_training_pixels(data: Callable[..., DataJob]) -> None:
    job = data("fake:channels=3")
    train = job.split("train")
    images = train.batch(np.arange(len(train))).images.double()
    np.testing.assert_allclose(job.train_mean, images.mean((0, 2, 3)).numpy(), rtol=1e-6)


def test_predictions_are_those_of_the_trained_module(data: Callable[..., DataJob], registry: Registry) -> None:
    job = data()
    model = ModelJob(job.store, job.settings, choose("model", "tiny:epochs=2,batch_norm=true", registry), job)
    predictions = PredictionsJob(job.store, job.settings, CalibrationJob(job.store, job.settings, model, job))
    batch = job.scored.batch(np.arange(len(job.scored)))
    with torch.no_grad():
        expected = model.module(batch.images)
    np.testing.assert_allclose(predictions.logits, expected.numpy(), atol=1e-5)


def test_maps_of_the_training_split_use_the_networks_of_those_that_are_scored(
    data: Callable[..., DataJob], registry: Registry
) -> None:
    job = data("fake:train=20,test=12", limit=6, split="test")
    model = ModelJob(job.store, job.settings, choose("model", "tiny:epochs=1", registry), job)
    shared = PredictionsJob(job.store, job.settings, CalibrationJob(job.store, job.settings, model, job))
    maps_of = MapsFactory(job.store, job.settings, model, shared)
    plain, inverted = (maps_of.of(choose("explainer", name, registry)) for name in ("gradient", "inverted:gradient"))
    trained = inverted.of_training
    assert trained is inverted.of_training  # every metric gets the same
    assert trained.inner is plain.of_training
    assert plain.of_training.model is model
    assert plain.of_training.predictions is trained.predictions
    assert trained.predictions.calibration is shared.calibration
    assert trained.data.scored.ids == job.split("train").ids
    assert len(trained.maps()) == len(trained.targets) == 20
    assert len(inverted.maps()) == 6
    np.testing.assert_array_equal(trained.maps()[:], -plain.of_training.maps()[:])
    assert trained.fingerprint != inverted.fingerprint


class Looking(Metric):
    def prepare(self, case: Case) -> dict[str, np.ndarray]:
        return {"seen": case.targets}

    def observe(self, case: Case) -> dict[str, np.ndarray]:
        return {}

    def summarise(self, observations: Observations) -> float:
        return 0.0


@pytest.mark.parametrize(("target", "expected"), [("true", "labels"), ("1", "ones"), ("predicted", "predicted")])
def test_a_metric_that_needs_targets_has_them_before_there_are_maps(
    data: Callable[..., DataJob], registry: Registry, target: str, expected: str
) -> None:
    job = data("fake:test=12", target=target, split="test")
    model = ModelJob(job.store, job.settings, choose("model", "tiny:epochs=1", registry), job)
    predictions = PredictionsJob(job.store, job.settings, CalibrationJob(job.store, job.settings, model, job))
    metric, choice = Looking(Options()), choose("metric", "fidelity", registry)

    def prepared() -> PreparationJob:
        return PreparationJob(job.store, job.settings, choice, metric, predictions)

    without = prepared()
    assert len(without.prepared["seen"]) == 0
    metric.needs = frozenset({"targets"})
    with_targets = prepared()
    assert with_targets.fingerprint != without.fingerprint
    logits = torch.from_numpy(predictions.logits)
    wanted = {"labels": job.scored.labels, "ones": np.ones(12), "predicted": class_scores(logits).argmax(1).numpy()}
    np.testing.assert_array_equal(with_targets.prepared["seen"], wanted[expected])


def test_a_model_that_trains_itself_is_left_to_it(
    data: Callable[..., DataJob], registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fit(self: Model, module: nn.Module, train: Split, validation: Split, session: Session) -> None:
        torch.nn.init.constant_(next(module.parameters()), 0.5)
        session.facts["trained_by"] = "itself"

    monkeypatch.setattr(fakes.TinyModel, "fit", fit)
    job = data()
    model = ModelJob(job.store, job.settings, choose("model", "tiny", registry), job)
    assert model.facts["trained_by"] == "itself"
    assert torch.all(next(model.module.parameters()) == 0.5)


def test_a_model_that_cant_be_built_names_its_distribution(
    data: Callable[..., DataJob], registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fakes.TinyModel, "build", lambda self, info: 1 / 0)
    job = data()
    model = ModelJob(job.store, job.settings, choose("model", "tiny", registry), job)
    with pytest.raises(PluginError, match=r"model tiny \(stranger 1\.0\) can't be built: ZeroDivisionError"):
        model.fresh()


def test_a_limit_below_the_number_of_classes_is_refused(data: Callable[..., DataJob]) -> None:
    with pytest.raises(UserError, match="--limit 1"):
        _ = data(limit=1).scored


@pytest.fixture
def crowd(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], list[int]]:
    """From now on, models that are asked about more than so many images at a time have no memory for it."""
    tried = []

    def limit(room: int) -> list[int]:
        build = fakes.TinyModel.build

        def crowded(self: Any, info: DatasetInfo) -> nn.Module:
            def refuse(module: nn.Module, images: tuple[torch.Tensor, ...]) -> None:
                tried.append(len(images[0]))
                if not module.training and len(images[0]) > room:
                    raise torch.OutOfMemoryError("CUDA out of memory")

            module = build(self, info)
            module.register_forward_pre_hook(refuse)
            return module

        monkeypatch.setattr(fakes.TinyModel, "build", crowded)
        return tried

    return limit


def maps_and_logits(folder: Path, registry: Registry, explainer: str = "gradient") -> tuple[np.ndarray, np.ndarray]:
    job = DataJob(Store(folder), Settings(batch_size=8), choose("dataset", "fake:test=20", registry))
    model = ModelJob(job.store, job.settings, choose("model", "tiny:epochs=1", registry), job)
    shared = PredictionsJob(job.store, job.settings, CalibrationJob(job.store, job.settings, model, job))
    maps = MapsFactory(job.store, job.settings, model, shared).of(choose("explainer", explainer, registry))
    return maps.maps()[:], shared.logits


@pytest.mark.slow
@pytest.mark.parametrize("explainer", ["gradient", "integrated-gradients:steps=4", "blurred:sigma=1:gradient"])
def test_maps_and_predictions_are_the_same_where_only_a_few_images_fit(
    registry: Registry,
    tmp_path: Path,
    crowd: Callable[[int], list[int]],
    monkeypatch: pytest.MonkeyPatch,
    explainer: str,
) -> None:
    monkeypatch.setattr("xbench.compute.scorer._PROBE", 3)
    maps, logits = maps_and_logits(tmp_path / "all", registry, explainer)
    monkeypatch.setattr("xbench.jobs.model.CalibrationJob.batch_size", 8)
    recipe = "xbench.compute.scorer._seconds"
    monkeypatch.setattr(recipe, lambda *what: 1.0)  # a batch that the user asks for is timed, whatever fits
    tried = crowd(3)
    few, predicted = maps_and_logits(tmp_path / "few", registry, explainer)
    assert max(tried) > 3
    np.testing.assert_allclose(predicted, logits, atol=1e-5)
    np.testing.assert_allclose(few, maps, atol=1e-5)


class Shy(ImageFeature):
    """The image's mean; fails once where many are asked for at a time."""

    def __init__(self) -> None:
        super().__init__("shy", {}, "float32")
        self.left = 1

    def shape(self, spatial: tuple[int, ...]) -> tuple[int, ...]:
        return (1,)

    def compute(self, image: np.ndarray) -> np.ndarray:
        if self.left:
            self.left -= 1
            raise MemoryError("Unable to allocate 8.00 TiB")
        return image.mean(keepdims=True)[0, 0]


def test_features_are_made_of_fewer_images_at_a_time_where_memory_runs_out(data: Callable[..., DataJob]) -> None:
    job, feature = data("fake:test=30"), Shy()
    made = FeatureJob(job.store, job.settings, feature, job.choice, job).features[:]
    assert feature.left == 0
    images = job.scored.batch(np.arange(30)).images.numpy()
    np.testing.assert_allclose(made[:, 0], images.mean((1, 2, 3)), rtol=1e-5)


def test_a_training_batch_that_does_not_fit_names_the_option_and_the_preset(
    data: Callable[..., DataJob], registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    build = fakes.TinyModel.build

    def crowded(self: Any, info: DatasetInfo) -> nn.Module:
        def refuse(module: nn.Module, images: tuple[torch.Tensor, ...]) -> None:
            if len(images[0]) > 3:
                raise torch.OutOfMemoryError("CUDA out of memory")

        module = build(self, info)
        module.register_forward_pre_hook(refuse)
        return module

    monkeypatch.setattr(fakes.TinyModel, "build", crowded)
    job = data()
    model = ModelJob(job.store, job.settings, choose("model", "tiny:epochs=1,train_batch=8", registry), job)
    with pytest.raises(UserError, match=r"out of memory: a training step of 8 images.*\(try tiny:train_batch=4\)"):
        _ = model.manifest


def test_what_is_forgotten_comes_back(data: Callable[..., DataJob], registry: Registry) -> None:
    job = data("fake:test=12")
    model = ModelJob(job.store, job.settings, choose("model", "tiny:epochs=1", registry), job)
    calibration = CalibrationJob(job.store, job.settings, model, job)
    maps = MapsFactory(job.store, job.settings, model, PredictionsJob(job.store, job.settings, calibration)).of(
        choose("explainer", "autoencoder:epochs=1,width=2,latent=2", registry)
    )
    images = job.scored.batch(np.arange(12)).images
    before = maps.maps()[:], calibration.scorer(images), maps.ready, model.module, calibration.scorer
    assert maps.cost()["fit_peak_bytes"] > 0
    for one in (maps, maps.state, model, calibration):
        one.forget()
    assert maps.ready is maps.explainer is maps.state.restored
    assert all(
        new is not old for new, old in zip((maps.ready, model.module, calibration.scorer), before[2:], strict=True)
    )
    targets = torch.from_numpy(maps.targets)
    again = maps.ready.explain(model.module, job.scored.batch(np.arange(12)), targets, "under test")
    np.testing.assert_allclose(again.numpy(), before[0], atol=1e-6)
    torch.testing.assert_close(calibration.scorer(images), before[1])
