"""How single artifacts are made, with the tiny fakes, in this process."""

import numpy as np
import pytest
import torch

from xbench import Metric, Options, PluginError, UserError, class_scores
from xbench.artifacts import Store
from xbench.discovery import discover
from xbench.jobs.base import Settings
from xbench.jobs.data import DataJob
from xbench.jobs.model import CalibrationJob, ModelJob, PredictionsJob
from xbench.jobs.pairing import MapsOf
from xbench.jobs.scores import PreparationJob
from xbench.references import choose
from xbench.registry import Entry, Registry
from xbench.testing import fakes


@pytest.fixture
def registry():
    entries = [Entry(spec, "stranger", "1.0") for spec in (*fakes.xbench_datasets(), *fakes.xbench_models())]
    return Registry.collect([*discover().entries.values(), *entries])


@pytest.fixture
def data(registry, tmp_path):
    def make(reference="fake", **settings):
        return DataJob(Store(tmp_path / "cache"), Settings(**settings), choose("dataset", reference, registry))

    return make


def test_a_limit_takes_classes_in_turn_and_the_same_samples_for_every_seed(data):
    whole = data("fake:test=60").scored
    chosen = data("fake:test=60", limit=10, seed=3).scored
    assert len(chosen) == 10
    assert chosen.class_counts(2).tolist() == [5, 5]
    assert set(chosen.ids) == set(data("fake:test=60", limit=10, seed=4).scored.ids) < set(whole.ids)
    more = data("fake:test=60", limit=20).scored
    assert set(chosen.ids) < set(more.ids)


def test_what_scores_must_share_is_the_dataset_and_who_is_scored(data, monkeypatch):
    whole, again = data("fake:test=60", seed=0), data("fake:test=60", seed=1)
    assert whole.comparable == whole.fingerprint  # nothing is prepared yet
    _ = whole.manifest
    known = data("fake:test=60").comparable
    assert known == again.comparable != whole.fingerprint
    assert data("fake:test=60", limit=10).comparable != known
    others = [data("fake:test=40"), data("fake:test=60", split="validation")]
    assert known not in [job.comparable for job in others if job.manifest]
    for name, value in (("core_digest", "another"), ("library_versions", {"torch": "9"})):
        monkeypatch.setattr(f"xbench.jobs.base.{name}", lambda value=value: value)
    elsewhere = data("fake:test=60")
    assert elsewhere.fingerprint != whole.fingerprint
    assert elsewhere.manifest
    assert elsewhere.comparable == known


def test_sample_seeds_follow_the_run_and_the_sample(data):
    first, second = data(seed=0).scored, data(seed=1).scored
    assert not np.array_equal(first.seeds, second.seeds)
    few = data(seed=0, limit=4).scored
    of = dict(zip(first.ids, first.seeds.tolist(), strict=True))
    assert [of[name] for name in few.ids] == few.seeds.tolist()


def test_the_training_mean_is_the_mean_of_all_training_pixels(data):
    job = data("fake:channels=3")
    train = job.split("train")
    images = train.batch(np.arange(len(train))).images.double()
    np.testing.assert_allclose(job.train_mean, images.mean((0, 2, 3)).numpy(), rtol=1e-6)


def test_predictions_are_those_of_the_trained_module(data, registry):
    job = data()
    model = ModelJob(job.store, job.settings, choose("model", "tiny:epochs=2,batch_norm=true", registry), job)
    predictions = PredictionsJob(job.store, job.settings, CalibrationJob(job.store, job.settings, model, job))
    batch = job.scored.batch(np.arange(len(job.scored)))
    with torch.no_grad():
        expected = model.module(batch.images)
    np.testing.assert_allclose(predictions.logits, expected.numpy(), atol=1e-5)


def test_maps_of_the_training_split_use_the_networks_of_those_that_are_scored(data, registry):
    job = data("fake:train=20,test=12", limit=6, split="test")
    model = ModelJob(job.store, job.settings, choose("model", "tiny:epochs=1", registry), job)
    shared = PredictionsJob(job.store, job.settings, CalibrationJob(job.store, job.settings, model, job))
    maps_of = MapsOf(job.store, job.settings, model, shared)
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
    def prepare(self, case):
        return {"seen": case.targets}

    def observe(self, case):
        return {}

    def summarise(self, observations):
        return 0.0


@pytest.mark.parametrize(("target", "expected"), [("true", "labels"), ("1", "ones"), ("predicted", "predicted")])
def test_a_metric_that_needs_targets_has_them_before_there_are_maps(data, registry, target, expected):
    job = data("fake:test=12", target=target, split="test")
    model = ModelJob(job.store, job.settings, choose("model", "tiny:epochs=1", registry), job)
    predictions = PredictionsJob(job.store, job.settings, CalibrationJob(job.store, job.settings, model, job))
    metric, choice = Looking(Options()), choose("metric", "fidelity", registry)

    def prepared():
        return PreparationJob(job.store, job.settings, choice, metric, predictions)

    without = prepared()
    assert len(without.prepared["seen"]) == 0
    metric.needs = frozenset({"targets"})
    with_targets = prepared()
    assert with_targets.fingerprint != without.fingerprint
    logits = torch.from_numpy(predictions.logits)
    wanted = {"labels": job.scored.labels, "ones": np.ones(12), "predicted": class_scores(logits).argmax(1).numpy()}
    np.testing.assert_array_equal(with_targets.prepared["seen"], wanted[expected])


def test_a_model_that_trains_itself_is_left_to_it(data, registry, monkeypatch):
    def fit(self, module, train, validation, session):
        torch.nn.init.constant_(next(module.parameters()), 0.5)
        session.facts["trained_by"] = "itself"

    monkeypatch.setattr(fakes.TinyModel, "fit", fit)
    job = data()
    model = ModelJob(job.store, job.settings, choose("model", "tiny", registry), job)
    assert model.facts["trained_by"] == "itself"
    assert torch.all(next(model.module.parameters()) == 0.5)


def test_a_model_that_cant_be_built_names_its_distribution(data, registry, monkeypatch):
    monkeypatch.setattr(fakes.TinyModel, "build", lambda self, info: 1 / 0)
    job = data()
    model = ModelJob(job.store, job.settings, choose("model", "tiny", registry), job)
    with pytest.raises(PluginError, match=r"model tiny \(stranger 1\.0\) can't be built: ZeroDivisionError"):
        model.fresh()


def test_a_limit_below_the_number_of_classes_is_refused(data):
    with pytest.raises(UserError, match="--limit 1"):
        _ = data(limit=1).scored
