"""What is learned inside: attention that reads, auto-encoders that know the normal, and what both promise."""

import copy
import csv
import functools
import math
import subprocess
import sys
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from captum.attr import Occlusion
from torch import nn
from torch.distributions import Normal, kl_divergence
from torch.nn import functional as F

import xbench_learned
from xbench import Batch, DatasetInfo, Session, Split, UserError, class_scores
from xbench.folding import fold_batch_norms
from xbench.options import parse_options
from xbench.seeding import rng, sample_seeds
from xbench.session import SilentProgress
from xbench.testing import Scenario, explainer_checks, model_checks, parametrize_with_checks
from xbench.testing.fakes import FakeDataset, FakeOptions
from xbench.testing.networks import ConvNetwork, LinearNetwork
from xbench.training import predict, train_classifier
from xbench_learned.attention import Attention, AttentionGate, AttentionModel
from xbench_learned.autoencoder import (
    WEIGHTS,
    Autoencoder,
    AutoencoderNetwork,
    ReconstructionObjective,
    VaePerturbation,
    VariationalAutoencoder,
    kl_to_standard_normal,
)
from xbench_learned.options import (
    AttentionModelOptions,
    AttentionOptions,
    AutoencoderOptions,
    PerturbationOptions,
    VariationalOptions,
)

SIZE = 32
SPECS = {spec.name: spec for spec in xbench_learned.xbench_explainers()}
TRAINED = ["autoencoder", "vae", "vae-perturbation"]


def info(channels=1, classes=2, spatial=(SIZE, SIZE)):
    return DatasetInfo("blobs", tuple(f"class {index}" for index in range(classes)), channels, spatial, has_masks=True)


def noise(*shape):
    return torch.from_numpy(rng(0, "images").random(shape, dtype=np.float32))


def batch_of(images):
    ids = tuple(f"sample-{index}" for index in range(len(images)))
    return Batch(
        images=images,
        labels=torch.zeros(len(images), dtype=torch.int64),
        ids=ids,
        groups=ids,
        masks=torch.zeros((len(images), *images.shape[2:]), dtype=torch.bool),
        has_mask=torch.zeros(len(images), dtype=torch.bool),
        seeds=torch.from_numpy(sample_seeds(0, ids)),
    )


def explain(explainer, images, targets=None, model=None):
    targets = torch.zeros(len(images), dtype=torch.int64) if targets is None else torch.as_tensor(targets)
    return explainer.explain(model or nn.Identity(), batch_of(images), targets, "under test")


def blobs(count, name):
    """Smooth slopes; class 1 has a bright disk at a random place, which is its mask."""
    random = rng(0, name)
    labels = np.arange(count) % 2
    y, x = np.mgrid[:SIZE, :SIZE]
    centre = random.uniform(7, SIZE - 7, (count, 2, 1, 1))
    masks = (np.hypot(y - centre[:, 0], x - centre[:, 1]) <= 4) & (labels == 1)[:, None, None]
    slope = random.uniform(-0.1, 0.1, (count, 2, 1, 1))
    images = 0.3 + slope[:, 0] * (y / SIZE - 0.5) + slope[:, 1] * (x / SIZE - 0.5) + 0.5 * masks
    images += random.normal(0, 0.03, images.shape)
    ids = [f"{name}{index}" for index in range(count)]
    return Split.from_arrays(images[:, None].clip(0, 1).astype(np.float32), labels, ids, ids, masks)


def built(channels=1, classes=2, spatial=(SIZE, SIZE), seed=0, **options):
    torch.manual_seed(seed)
    model = AttentionModel(AttentionModelOptions(**{"widths": "4,8,12", **options}))
    return model.build(info(channels, classes, spatial)).eval()


# --- the gate -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("compatibility", ["pc", "dp"])
@pytest.mark.parametrize("stage", [(7,), (5, 6), (3, 4, 2)])
def test_attention_is_the_papers_formula_position_by_position(compatibility, stage):
    gate = AttentionGate(3, 5, compatibility, len(stage)).double()
    local, described = noise(2, 3, *stage).double(), noise(2, 5).double()
    pooled, attention = gate(local, described)
    for image in range(2):
        vectors = [gate.project.weight.flatten(1) @ column for column in local[image].flatten(1).T]
        if compatibility == "pc":  # with g, which the gate leaves out because the softmax does not see it
            scores = [(gate.u.weight[0] @ (vector + described[image])).item() for vector in vectors]
        else:
            scores = [(vector @ described[image]).item() for vector in vectors]
        weights = np.exp(scores) / np.exp(scores).sum()
        expected = sum(weight * vector for weight, vector in zip(weights, vectors, strict=True))
        np.testing.assert_allclose(attention[image].flatten().detach(), weights, rtol=1e-9)
        torch.testing.assert_close(pooled[image], expected)


@pytest.mark.parametrize("compatibility", ["pc", "dp"])
def test_constant_local_features_get_uniform_attention(compatibility):
    gate = AttentionGate(3, 3, compatibility, 2)
    vectors = noise(2, 3)
    pooled, attention = gate(vectors[:, :, None, None].expand(2, 3, 4, 5), noise(2, 3))
    torch.testing.assert_close(attention, torch.full((2, 4, 5), 1 / 20))
    torch.testing.assert_close(pooled, vectors)


def test_local_features_as_long_as_the_global_ones_are_not_projected():
    assert isinstance(AttentionGate(5, 5, "pc", 2).project, nn.Identity)
    assert isinstance(AttentionGate(3, 5, "pc", 2).project, nn.Conv2d)


# --- the model ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("compatibility", ["pc", "dp"])
@pytest.mark.parametrize(("channels", "classes", "spatial"), [(1, 2, (64, 64)), (3, 5, (33, 27)), (1, 2, (8, 10, 9))])
def test_attention_sums_to_one_at_each_of_three_stages(compatibility, channels, classes, spatial):
    network = built(channels, classes, spatial, compatibility=compatibility)
    images = noise(3, channels, *spatial)
    logits, maps = network.attend(images)
    assert logits.shape == (3, classes)
    assert torch.equal(network(images), logits)
    for level, attention in enumerate(maps):
        assert attention.shape == (3, *(math.ceil(side / 2**level) for side in spatial))
        assert (attention > 0).all()
        torch.testing.assert_close(attention.flatten(1).sum(1), torch.ones(3))


def test_only_the_last_three_stages_have_attention():
    maps = built(widths="4,4,8,8,8").attend(noise(1, 1, SIZE, SIZE))[1]
    assert [tuple(attention.shape[1:]) for attention in maps] == [(8, 8), (4, 4), (2, 2)]


def test_the_classifier_sees_nothing_but_what_was_attended_to():
    network = built().double()
    seen = []
    network.classifier.register_forward_pre_hook(lambda layer, args: seen.append(args[0]))
    locals_ = []
    for stage in network.stages:
        stage.register_forward_hook(lambda layer, args, output: locals_.append(output))
    maps = network.attend(noise(2, 1, SIZE, SIZE).double())[1]
    pooled = [
        (gate.project(local) * attention[:, None]).flatten(2).sum(2)
        for gate, local, attention in zip(network.gates, locals_, maps, strict=True)
    ]
    torch.testing.assert_close(seen[0], torch.cat(pooled, 1))


@pytest.mark.parametrize("compatibility", ["pc", "dp"])
def test_every_weight_can_learn(compatibility):
    network = built(compatibility=compatibility).train()
    F.cross_entropy(network(noise(6, 1, SIZE, SIZE)), torch.arange(6) % 2).backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert float(parameter.grad.abs().max()) > 1e-7, name


def test_every_batch_norm_can_be_folded_for_scoring():
    network = built(compatibility="dp")
    folded = copy.deepcopy(network)
    assert fold_batch_norms(folded) == 4
    torch.testing.assert_close(folded(noise(2, 1, SIZE, SIZE)), network(noise(2, 1, SIZE, SIZE)), rtol=1e-5, atol=1e-6)


def test_it_is_about_as_large_as_the_convnet():
    network = built(spatial=(64, 64), widths="32,64,128,256")
    assert sum(parameter.numel() for parameter in network.parameters()) == pytest.approx(421_570, rel=0.05)


@pytest.mark.parametrize("widths", ["4,8", "4,8,0", "4,8,x", ""])
def test_widths_must_be_three_or_more_numbers(widths):
    with pytest.raises(UserError, match="widths"):
        parse_options(AttentionModelOptions, {"widths": widths}, "model attention")


def test_images_without_room_for_attention_are_refused():
    with pytest.raises(UserError, match="15 x 64 pixels are too small for 4 stages"):
        AttentionModel(AttentionModelOptions()).build(info(spatial=(15, 64)))
    with pytest.raises(UserError, match="4 axes"):
        AttentionModel(AttentionModelOptions()).build(info(spatial=(16, 16, 16, 16)))


# --- its maps -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", ["mean", "first", "second", "third"])
@pytest.mark.parametrize("spatial", [(SIZE, SIZE), (33, 27)])
def test_the_map_is_the_enlarged_attention(stage, spatial):
    network, images = built(3, 3, spatial), noise(2, 3, *spatial)
    enlarged = []
    for attention in network.attend(images)[1]:
        relative = attention / attention.mean((1, 2), keepdim=True)  # 1 where evenly spread
        enlarged.append(F.interpolate(relative[:, None], spatial, mode="bilinear")[:, 0])
    expected = sum(enlarged) / 3 if stage == "mean" else enlarged[["first", "second", "third"].index(stage)]
    maps = explain(Attention(AttentionOptions(stage=stage)), images, model=network)
    torch.testing.assert_close(maps, expected.detach(), rtol=1e-5, atol=1e-6)


def test_the_map_is_the_same_for_every_target_and_unsigned():
    network, images = built(), noise(4, 1, SIZE, SIZE)
    explainer = Attention(AttentionOptions())
    assert not explainer.signed
    first, second = (explain(explainer, images, torch.full((4,), target), network) for target in (0, 1))
    assert torch.equal(first, second)
    assert (first > 0).all()


def test_other_models_are_refused():
    reason = Attention(AttentionOptions()).supports(ConvNetwork(1, 2), info())
    assert reason == "needs the model `attention`, whose classifier reads through its own attention maps"
    assert Attention(AttentionOptions()).supports(built(), info()) is None


@pytest.mark.parametrize("compatibility", ["pc", "dp"])
def test_it_learns_and_looks_at_the_object(tmp_path, compatibility):
    network = built(compatibility=compatibility, widths="8,16,16")
    options = AttentionModelOptions(epochs=8, patience=8, learning_rate=3e-3, train_batch=16)
    train_classifier(network, blobs(96, "train"), blobs(32, "validation"), options, Session(tmp_path))
    test = blobs(40, "test")
    logits, labels = predict(network, test, Session(tmp_path))
    assert float((logits.argmax(1) == labels).float().mean()) > 0.9
    batch = test.batch(np.flatnonzero(test.labels == 1))
    maps = explain(Attention(AttentionOptions()), batch.images, model=network)
    inside = (maps * batch.masks).sum((1, 2)) / maps.sum((1, 2))
    evenly = batch.masks.float().mean((1, 2))
    assert float((inside / evenly).mean()) > 2


# --- auto-encoders --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("variational", [False, True])
@pytest.mark.parametrize("spatial", [(64, 64), (33, 27), (8, 8), (100, 12), (17,), (20, 12, 9)])
def test_reconstructions_have_the_images_shape_and_range(variational, spatial):
    network = AutoencoderNetwork(2, spatial, width=4, latent=5, variational=variational)
    mean, log_variance = network.encode(noise(2, 2, *spatial))
    assert mean.shape == (2, 5)
    assert (log_variance is not None) == variational
    images = network(noise(2, 2, *spatial))
    assert images.shape == (2, 2, *spatial)
    assert float(images.min()) >= 0
    assert float(images.max()) <= 1


def test_divergence_is_that_of_the_distributions():
    mean, log_variance = 3 * noise(4, 7).double() - 1, 4 * noise(4, 7).double().flip(0) - 3
    exact = kl_divergence(Normal(mean, (log_variance / 2).exp()), Normal(0.0, 1.0)).sum(1)
    torch.testing.assert_close(kl_to_standard_normal(mean, log_variance), exact)
    assert not kl_to_standard_normal(torch.zeros(2, 3), torch.zeros(2, 3)).any()


def test_the_loss_is_minus_the_evidence_bound_up_to_a_constant():
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
    assert float(128 * loss) == pytest.approx(float((divergence - likelihood).mean()) - constant, rel=1e-4)


class Untouched(VaePerturbation):
    """An auto-encoder that reproduces everything."""

    def reconstruct(self, images):
        return images.clone()


class Filled(VaePerturbation):
    """An auto-encoder that draws the same whatever it sees."""

    def reconstruct(self, images):
        return torch.full_like(images, 0.25)


def test_a_perfect_reconstruction_leaves_nothing():
    images = noise(3, 2, 9, 8)
    explainer = Autoencoder(AutoencoderOptions())
    explainer._network = nn.Identity()
    assert not explain(explainer, images).any()
    network = LinearNetwork(2, (9, 8), 2)
    assert float(explain(Untouched(PerturbationOptions(window=3)), images, model=network).abs().max()) < 1e-5


def test_the_map_is_the_absolute_difference_over_channels():
    class Zeros(nn.Module):
        def forward(self, images):
            return torch.zeros_like(images)

    explainer = VariationalAutoencoder(VariationalOptions())
    explainer._network = Zeros()
    images = noise(2, 3, 6, 5)
    torch.testing.assert_close(explain(explainer, images), images.sum(1))


def test_untrained_and_misfit_states_are_named(tmp_path):
    with pytest.raises(UserError, match="not trained yet"):
        explain(Autoencoder(AutoencoderOptions()), noise(1, 1, SIZE, SIZE))
    fitted("vae", tmp_path, epochs=0)
    with pytest.raises(UserError, match="does not fit the options"):
        VariationalAutoencoder(VariationalOptions(**SMALL | {"latent": 9})).restore(tmp_path, None, info(), "cpu")


def test_a_class_that_is_not_there_is_refused():
    reason = Autoencoder(AutoencoderOptions(normal=2)).supports(nn.Identity(), info())
    assert reason == "blobs has no class normal=2: its classes are 0 to 1"
    assert Autoencoder(AutoencoderOptions(normal=1)).supports(nn.Identity(), info()) is None
    assert "4" in Autoencoder(AutoencoderOptions()).supports(nn.Identity(), info(spatial=(8, 8, 8, 8)))


SMALL = {"width": 4, "latent": 4, "train_batch": 8, "learning_rate": 5e-3, "epochs": 25}


def fitted(name, folder, train=None, seed=0, progress=None, **changes):
    spec = SPECS[name]
    options = spec.load_options()(**SMALL | changes)
    folder.mkdir(parents=True, exist_ok=True)
    session = Session(folder, seed=seed, progress=progress or SilentProgress())
    explainer = spec.load()(options)
    explainer.fit(None, train or blobs(64, "train"), blobs(32, "validation"), info(), session)
    explainer.restore(folder, None, info(), "cpu")
    return explainer, session


@pytest.mark.parametrize("name", ["autoencoder", "vae"])
def test_it_learns_the_normal_and_the_anomaly_stays_behind(tmp_path, name):
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
    maps = explain(explainer, batch.images)
    outside = (maps * ~batch.masks).sum((1, 2)) / (~batch.masks).sum((1, 2))
    inside = (maps * batch.masks).sum((1, 2)) / batch.masks.sum((1, 2))
    assert (inside > 3 * outside).all()
    normal = explain(explainer, test.batch(np.flatnonzero(test.labels == 0)).images)
    assert float(maps.mean()) > 1.3 * float(normal.mean())
    assert not explainer.signed
    ones = explain(explainer, batch.images, torch.ones(len(batch), dtype=torch.int64), LinearNetwork(1, (32, 32), 2))
    assert torch.equal(ones, maps)


def test_only_normal_images_are_trained_on(tmp_path):
    train = blobs(32, "train")
    bent = blobs(32, "train")
    bent._images[bent.labels == 1] = 0.0
    first, _ = fitted("autoencoder", tmp_path / "a", train, epochs=2)
    second, _ = fitted("autoencoder", tmp_path / "b", bent, epochs=2)
    assert (tmp_path / "a" / WEIGHTS).read_bytes() == (tmp_path / "b" / WEIGHTS).read_bytes()
    third, session = fitted("autoencoder", tmp_path / "c", train, epochs=2, normal=1)
    assert session.facts["normal"] == "class 1"
    images = noise(1, 1, SIZE, SIZE)
    assert not torch.equal(explain(first, images), explain(third, images))
    assert torch.equal(explain(first, images), explain(second, images))


def test_validation_of_the_vae_draws_the_same_codes_whatever_the_batch(tmp_path):
    network = AutoencoderNetwork(1, (SIZE, SIZE), 4, 4, variational=True)
    objective, split = ReconstructionObjective(network, 1.0, 0.1), blobs(10, "validation")
    figures = [objective.validate(split, Session(tmp_path, batch_size=size)) for size in (10, 10, 3)]
    assert figures[0] == figures[1]
    assert figures[2] == pytest.approx(figures[0], rel=1e-5)


class Killed(SilentProgress):
    """The progress of a training that is killed in the middle of an epoch."""

    def __init__(self, after):
        self._left = after

    @contextmanager
    def task(self, label, total=None):
        yield self

    def advance(self, amount=1):
        self._left -= 1
        if self._left < 0:
            raise KeyboardInterrupt

    def note(self, text):
        pass


def test_an_interrupted_training_ends_with_the_same_weights(tmp_path):
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
def test_it_is_occlusion_by_the_reconstruction(window, stride, channels, spatial):
    torch.manual_seed(0)
    model = ConvNetwork(channels, 3, batch_norm=True).eval()
    images, targets = noise(3, channels, *spatial), torch.tensor([0, 2, 1])
    maps = explain(Filled(PerturbationOptions(window=window, stride=stride)), images, targets, model)
    shape = tuple(min(window, side) for side in spatial)
    step = stride or max(1, window // 2)
    occlusion = Occlusion(model).attribute(
        images, (channels, *shape), (channels, *(min(step, side) for side in shape)), 0.25, targets
    )
    assert torch.allclose(occlusion, occlusion[:, :1])
    expected = occlusion[:, 0].float()
    rounding = 5e-7 * float(model(images).abs().max())  # of the scores whose differences these are
    torch.testing.assert_close(maps, expected, rtol=1e-5, atol=rounding)
    assert float(expected.abs().max()) > 50 * rounding


def test_a_stride_that_leaves_pixels_out_is_refused():
    with pytest.raises(UserError, match="between the windows"):
        parse_options(PerturbationOptions, {"window": 3, "stride": 4}, "explainer vae-perturbation")
    assert parse_options(PerturbationOptions, {"window": 3, "stride": 3}, "").stride == 3


@pytest.mark.parametrize("outputs", [1, 2])
def test_of_a_linear_model_by_single_pixels_it_is_the_weight_times_the_difference(outputs):
    model = LinearNetwork(2, (6, 5), outputs)
    images, targets = noise(2, 2, 6, 5), torch.tensor([1, 0])
    maps = explain(Filled(PerturbationOptions(window=1)), images, targets, model)
    weights = model.linear.weight.detach().view(outputs, 2, 6, 5)
    chosen = torch.stack([weights[0], -weights[0]]) if outputs == 1 else weights[targets]
    torch.testing.assert_close(maps, (chosen * (images - 0.25)).sum(1), rtol=1e-4, atol=1e-5)


def test_signs_turn_with_the_class_of_one_logit_and_volumes_work():
    model = LinearNetwork(1, (5, 6, 4), 1)
    images = noise(2, 1, 5, 6, 4)
    explainer = Filled(PerturbationOptions(window=3))
    assert explainer.signed
    towards, away = (explain(explainer, images, torch.full((2,), target), model) for target in (1, 0))
    torch.testing.assert_close(towards, -away)
    assert float(towards.abs().max()) > 0
    assert class_scores(model(images)).shape == (2, 2)


# --- the plugin -----------------------------------------------------------------------------------------------------


def test_the_plugin_imports_no_torch():
    code = """if True:
        import sys, xbench_learned
        items = [*xbench_learned.xbench_explainers(), *xbench_learned.xbench_models()]
        [spec.load_options() for spec in items]
        sys.exit("torch" in sys.modules)
    """
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_what_it_needs_of_a_model_is_said():
    assert SPECS["attention"].model == "the model `attention`"
    assert not any(SPECS[name].model for name in TRAINED)


@parametrize_with_checks(xbench_learned.xbench_models(), widths="4,8,8")
def test_the_model_conforms(check):
    check()


def test_the_model_conforms_with_dot_products():
    for _, check in model_checks():
        check(functools.partial(AttentionModel, AttentionModelOptions(widths="4,8,8", compatibility="dp")))


@parametrize_with_checks([SPECS[name] for name in TRAINED], epochs=2, width=2, latent=3, train_batch=4)
def test_the_trained_conform(check):
    check()


ATTENTIVE = [
    Scenario(
        name, FakeDataset(fake), AttentionModel(AttentionModelOptions(widths="4,8,8", compatibility=compatibility))
    )
    for name, fake, compatibility in [
        ("pc", FakeOptions(), "pc"),
        ("dp_three_channels_odd_size", FakeOptions(size=33, width=27, channels=3, classes=3), "dp"),
    ]
]


@pytest.mark.parametrize(("name", "check"), list(explainer_checks(ATTENTIVE)))
def test_attention_conforms(name, check):
    check(functools.partial(Attention, AttentionOptions()))
