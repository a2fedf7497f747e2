"""CycleGAN activation maximization as an explainer, and gradient ascent beside it: training, restoring, promises."""

import csv
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from xbench import DatasetInfo, Session, Split, UserError
from xbench.contracts.session import Bar, Progress, SilentProgress
from xbench.runtime.seeding import rng
from xbench.testing import explainer_checks
from xbench_cyclegan_am import xbench_explainers
from xbench_cyclegan_am.ascent import ActivationMaximization
from xbench_cyclegan_am.explainer import CycleGANActivationMaximization
from xbench_cyclegan_am.options import AscentOptions, CycleGANOptions, resolve

# Narrow networks, fixed here so that a change of the preset does not change these tests.
SMALL = {
    "preset": "tiny",
    "width": 0.1,
    "output": "residual",
    "train_batch": 8,
    "learning_rate": 3e-3,
    "decay": "none",
    "augment": "none",
    "epochs": 2,
}
SIZE = 16


class Spot(nn.Module):
    """K logits: how bright the k-th of K spots is; one logit for two classes if asked for."""

    def __init__(self, classes: int = 2, one_logit: bool = False) -> None:
        super().__init__()
        self.classes, self.one_logit = classes, one_logit
        self.scale = nn.Parameter(torch.tensor(12.0))
        self.norm = nn.BatchNorm2d(1, affine=False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        images = self.norm(images.mean(1, keepdim=True)) if self.training else images.mean(1, keepdim=True)
        spots = [images[..., 4 : SIZE - 4, 5 * k : 5 * k + 4].flatten(1).mean(1) for k in range(self.classes)]
        logits = self.scale * torch.stack(spots, 1)
        return logits[:, 1:] - logits[:, :1] if self.one_logit else logits


def spots(count: int, name: str, channels: int = 1, classes: int = 2, size: tuple[int, ...] = (SIZE, SIZE)) -> Split:
    """A bright spot in one of K places on noise."""
    random = rng(0, name)
    labels = np.arange(count) % classes
    images = random.uniform(0.1, 0.4, (count, channels, *size))
    masks = np.zeros((count, *size), dtype=bool)
    for index, label in enumerate(labels):
        masks[index, 4 : SIZE - 4, 5 * label : 5 * label + 4] = True
    images += 0.4 * masks[:, None]
    ids = [f"{name}{index}" for index in range(count)]
    return Split.from_arrays(images.astype(np.float32), labels, ids, ids, masks)


def info(channels: int = 1, classes: int = 2, size: tuple[int, ...] = (SIZE, SIZE)) -> DatasetInfo:
    return DatasetInfo("spots", tuple(f"class {index}" for index in range(classes)), channels, size, has_masks=True)


def fit(
    folder: Path,
    model: nn.Module | None = None,
    seed: int = 0,
    data: DatasetInfo | None = None,
    progress: Progress | None = None,
    count: int = 32,
    **options: Any,
) -> Session:
    folder.mkdir(parents=True, exist_ok=True)
    data = data or info()
    shape = (data.channels, len(data.classes), data.spatial)
    session = Session(folder, seed=seed, batch_size=16, progress=progress or SilentProgress())
    explainer = CycleGANActivationMaximization(CycleGANOptions(**{**SMALL, **options}))
    model = model or Spot(len(data.classes)).eval()
    explainer.fit(model, spots(count, "train", *shape), spots(12, "validation", *shape), data, session)
    return session


def restored(folder: Path, data: DatasetInfo | None = None, **options: Any) -> CycleGANActivationMaximization:
    explainer = CycleGANActivationMaximization(CycleGANOptions(**{**SMALL, **options}))
    explainer.restore(folder, Spot(), data or info(), "cpu")
    return explainer


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Session]:
    """96 steps. Minding the way back twice as much, they are enough."""
    folder = tmp_path_factory.mktemp("cyclegan")
    return folder, fit(folder, count=64, epochs=12, w_cycle=2.0)


def history_of(folder: Path) -> list[dict[str, float]]:
    with (folder / "history.csv").open() as file:
        return [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]


def test_the_hook_names_what_can_be_loaded() -> None:
    specs = {spec.name: spec for spec in xbench_explainers()}
    assert specs["cyclegan-am"].load() is CycleGANActivationMaximization
    assert specs["cyclegan-am"].load_options() is CycleGANOptions
    assert specs["activation-maximization"].load() is ActivationMaximization
    assert CycleGANActivationMaximization(CycleGANOptions()).trained
    assert not ActivationMaximization(AscentOptions()).trained
    assert CycleGANActivationMaximization(CycleGANOptions()).transfers
    assert ActivationMaximization(AscentOptions()).transfers


@pytest.mark.slow
def test_a_hundred_steps_move_the_classifier_both_ways_with_small_changes(trained: tuple[Path, Session]) -> None:
    folder, session = trained
    assert "warning" not in session.facts
    explainer, model = restored(folder), Spot().eval()
    images = spots(20, "test").batch(range(20)).images
    probability = {"x": model(images).softmax(1)[:, 1].detach().mean()}
    for name, k in (("minus", 0), ("plus", 1)):
        changed = explainer.transfer(model, images, torch.full((20,), k))
        probability[name] = model(changed).softmax(1)[:, 1].detach().mean()
        assert float((changed - images).abs().mean()) < 0.15
        assert float(changed.min()) >= 0
        assert float(changed.max()) <= 1
    assert probability["minus"] < probability["x"] - 0.25
    assert probability["plus"] > probability["x"] + 0.25


@pytest.mark.slow
def test_every_term_is_logged_and_the_loss_is_their_weighted_sum(trained: tuple[Path, Session]) -> None:
    folder, session = trained
    history = history_of(folder)
    assert len(history) <= 12
    for row in history:
        terms = sum(row[f"train_{name}"] for name in ("similarity", "activation", "adversarial"))
        assert row["train_loss"] == pytest.approx(terms + 2 * row["train_cycle"], rel=1e-5)
        judged = sum(row[f"validation_{name}"] for name in ("similarity", "smoothed_activation"))
        judged += 2 * row["validation_cycle"]
        assert row["validation_criterion"] == pytest.approx(judged, rel=1e-5)
    assert {"train_discriminator_loss", "validation_shift", "validation_cycle_l1"} <= set(history[0])
    best = min(history, key=lambda row: row["validation_criterion"])
    assert session.facts["validation_shift"] == best["validation_shift"] > 0.5


@pytest.mark.slow
def test_maps_are_the_difference_of_the_counterfactual_images(trained: tuple[Path, Session]) -> None:
    explainer, model = restored(trained[0]), Spot()
    images = spots(6, "test").batch(range(6)).images
    plus, minus = (explainer.transfer(model, images, torch.full((6,), k)) for k in (1, 0))
    ones = torch.ones(6, dtype=torch.int64)
    torch.testing.assert_close(explainer.attribute(model, images, ones), (plus - minus)[:, 0])
    torch.testing.assert_close(explainer.attribute(model, images, 1 - ones), (minus - plus)[:, 0])
    for variant, expected in (("toward", plus - images), ("counterfactual", images - minus)):
        made = restored(trained[0], variant=variant).attribute(model, images, ones)
        torch.testing.assert_close(made, expected[:, 0])


@pytest.mark.slow
def test_transfer_goes_where_each_image_is_told(trained: tuple[Path, Session]) -> None:
    explainer, model = restored(trained[0]), Spot()
    images = spots(5, "test").batch(range(5)).images
    toward = torch.tensor([0, 1, 1, 0, 1])
    mixed = explainer.transfer(model, images, toward)
    for k in (0, 1):
        alone = explainer.transfer(model, images, torch.full((5,), k))
        torch.testing.assert_close(mixed[toward == k], alone[toward == k], atol=1e-6, rtol=1e-5)


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
        assert "shift" in text
        assert "cycle L1" in text


def test_an_interrupted_training_ends_with_the_same_weights(tmp_path: Path) -> None:
    fit(tmp_path / "whole", epochs=2)
    with pytest.raises(KeyboardInterrupt):
        fit(tmp_path / "halved", epochs=2, progress=Killed(after=6))  # four batches an epoch
    assert not (tmp_path / "halved" / "cyclegan_am.safetensors").exists()
    fit(tmp_path / "halved", epochs=2)
    whole, halved = ((tmp_path / name / "cyclegan_am.safetensors").read_bytes() for name in ("whole", "halved"))
    assert whole == halved
    assert (tmp_path / "whole" / "history.csv").read_bytes() == (tmp_path / "halved" / "history.csv").read_bytes()


def test_seeds_matter(tmp_path: Path) -> None:
    images = spots(2, "test").batch(range(2)).images
    maps = []
    for seed in (0, 1):
        fit(tmp_path / str(seed), epochs=0, seed=seed, output="sigmoid")
        maps.append(restored(tmp_path / str(seed)).attribute(None, images, torch.ones(2, dtype=torch.int64)))
    assert not torch.allclose(*maps)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("channels", "classes", "size", "one_logit"),
    [(3, 3, (SIZE, SIZE), False), (1, 2, (SIZE + 5, SIZE + 1), True)],
)
def test_channels_classes_and_odd_sizes(
    tmp_path: Path, channels: int, classes: int, size: tuple[int, ...], one_logit: bool
) -> None:
    data = info(channels, classes, size)
    model = Spot(classes, one_logit).eval()
    session = fit(tmp_path, model, data=data, epochs=1)
    assert len(session.facts["validation_original"]) == classes
    explainer = restored(tmp_path, data)
    images = spots(6, "test", channels, classes, size).batch(range(6)).images
    targets = torch.arange(6) % classes
    maps = explainer.attribute(model, images, targets)
    assert maps.shape == (6, *size)
    changed = [explainer.transfer(model, images, torch.full((6,), k)) for k in range(classes)]
    others = sum(changed[k] for k in range(classes) if k != 2 % classes) / (classes - 1)
    torch.testing.assert_close(maps[2], (changed[2 % classes] - others)[2].sum(0), atol=1e-5, rtol=1e-4)


def test_the_users_model_is_left_alone(tmp_path: Path) -> None:
    model = Spot()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    fit(tmp_path, model=model, epochs=1)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert all(parameter.requires_grad and parameter.grad is None for parameter in model.parameters())
    assert model.training


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"epochs": 0}, "was not trained"),
        ({"w_am": 0.0, "epochs": 1}, "hardly moves the classifier"),
        ({"w_sim": 0.0, "w_cycle": 0.0, "w_adv": 0.0, "output": "sigmoid", "epochs": 12}, "no way back"),
    ],
)
def test_a_training_that_failed_says_so(tmp_path: Path, options: dict[str, Any], words: str) -> None:
    assert words in fit(tmp_path, **options).facts["warning"]


@pytest.mark.slow
def test_untrained_use_and_a_state_of_another_network_are_refused(
    trained: tuple[Path, Session], tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="not trained yet"):
        CycleGANActivationMaximization(CycleGANOptions()).transfer(None, torch.zeros(1, 1, 16, 16), torch.zeros(1))
    (tmp_path / "cyclegan_am.safetensors").write_bytes((trained[0] / "cyclegan_am.safetensors").read_bytes())
    text = (trained[0] / "cyclegan_am.json").read_text()
    (tmp_path / "cyclegan_am.json").write_text(text.replace('"width": 0.1', '"width": 0.2'))
    with pytest.raises(UserError, match="does not fit its configuration"):
        restored(tmp_path)


class Hard(nn.Module):
    """Its answer is a threshold: no gradient."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        bright = (images.flatten(1).mean(1, keepdim=True) > 0.5).float()
        return torch.cat([1 - bright, bright], 1)


def test_what_is_not_supported() -> None:
    explainer, ascent = CycleGANActivationMaximization(CycleGANOptions()), ActivationMaximization(AscentOptions())
    assert explainer.supports(Spot(), info()) is None
    assert ascent.supports(Spot(), info()) is None
    assert "two-dimensional" in explainer.supports(Spot(), info(size=(8, 32, 32)))
    assert "8 pixels" in explainer.supports(Spot(), info(size=(7, 32)))
    assert "no gradient" in explainer.supports(Hard(), info())
    assert "no gradient" in ascent.supports(Hard(), info())


def test_presets() -> None:
    tiny, paper = (resolve(CycleGANOptions(), device, (64, 64)) for device in ("cpu", "cuda:0"))
    assert (tiny.preset, paper.preset) == ("tiny", "paper")
    assert resolve(CycleGANOptions().resolved_on("cuda"), "cpu", (64, 64)) == paper
    assert (paper.width, paper.output, paper.decay, paper.epochs) == (1.0, "sigmoid", "linear", 200)
    assert resolve(CycleGANOptions(epochs=3, width=0.5), "cpu", (64, 64)).width == 0.5
    assert resolve(CycleGANOptions(preset="tiny"), "cuda", (64, 48)).augment == "none"


# --- gradient ascent --------------------------------------------------------------------------------------------------


def test_ascent_of_a_linear_classifier_has_a_closed_form() -> None:
    weights = torch.randn(2, 6 * 6, generator=torch.Generator().manual_seed(0))
    model = nn.Sequential(nn.Flatten(), nn.Linear(36, 2, bias=False))
    model[1].weight.data = 0.01 * weights
    images = 0.5 + 0.01 * torch.rand(3, 1, 6, 6)
    slope = (weights[1] - weights[0]).view(1, 6, 6)
    expected = images + 4 * 0.01 * slope / slope.pow(2).mean().sqrt()
    explainer = ActivationMaximization(AscentOptions(steps=4, step_size=0.01))
    ones = torch.ones(3, dtype=torch.int64)
    torch.testing.assert_close(explainer.transfer(model, images, ones), expected)
    torch.testing.assert_close(explainer.attribute(model, images, ones), 2 * (expected - images)[:, 0])


def test_ascent_moves_a_classifier_stays_in_the_range_and_minds_the_penalty() -> None:
    model, images = Spot().eval(), spots(6, "test").batch(range(6)).images
    sizes = {}
    for penalty in (0.0, 100.0):
        explainer = ActivationMaximization(AscentOptions(steps=40, step_size=0.02, penalty=penalty))
        changed = explainer.transfer(model, images, torch.ones(6, dtype=torch.int64))
        assert float(changed.min()) >= 0
        assert float(changed.max()) <= 1
        sizes[penalty] = float((changed - images).abs().mean())
        if not penalty:
            assert float(model(changed).detach().softmax(1)[:, 1].min()) > 0.99
    assert sizes[100.0] < sizes[0.0]
    nothing = ActivationMaximization(AscentOptions(steps=0)).attribute(model, images, torch.arange(6) % 2)
    assert not nothing.any()


def _small_cyclegan() -> CycleGANActivationMaximization:
    return CycleGANActivationMaximization(CycleGANOptions(**{**SMALL, "epochs": 1, "output": "sigmoid"}))


def _ascent() -> ActivationMaximization:
    return ActivationMaximization(AscentOptions(steps=3))


@pytest.mark.parametrize(
    ("check", "factory"),
    [
        pytest.param(run, factory, id=f"{factory.__name__[1:]}-{name}")
        for factory in (_small_cyclegan, _ascent)
        for name, run in explainer_checks()
    ],
)
def test_conformance(check: Callable[..., None], factory: Callable[..., Any]) -> None:
    check(factory)
