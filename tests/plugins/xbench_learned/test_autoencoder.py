"""Auto-encoders that know the normal: their losses, their training, maps of what stays behind, occlusion by them."""

import csv
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from captum.attr import Occlusion
from torch import nn
from torch.distributions import Normal, kl_divergence

import xbench_learned
from xbench import Batch, DatasetInfo, Session, Split, UserError, class_scores
from xbench.contracts.options import parse_options
from xbench.contracts.session import Bar, Progress, SilentProgress
from xbench.runtime.seeding import rng
from xbench.testing import parametrize_with_checks
from xbench.testing.networks import ConvNetwork, LinearNetwork
from xbench_learned.autoencoder import (
    WEIGHTS,
    Autoencoder,
    AutoencoderNetwork,
    ReconstructionObjective,
    VaePerturbation,
    VariationalAutoencoder,
    kl_to_standard_normal,
)
from xbench_learned.options import AutoencoderOptions, PerturbationOptions, VariationalOptions

SIZE = 32
SPECS = {spec.name: spec for spec in xbench_learned.xbench_explainers()}
TRAINED = ["autoencoder", "vae", "vae-perturbation"]
SMALL = {"width": 4, "latent": 4, "train_batch": 8, "learning_rate": 5e-3, "epochs": 25}


def info(channels: int = 1, classes: int = 2, spatial: tuple[int, ...] = (SIZE, SIZE)) -> DatasetInfo:
    return DatasetInfo("blobs", tuple(f"class {index}" for index in range(classes)), channels, spatial, has_masks=True)


def noise(*shape: int) -> torch.Tensor:
    return torch.from_numpy(rng(0, "images").random(shape, dtype=np.float32))


@pytest.fixture
def fitted(blobs: Callable[..., Split]) -> Callable[..., tuple[Any, Session]]:
    """An explainer trained on blobs, and the session of its training."""

    def run(
        name: str,
        folder: Path,
        train: Split | None = None,
        seed: int = 0,
        progress: Progress | None = None,
        **changes: Any,
    ) -> tuple[Any, Session]:
        spec = SPECS[name]
        options = spec.load_options()(**SMALL | changes)
        folder.mkdir(parents=True, exist_ok=True)
        session = Session(folder, seed=seed, progress=progress or SilentProgress())
        explainer = spec.load()(options)
        explainer.fit(None, train or blobs(64, "train"), blobs(32, "validation"), info(), session)
        explainer.restore(folder, None, info(), "cpu")
        return explainer, session

    return run


# --- auto-encoders --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("variational", [False, True])
@pytest.mark.parametrize("spatial", [(64, 64), (33, 27), (8, 8), (100, 12), (17,), (20, 12, 9)])
def test_reconstructions_have_the_images_shape_and_range(variational: bool, spatial: tuple[int, ...]) -> None:
    network = AutoencoderNetwork(2, spatial, width=4, latent=5, variational=variational)
    mean, log_variance = network.encode(noise(2, 2, *spatial))
    assert mean.shape == (2, 5)
    assert (log_variance is not None) == variational
    images = network(noise(2, 2, *spatial)).detach()
    assert images.shape == (2, 2, *spatial)
    assert float(images.min()) >= 0
    assert float(images.max()) <= 1


def test_divergence_is_that_of_the_distributions() -> None:
    mean, log_variance = 3 * noise(4, 7).double() - 1, 4 * noise(4, 7).double().flip(0) - 3
    exact = kl_divergence(Normal(mean, (log_variance / 2).exp()), Normal(0.0, 1.0)).sum(1)
    torch.testing.assert_close(kl_to_standard_normal(mean, log_variance), exact)
    assert not kl_to_standard_normal(torch.zeros(2, 3), torch.zeros(2, 3)).any()


def test_the_loss_is_minus_the_evidence_bound_up_to_a_constant(batch_of: Callable[..., Batch]) -> None:
    """Against torch.distributions, in nats of an image, for a fixed draw."""
    network = AutoencoderNetwork(2, (8, 8), 4, 3, variational=True).eval()
    images, s = noise(5, 2, 8, 8), 0.2
    torch.manual_seed(0)
    loss, _ = ReconstructionObjective(network, beta=1.0, noise=s).loss(batch_of(images), None)
    mean, log_variance = network.encode(images)
    torch.manual_seed(0)
    code = mean + (log_variance / 2).exp() * torch.randn_like(mean)
    likelihood = Normal(network.decode(code), s).log_prob(images).flatten(1).sum(1)
    divergence = kl_divergence(Normal(mean, (log_variance / 2).exp()), Normal(0.0, 1.0)).sum(1)
    constant = 128 * math.log(s * math.sqrt(2 * math.pi))
    bound = (likelihood - divergence).mean() + constant
    torch.testing.assert_close(-128 * loss, bound, rtol=1e-4, atol=0)


class Untouched(VaePerturbation):
    """An auto-encoder that reproduces everything."""

    def reconstruct(self, images: torch.Tensor) -> torch.Tensor:
        return images.clone()


class Filled(VaePerturbation):
    """An auto-encoder that draws the same whatever it sees."""

    def reconstruct(self, images: torch.Tensor) -> torch.Tensor:
        return torch.full_like(images, 0.25)


def test_a_perfect_reconstruction_leaves_nothing(explain: Callable[..., torch.Tensor]) -> None:
    images = noise(3, 2, 9, 8)
    explainer = Autoencoder(AutoencoderOptions())
    explainer._network = nn.Identity()
    assert not explain(explainer, nn.Identity(), images).any()
    network = LinearNetwork(2, (9, 8), 2)
    assert float(explain(Untouched(PerturbationOptions(window=3)), network, images).abs().max()) < 1e-5


def test_the_map_is_the_absolute_difference_over_channels(explain: Callable[..., torch.Tensor]) -> None:
    class Zeros(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return torch.zeros_like(images)

    explainer = VariationalAutoencoder(VariationalOptions())
    explainer._network = Zeros()
    images = noise(2, 3, 6, 5)
    torch.testing.assert_close(explain(explainer, nn.Identity(), images), images.sum(1))


def test_untrained_and_misfit_states_are_named(
    explain: Callable[..., torch.Tensor], fitted: Callable[..., tuple[Any, Session]], tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="not trained yet"):
        explain(Autoencoder(AutoencoderOptions()), nn.Identity(), noise(1, 1, SIZE, SIZE))
    fitted("vae", tmp_path, epochs=0)
    with pytest.raises(UserError, match="does not fit the options"):
        VariationalAutoencoder(VariationalOptions(**SMALL | {"latent": 9})).restore(tmp_path, None, info(), "cpu")


def test_a_class_that_is_not_there_is_refused() -> None:
    reason = Autoencoder(AutoencoderOptions(normal=2)).supports(nn.Identity(), info())
    assert reason == "blobs has no class normal=2: its classes are 0 to 1"
    assert Autoencoder(AutoencoderOptions(normal=1)).supports(nn.Identity(), info()) is None
    assert "4" in Autoencoder(AutoencoderOptions()).supports(nn.Identity(), info(spatial=(8, 8, 8, 8)))


@pytest.mark.parametrize("name", ["autoencoder", "vae"])
def test_it_learns_the_normal_and_the_anomaly_stays_behind(
    explain: Callable[..., torch.Tensor],
    blobs: Callable[..., Split],
    fitted: Callable[..., tuple[Any, Session]],
    tmp_path: Path,
    name: str,
) -> None:
    explainer, session = fitted(name, tmp_path)
    with (tmp_path / "history.csv").open() as file:
        history = [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]
    assert history[-1]["train_loss"] < 0.5 * history[0]["train_loss"]
    assert min(row["validation_criterion"] for row in history) < 0.5 * history[0]["validation_criterion"]
    assert session.facts["normal"] == "class 0"
    assert session.facts["normal_images"] == 32
    assert session.facts["validation_squared_error"] < 0.01
    test = blobs(40, "test")
    batch = test.batch(np.flatnonzero(test.labels == 1))
    maps = explain(explainer, nn.Identity(), batch.images)
    outside = (maps * ~batch.masks).sum((1, 2)) / (~batch.masks).sum((1, 2))
    inside = (maps * batch.masks).sum((1, 2)) / batch.masks.sum((1, 2))
    assert (inside > 3 * outside).all()
    normal = explain(explainer, nn.Identity(), test.batch(np.flatnonzero(test.labels == 0)).images)
    assert float(maps.mean()) > 1.3 * float(normal.mean())
    assert not explainer.signed
    ones = explain(explainer, LinearNetwork(1, (32, 32), 2), batch.images, torch.ones(len(batch), dtype=torch.int64))
    assert torch.equal(ones, maps)


def test_only_normal_images_are_trained_on(
    explain: Callable[..., torch.Tensor],
    blobs: Callable[..., Split],
    fitted: Callable[..., tuple[Any, Session]],
    tmp_path: Path,
) -> None:
    train = blobs(32, "train")
    bent = blobs(32, "train")
    bent._images[bent.labels == 1] = 0.0
    first, _ = fitted("autoencoder", tmp_path / "a", train, epochs=2)
    second, _ = fitted("autoencoder", tmp_path / "b", bent, epochs=2)
    assert (tmp_path / "a" / WEIGHTS).read_bytes() == (tmp_path / "b" / WEIGHTS).read_bytes()
    third, session = fitted("autoencoder", tmp_path / "c", train, epochs=2, normal=1)
    assert session.facts["normal"] == "class 1"
    images = noise(1, 1, SIZE, SIZE)
    assert not torch.equal(explain(first, nn.Identity(), images), explain(third, nn.Identity(), images))
    assert torch.equal(explain(first, nn.Identity(), images), explain(second, nn.Identity(), images))


def test_validation_of_the_vae_draws_the_same_codes_whatever_the_batch(
    blobs: Callable[..., Split], tmp_path: Path
) -> None:
    network = AutoencoderNetwork(1, (SIZE, SIZE), 4, 4, variational=True)
    objective, split = ReconstructionObjective(network, 1.0, 0.1), blobs(10, "validation")
    figures = [objective.validate(split, Session(tmp_path, batch_size=size)) for size in (10, 10, 3)]
    assert figures[0] == figures[1]
    assert figures[2] == pytest.approx(figures[0], rel=1e-5)


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


def test_an_interrupted_training_ends_with_the_same_weights(
    fitted: Callable[..., tuple[Any, Session]], tmp_path: Path
) -> None:
    fitted("vae", tmp_path / "whole", epochs=3)
    with pytest.raises(KeyboardInterrupt):
        fitted("vae", tmp_path / "halved", epochs=3, progress=Killed(after=7))  # four batches an epoch
    assert not (tmp_path / "halved" / WEIGHTS).exists()
    fitted("vae", tmp_path / "halved", epochs=3)
    assert (tmp_path / "whole" / WEIGHTS).read_bytes() == (tmp_path / "halved" / WEIGHTS).read_bytes()
    fitted("vae", tmp_path / "other", epochs=3, seed=1)
    assert (tmp_path / "whole" / WEIGHTS).read_bytes() != (tmp_path / "other" / WEIGHTS).read_bytes()


# --- perturbation by the reconstruction -----------------------------------------------------------------------------


@pytest.mark.parametrize(("window", "stride"), [(8, None), (5, 3), (4, 4), (1, 1), (40, None)])
@pytest.mark.parametrize(("channels", "spatial"), [(1, (16, 16)), (3, (17, 13))])
def test_it_is_occlusion_by_the_reconstruction(
    explain: Callable[..., torch.Tensor], window: int, stride: int | None, channels: int, spatial: tuple[int, ...]
) -> None:
    torch.manual_seed(0)
    model = ConvNetwork(channels, 3, batch_norm=True).eval()
    images, targets = noise(3, channels, *spatial), torch.tensor([0, 2, 1])
    maps = explain(Filled(PerturbationOptions(window=window, stride=stride)), model, images, targets)
    shape = tuple(min(window, side) for side in spatial)
    step = stride or max(1, window // 2)
    occlusion = Occlusion(model).attribute(
        images, (channels, *shape), (channels, *(min(step, side) for side in shape)), 0.25, targets
    )
    assert torch.allclose(occlusion, occlusion[:, :1])
    expected = occlusion[:, 0].detach().float()
    rounding = 5e-7 * float(model(images).detach().abs().max())  # of the scores whose differences these are
    torch.testing.assert_close(maps, expected, rtol=1e-5, atol=rounding)
    assert float(expected.abs().max()) > 50 * rounding


def test_a_stride_that_leaves_pixels_out_is_refused() -> None:
    with pytest.raises(UserError, match="between the windows"):
        parse_options(PerturbationOptions, {"window": 3, "stride": 4}, "explainer vae-perturbation")
    assert parse_options(PerturbationOptions, {"window": 3, "stride": 3}, "").stride == 3


@pytest.mark.parametrize("outputs", [1, 2])
def test_of_a_linear_model_by_single_pixels_it_is_the_weight_times_the_difference(
    explain: Callable[..., torch.Tensor], outputs: int
) -> None:
    model = LinearNetwork(2, (6, 5), outputs)
    images, targets = noise(2, 2, 6, 5), torch.tensor([1, 0])
    maps = explain(Filled(PerturbationOptions(window=1)), model, images, targets)
    weights = model.linear.weight.detach().view(outputs, 2, 6, 5)
    chosen = torch.stack([weights[0], -weights[0]]) if outputs == 1 else weights[targets]
    torch.testing.assert_close(maps, (chosen * (images - 0.25)).sum(1), rtol=1e-4, atol=1e-5)


def test_signs_turn_with_the_class_of_one_logit_and_volumes_work(explain: Callable[..., torch.Tensor]) -> None:
    model = LinearNetwork(1, (5, 6, 4), 1)
    images = noise(2, 1, 5, 6, 4)
    explainer = Filled(PerturbationOptions(window=3))
    assert explainer.signed
    towards, away = (explain(explainer, model, images, torch.full((2,), target)) for target in (1, 0))
    torch.testing.assert_close(towards, -away)
    assert float(towards.abs().max()) > 0
    assert class_scores(model(images)).shape == (2, 2)


@parametrize_with_checks([SPECS[name] for name in TRAINED], epochs=2, width=2, latent=3, train_batch=4)
def test_the_trained_conform(check: Callable[..., None]) -> None:
    check()
