"""The checks as plugin authors call them, and the fakes are what they say."""

import subprocess
import sys
from pathlib import Path

import pluggy
import pytest

from xbench import DatasetSpec, MetricSpec, ModelSpec, PluginError, Session, UserError
from xbench.compute.training import predict, train_classifier
from xbench.contracts import hookspecs
from xbench.runtime.randomness import isolated
from xbench.testing import check, checks_for, dataset_checks, fakes
from xbench.testing.fakes import FakeDataset, FakeOptions, TinyModel


@pytest.mark.parametrize("spec", [*fakes.xbench_datasets(), *fakes.xbench_models()], ids=lambda spec: spec.name)
def test_fakes_pass_as_plugins(spec: DatasetSpec | ModelSpec) -> None:
    assert [result for result in check(spec) if not result.passed] == []


def test_options_reach_the_plugin_and_wrong_ones_are_refused() -> None:
    (spec,) = fakes.xbench_datasets()
    assert len(list(checks_for(spec, size=16))) == len(list(dataset_checks()))
    with pytest.raises(UserError, match="dataset fake has no option 'sise'"):
        list(checks_for(spec, sise=16))
    with pytest.raises(PluginError, match="can't import"):
        list(checks_for(MetricSpec("lost", "not there", factory="xbench.nowhere:Lost")))


def test_importing_the_checks_imports_no_torch() -> None:
    code = "import sys, xbench.testing.fakes; sys.exit(bool({'torch', 'pytest'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_fakes_register_as_a_plugin() -> None:
    manager = pluggy.PluginManager("xbench")
    manager.add_hookspecs(hookspecs)
    manager.register(fakes)
    manager.check_pending()
    assert [spec.name for found in manager.hook.xbench_datasets() for spec in found] == ["fake"]


def test_the_masks_of_the_fake_dataset_hold_the_evidence(tmp_path: Path) -> None:
    dataset = FakeDataset(FakeOptions(classes=3, train=12))
    dataset.prepare(tmp_path, Session(tmp_path))
    batch = dataset.open("train", tmp_path).batch(range(12))
    inside = [len(image[0][mask].unique()) for image, mask in zip(batch.images, batch.masks, strict=True)]
    assert set(inside) == {1}  # one intensity inside, whatever the class: only the shape tells
    areas = batch.masks.flatten(1).double().mean(1)
    assert 0 < areas.min() <= areas.max() < 0.2
    assert set(batch.labels.tolist()) == {0, 1, 2}


def test_the_tiny_model_learns_the_fake_dataset(tmp_path: Path) -> None:
    dataset = FakeDataset(FakeOptions(train=96, validation=48, test=48))
    session = Session(tmp_path)
    dataset.prepare(tmp_path, session)
    model = TinyModel()
    with isolated(0):
        module = model.build(dataset.info)
    train_classifier(
        module, dataset.open("train", tmp_path), dataset.open("validation", tmp_path), model.options, session
    )
    logits, labels = predict(module, dataset.open("test", tmp_path), session)
    assert (logits.argmax(1) == labels).double().mean() >= 0.9
