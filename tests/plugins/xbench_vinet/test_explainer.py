"""VINet as an explainer: training, resuming, restoring, and what its maps and its classifier promise."""

import csv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from xbench import DatasetInfo, Session, Split, UserError
from xbench.compute.training import predict
from xbench.contracts.session import Bar, Progress, SilentProgress
from xbench.runtime.seeding import rng
from xbench_vinet import xbench_explainers
from xbench_vinet.destruction import FixedNoise, destroy
from xbench_vinet.explainer import VINet
from xbench_vinet.network import VINetNetwork
from xbench_vinet.objective import VINetObjective, kept_pixels
from xbench_vinet.options import VINetOptions
from xbench_vinet.stages import Stage

# The tiny networks, fixed here so that a change of the preset does not change these tests. The shift lets the
# classifier learn before features are destroyed.
SMALL = {
    "preset": "tiny",
    "importance": "unet",
    "encoder": "tu-test_resnet",
    "width": 0.25,
    "classifier": "test_resnet",
    "shift": 5.0,
    "train_batch": 8,
    "learning_rate": 2e-3,
    "augment": "dihedral",
}
SIZE = 32


def shapes(count: int, name: str, channels: int = 1, classes: int = 2) -> Split:
    """Disks of class 0, rings of class 1 (thinner rings above), at random places on noise."""
    random = rng(0, name)
    labels = np.arange(count) % classes
    y, x = np.mgrid[:SIZE, :SIZE]
    centre = random.uniform(9, SIZE - 9, (count, 2, 1, 1))
    distance = np.hypot(y - centre[:, 0], x - centre[:, 1])
    hole = np.where(labels > 0, 1.5 + labels, 0)[:, None, None]
    masks = (distance <= 7) & (distance >= hole)
    images = random.uniform(0.1, 0.35, (count, channels, SIZE, SIZE)) + 0.6 * masks[:, None]
    ids = [f"{name}{index}" for index in range(count)]
    return Split.from_arrays(images.astype(np.float32), labels, ids, ids, masks)


def info(channels: int = 1, classes: int = 2, spatial: tuple[int, ...] = (SIZE, SIZE)) -> DatasetInfo:
    return DatasetInfo("shapes", tuple(f"class {index}" for index in range(classes)), channels, spatial, has_masks=True)


def fit(
    folder: Path,
    train: Split | None = None,
    model: nn.Module | None = None,
    seed: int = 0,
    data: DatasetInfo | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> Session:
    folder.mkdir(parents=True, exist_ok=True)
    session = Session(folder, seed=seed, batch_size=16, progress=progress or SilentProgress())
    explainer = VINet(VINetOptions(**{**SMALL, **options}))
    data = data or info()
    train = train or shapes(32, "train")
    explainer.fit(model, train, shapes(16, "validation", data.channels, len(data.classes)), data, session)
    return session


def restored(folder: Path, model: nn.Module | None = None, data: DatasetInfo | None = None, **options: Any) -> VINet:
    explainer = VINet(VINetOptions(**{**SMALL, **options}))
    explainer.restore(folder, model, data or info(), "cpu")
    return explainer


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Session]:
    folder = tmp_path_factory.mktemp("vinet")
    return folder, fit(folder, shapes(64, "train"), epochs=6)


def maps_of(explainer: VINet, images: torch.Tensor) -> torch.Tensor:
    return explainer.attribute(None, images, torch.zeros(len(images), dtype=torch.int64))


def test_the_hook_names_what_can_be_loaded() -> None:
    (spec,) = xbench_explainers()
    assert spec.load() is VINet
    assert spec.load_options() is VINetOptions
    assert VINet(VINetOptions()).trained


def test_training_lowers_the_loss_and_logs_both_terms(trained: tuple[Path, Session]) -> None:
    folder, session = trained
    with (folder / "history.csv").open() as file:
        history = [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]
    assert len(history) == 6
    assert history[-1]["train_loss"] < 0.8 * history[0]["train_loss"]
    for row in history:
        assert row["train_loss"] == pytest.approx(
            row["train_classification"] + 0.25 * row["train_importance"], rel=1e-5
        )
        expected = row["validation_classification"] + 0.25 * row["validation_importance"]
        assert row["validation_criterion"] == pytest.approx(expected, rel=1e-5)
    best = min(history, key=lambda row: row["validation_criterion"])
    assert session.facts["preset"] == "tiny"
    assert session.facts["validation_accuracy"] == best["validation_accuracy"]
    assert session.facts["validation_importance_loss"] == best["validation_importance"]
    assert session.facts["validation_kept_pixels"] == best["validation_kept"]
    assert session.facts["destroyed"] == ["input", "act1", "layer1"]


def test_maps_lie_in_the_unit_interval_and_reach_one(trained: tuple[Path, Session]) -> None:
    maps = maps_of(restored(trained[0]), shapes(4, "test").batch(range(4)).images)
    assert maps.shape == (4, SIZE, SIZE)
    assert maps.flatten(1).amax(1).tolist() == [1, 1, 1, 1]
    assert float(maps.min()) > 0
    assert all(len(one.unique()) > 0.9 * SIZE * SIZE for one in maps)  # an order of the pixels, not a few grey levels


def test_restored_explainers_agree_to_the_bit_and_with_training(trained: tuple[Path, Session]) -> None:
    folder, session = trained
    images = shapes(4, "test").batch(range(4)).images
    first, second = restored(folder), restored(folder)
    assert torch.equal(maps_of(first, images), maps_of(second, images))
    assert torch.equal(first.classifier()(images), second.classifier()(images))
    logits, labels = predict(first.classifier(), shapes(16, "validation"), Session(folder))
    accuracy = float((logits.argmax(1) == labels).float().mean())
    assert accuracy == pytest.approx(session.facts["validation_accuracy"])


def test_its_classifier_can_be_explained_by_gradients_after_it_was_scored(trained: tuple[Path, Session]) -> None:
    classifier = restored(trained[0]).classifier()
    images = shapes(2, "test").batch(range(2)).images
    with torch.inference_mode():
        classifier(images)
    images.requires_grad_()
    gradient = torch.autograd.grad(classifier(images)[:, 0].sum(), images)[0]
    assert float(gradient.abs().max()) > 0


def test_maps_and_logits_do_not_depend_on_the_batch_or_the_target(trained: tuple[Path, Session]) -> None:
    explainer = restored(trained[0])
    images = shapes(6, "test").batch(range(6)).images
    alone = torch.cat([maps_of(explainer, image[None]) for image in images])
    torch.testing.assert_close(maps_of(explainer, images), alone, atol=1e-5, rtol=1e-5)
    classifier = explainer.classifier()
    alone = torch.cat([classifier(image[None]) for image in images])
    torch.testing.assert_close(classifier(images), alone, atol=1e-5, rtol=1e-5)
    ones = explainer.attribute(None, images, torch.ones(6, dtype=torch.int64))
    assert torch.equal(ones, maps_of(explainer, images))


def test_no_hook_is_left_behind(trained: tuple[Path, Session]) -> None:
    classifier = restored(trained[0]).classifier()
    classifier(shapes(2, "test").batch(range(2)).images)
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in classifier.modules())


class Killed(SilentProgress):
    """The progress of a training that is killed in the middle of an epoch."""

    def __init__(self, after: float) -> None:
        self._left = after

    @contextmanager
    def task(self, label: str, total: float | None = None) -> Iterator[Bar]:
        yield self

    def advance(self, amount: float = 1) -> None:
        self._left -= 1
        if self._left < 0:
            raise KeyboardInterrupt

    def note(self, text: str) -> None:
        pass


def test_an_interrupted_training_ends_with_the_same_weights(tmp_path: Path) -> None:
    train = shapes(32, "train")
    fit(tmp_path / "whole", train, epochs=3)
    with pytest.raises(KeyboardInterrupt):
        fit(tmp_path / "halved", train, epochs=3, progress=Killed(after=7))  # four batches an epoch
    assert not (tmp_path / "halved" / "vinet.safetensors").exists()
    fit(tmp_path / "halved", train, epochs=3)
    whole, halved = ((tmp_path / name / "vinet.safetensors").read_bytes() for name in ("whole", "halved"))
    assert whole == halved


def test_seeds_matter(tmp_path: Path) -> None:
    for seed in (0, 1):
        fit(tmp_path / str(seed), epochs=0, seed=seed)
    images = shapes(2, "test").batch(range(2)).images
    zero, one = (maps_of(restored(tmp_path / str(seed)), images) for seed in (0, 1))
    assert not torch.allclose(zero, one)


def test_three_channels_and_five_classes(tmp_path: Path) -> None:
    data = info(channels=3, classes=5)
    fit(tmp_path, shapes(20, "train", 3, 5), epochs=1, data=data)
    explainer = restored(tmp_path, data=data)
    images = shapes(5, "test", 3, 5).batch(range(5)).images
    assert maps_of(explainer, images).shape == (5, SIZE, SIZE)
    assert explainer.classifier()(images).shape == (5, 5)


def test_the_users_model_is_left_alone(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 2))
    before = {key: value.clone() for key, value in model.state_dict().items()}
    for frozen in (False, True):
        fit(tmp_path / str(frozen), model=model, epochs=1, frozen_classifier=frozen)
        assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
        assert all(parameter.requires_grad and parameter.grad is None for parameter in model.parameters())
        assert model.training
        assert not any(part._forward_hooks for part in model.modules())


def test_a_frozen_classifier_is_the_given_one(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 1))
    model.eval()
    session = fit(tmp_path, model=model, epochs=2, frozen_classifier=True)
    assert session.facts["destroyed"] == ["input"]
    explainer = restored(tmp_path, model=model, frozen_classifier=True)
    images = shapes(3, "test").batch(range(3)).images
    maps = maps_of(explainer, images)
    damaged = destroy(images, maps[:, None], FixedNoise(session.seed)(images, "input"))
    torch.testing.assert_close(explainer.classifier()(images), model(damaged))


def recording_network(stages: Any, **options: Any) -> VINetNetwork:
    classifier = nn.Sequential(nn.Conv2d(1, 2, 3, 2, 1), nn.Flatten(), nn.Linear(2 * 8 * 8, 2))
    return VINetNetwork(nn.Conv2d(1, 1, 3, padding=1), classifier, stages, VINetOptions(**options), seed=3)


def test_the_passes_of_a_single_and_of_a_multi_scale_network() -> None:
    torch.manual_seed(0)
    images = torch.rand(2, 1, 16, 16)
    for stages in ((), (Stage("0", 2),)):
        network = recording_network(stages).eval()
        logits, maps = network(images)
        noise = FixedNoise(3)
        first = network.classifier[0](destroy(images, maps[:, None], noise(images, "input")))
        if stages:
            halved = nn.functional.interpolate(maps[:, None], size=(8, 8), mode="bilinear", align_corners=False)
            first = destroy(first, halved, noise(first, "0"))
        torch.testing.assert_close(logits, network.classifier[1:](first))


def test_single_scale_and_the_deepest_stage_are_options(tmp_path: Path) -> None:
    cases: dict[str, dict[str, Any]] = {
        "input": {"multi_scale": False},
        "input,act1,layer1,layer2": {"max_reduction": 8, "mask_resize": "max"},
        "input,conv1,maxpool": {"placement": "after_downsampling"},
        "input,act1,layer1,layer2,layer3": {"max_reduction": "none", "mask_resize": "area"},
    }
    for expected, options in cases.items():
        session = fit(tmp_path / expected, epochs=0, **options)
        # The last stage of 32 pixels is a single pixel.
        assert ",".join(session.facts["destroyed"]).removesuffix(",layer4") == expected


def test_noise_is_new_in_training_and_fixed_in_evaluation() -> None:
    network = recording_network(())
    images = torch.rand(2, 1, 16, 16)
    network.train()
    assert not torch.equal(network(images)[0], network(images)[0])
    network.eval()
    assert torch.equal(network(images)[0], network(images)[0])


def test_logits_are_averaged_over_noise_draws() -> None:
    torch.manual_seed(0)
    images = torch.rand(2, 1, 16, 16)
    network = recording_network((), noise_draws=3).eval()
    logits, maps = network(images)
    draws = [
        network.classifier(destroy(images, maps[:, None], FixedNoise(3, draw)(images, "input"))) for draw in range(3)
    ]
    torch.testing.assert_close(logits, torch.stack(draws).mean(0))


def test_sigmoid_is_not_normalised() -> None:
    network = recording_network((), activation="sigmoid", shift=-3.0).eval()
    images = torch.rand(2, 1, 16, 16)
    torch.testing.assert_close(network(images)[1], torch.sigmoid(network.importance(images)[:, 0] - 3))


def test_kept_pixels_are_those_of_equations_9_and_10() -> None:
    maps = torch.tensor([[[0.0, 0.05], [0.1, 1.0]], [[0.0999, 0.0], [0.0, 1.0]]])
    torch.testing.assert_close(kept_pixels(maps), (maps + 0.9).floor().mean((1, 2)))
    assert kept_pixels(maps).tolist() == [0.5, 0.25]


def test_the_objective_is_equation_6() -> None:
    torch.manual_seed(0)
    network = recording_network(()).eval()
    batch = shapes(4, "test").batch(range(4))
    batch.images.data = batch.images[:, :, :16, :16]
    loss, terms = VINetObjective(network, alpha=0.7).loss(batch, torch.Generator())
    logits, maps = network(batch.images)
    classification = -logits.log_softmax(1)[torch.arange(4), batch.labels].mean()
    torch.testing.assert_close(loss, classification + 0.7 * maps.sum() / maps.numel())
    torch.testing.assert_close(terms["classification"], classification.detach())


def test_what_it_does_not_support() -> None:
    assert VINet(VINetOptions()).supports(None, info()) is None
    assert "two-dimensional" in VINet(VINetOptions()).supports(None, info(spatial=(8, 32, 32)))
    assert "at least 128" in VINet(VINetOptions(importance="pan")).supports(None, info())
    assert "did you mean" in VINet(VINetOptions(classifier="resnet1000")).supports(None, info())


def test_untrained_use_is_refused() -> None:
    with pytest.raises(UserError, match="not trained yet"):
        VINet(VINetOptions()).classifier()


def test_a_state_of_another_network_is_refused(trained: tuple[Path, Session], tmp_path: Path) -> None:
    folder, _ = trained
    (tmp_path / "vinet.safetensors").write_bytes((folder / "vinet.safetensors").read_bytes())
    text = (folder / "vinet.json").read_text()
    (tmp_path / "vinet.json").write_text(text.replace('"test_resnet"', '"test_efficientnet"'))
    with pytest.raises(UserError, match="does not fit its configuration"):
        restored(tmp_path)


@pytest.mark.slow
def test_a_dearer_map_is_a_smaller_map(tmp_path: Path) -> None:
    free, dear = (
        fit(tmp_path / str(alpha), shapes(64, "train"), epochs=12, alpha=alpha).facts["validation_importance_loss"]
        for alpha in (0.0, 2.0)
    )
    assert free > dear
