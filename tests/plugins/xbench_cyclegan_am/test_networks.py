"""CycleGAN activation maximization: its networks, its losses, and what each of the two updates touches."""

import math
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from xbench import Batch, Split
from xbench.compute.similarity import ssim as reference_ssim
from xbench.compute.training import Step
from xbench.runtime.seeding import rng
from xbench_cyclegan_am.discriminator import PairDiscriminator
from xbench_cyclegan_am.generator import WIDTHS, Generator
from xbench_cyclegan_am.losses import Dssim, activation_loss, cycle_loss
from xbench_cyclegan_am.objective import CycleGAN, CycleGANObjective, Weights
from xbench_cyclegan_am.options import CycleGANOptions, resolve

NARROW = [4, 6, 8, 10]


class Corner(nn.Module):
    """Two logits: how bright the upper left corner is. Batch norm and dropout show whether it is in eval mode."""

    def __init__(self, classes: int = 2) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(classes, affine=False)
        self.head = nn.Linear(classes, classes)
        self.drop = nn.Dropout(0.5)
        self.classes = classes

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        corners = [images[..., 4 * k : 4 * k + 4, :4].flatten(1).mean(1) for k in range(self.classes)]
        return self.drop(self.head(self.norm(5 * torch.stack(corners, 1))))


def objective_of(
    weights: Weights | None = None,
    classes: int = 2,
    channels: int = 1,
    classifier: nn.Module | None = None,
    **options: Any,
) -> CycleGANObjective:
    chosen = {"preset": "tiny", "width": 0.1, **options}
    network = CycleGAN(channels, classes, resolve(CycleGANOptions(**chosen), "cpu", (16, 16)))
    classifier = (classifier or Corner(classes)).eval().requires_grad_(False)
    return CycleGANObjective(network.train(), classifier, weights or Weights(), Dssim())


def noise_split(count: int = 8, size: int = 16, channels: int = 1, classes: int = 2) -> Split:
    images = rng(0, "noise").random((count, channels, size, size), dtype="float32")
    ids = [str(index) for index in range(count)]
    return Split.from_arrays(images, torch.arange(count).numpy() % classes, ids, ids)


def state_of(module: nn.Module) -> dict[str, torch.Tensor]:
    return {key: value.clone() for key, value in module.state_dict().items()}


def same(module: nn.Module, before: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(value, before[key]) for key, value in module.state_dict().items())


# --- networks ---------------------------------------------------------------------------------------------------------


def test_the_parameters_of_the_paper() -> None:
    def count(module: nn.Module) -> int:
        return sum(parameter.numel() for parameter in module.parameters())

    assert count(Generator(1)) == 6_583_297
    assert count(PairDiscriminator(1)) == 4_405_252
    convolutions = [part for part in Generator(1).modules() if isinstance(part, nn.Conv2d)]
    assert len(convolutions) == 4 * 3 + 3 * 3 + 1
    assert [part.out_channels for part in convolutions[:12:3]] == list(WIDTHS)
    assert [part.stride[0] for part in convolutions[:12]] == [1, 1, 1, 2, 1, 1, 2, 1, 1, 2, 1, 1]


def test_a_convolution_is_followed_by_leaky_relu_and_then_by_batch_norm() -> None:
    stage = Generator(1, NARROW).encoder.stages[1]
    assert [type(part) for part in stage] == [nn.Conv2d, nn.LeakyReLU, nn.BatchNorm2d] * 3


@pytest.mark.parametrize("output", ["sigmoid", "residual"])
@pytest.mark.parametrize("size", [(16, 16), (13, 27), (8, 9)])
def test_generators_give_images_of_any_size(output: str, size: tuple[int, ...]) -> None:
    generator = Generator(3, NARROW, output)
    nn.init.normal_(generator.head.weight, std=3)
    changed = generator(torch.rand(2, 3, *size)).detach()
    assert changed.shape == (2, 3, *size)
    assert float(changed.min()) >= 0
    assert float(changed.max()) <= 1


def test_a_residual_generator_starts_as_the_identity() -> None:
    images = torch.rand(2, 1, 16, 16)
    assert torch.equal(Generator(1, NARROW, "residual")(images), images)


def test_padding_is_cut_back_where_it_was_added() -> None:
    generator = Generator(1, NARROW).eval()
    images = torch.rand(1, 1, 13, 16)
    mirrored = F.pad(images, (0, 0, 0, 3), mode="reflect")
    torch.testing.assert_close(generator(images), generator(mirrored)[:, :, :13])


def constant(judge: nn.Module, answer: list[float]) -> nn.Module:
    """The discriminator with heads that always answer the same."""
    for head in judge.heads:
        nn.init.zeros_(head.weight)
        head.bias.data = torch.tensor(answer)
    return judge


def test_a_discriminator_that_ignores_its_input_is_at_chance() -> None:
    judge, images = constant(PairDiscriminator(1, NARROW), [0.3, 0.3]), torch.rand(2, 4, 1, 32, 32)
    assert [tuple(one.shape) for one in judge.encoder(images[0])[2:]] == [(4, 8, 8, 8), (4, 10, 4, 4)]
    for fooled in (False, True):
        assert float(judge.loss(*images, fooled).detach()) == pytest.approx(math.log(2))


def test_no_slot_is_the_real_one() -> None:
    """A constant answer, right half of the time, costs the same whichever slot it names."""
    images = torch.rand(2, 64, 1, 32, 32)
    costs = [
        float(constant(PairDiscriminator(1, NARROW), [sure, -sure]).loss(*images).detach()) for sure in (2.0, -2.0)
    ]
    expected = (F.softplus(torch.tensor(4.0)) + F.softplus(torch.tensor(-4.0))) / 2
    assert costs == pytest.approx([float(expected)] * 2, rel=0.05)


def test_a_discriminator_learns_a_difference_of_the_means_and_a_generator_wants_the_other_answer() -> None:
    """It could not if real and generated images had batch statistics of their own."""
    judge = PairDiscriminator(1, NARROW)
    optimizer = torch.optim.Adam(judge.parameters(), lr=0.01)
    for _ in range(25):
        real, fake = torch.rand(8, 1, 16, 16), torch.rand(8, 1, 16, 16) + 0.5
        optimizer.zero_grad()
        judge.loss(real, fake).backward()
        optimizer.step()
    with torch.no_grad():
        assert float(judge.loss(real, fake)) < 0.2
        assert float(judge.loss(real, fake, fooled=True)) > 1


# --- losses -----------------------------------------------------------------------------------------------------------


def pair(size: tuple[int, int] = (24, 21), channels: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    draws = torch.Generator().manual_seed(0)
    first = torch.rand(3, channels, *size, generator=draws)
    return first, (0.7 * first + 0.3 * torch.rand(3, channels, *size, generator=draws)).requires_grad_()


@pytest.mark.parametrize("window", ["patch", "gaussian"])
@pytest.mark.parametrize("constants", ["usual", "raw"])
@pytest.mark.parametrize("scales", [1, 3])
def test_dssim_is_zero_for_equal_images_and_symmetric(window: str, constants: str, scales: int) -> None:
    dssim = Dssim(window, constants, scales)  # type: ignore[arg-type]
    first, second = pair((48, 48))
    assert float(dssim(first, first)) == pytest.approx(0, abs=1e-5)
    assert float(dssim(first, second).detach()) > 0.01
    torch.testing.assert_close(dssim(first, second), dssim(second, first))


def test_the_offset_of_equation_1_changes_no_gradient() -> None:
    first, second = pair()
    plain, shifted = Dssim()(first, second), Dssim(offset=0.5)(first, second)
    assert float(Dssim(offset=0.5)(first, first)) == pytest.approx(0.5, abs=1e-6)
    assert float((shifted - plain).detach()) == pytest.approx(0.5, abs=1e-6)
    torch.testing.assert_close(torch.autograd.grad(plain, second), torch.autograd.grad(shifted, second))


@pytest.mark.parametrize("constants", ["usual", "raw"])
def test_dssim_of_patches_is_that_of_each_patch(constants: str) -> None:
    first, second = (images.detach() for images in pair((6, 9), 1))
    c1, c2 = (0.01, 0.03) if constants == "raw" else (1e-4, 9e-4)
    similar = []
    for x, y in zip(first, second, strict=True):
        for row in (0, 3):
            for column in (0, 3, 6):
                a, b = (one[0, row : row + 3, column : column + 3].double() for one in (x, y))
                covariance = ((a - a.mean()) * (b - b.mean())).mean()
                above = (2 * a.mean() * b.mean() + c1) * (2 * covariance + c2)
                spread = a.var(correction=0) + b.var(correction=0) + c2
                similar.append(above / ((a.mean() ** 2 + b.mean() ** 2 + c1) * spread))
    expected = (1 - torch.stack(similar).mean()) / 2
    assert float(Dssim(constants=constants)(first, second)) == pytest.approx(float(expected), abs=1e-6)  # type: ignore[arg-type]


def test_dssim_with_the_gaussian_window_agrees_with_the_metric() -> None:
    first, second = pair()
    torch.testing.assert_close(
        Dssim("gaussian").of_each(first, second).double(), (1 - reference_ssim(first, second)) / 2, atol=1e-5, rtol=0
    )


def test_more_scales_weigh_coarse_structure_more() -> None:
    """Fine noise is lost on coarser scales, a coarse change is not."""
    first = torch.rand(2, 1, 64, 64) * 0.2 + 0.4
    fine = (first + 0.1 * torch.randn_like(first)).clamp(0, 1)
    one, several = Dssim("gaussian"), Dssim("gaussian", scales=3)
    assert float(several(first, fine)) < 0.8 * float(one(first, fine))
    assert torch.isfinite(several(first, 1 - first))


def test_cycle_loss_is_equation_2() -> None:
    first, second = pair()
    expected = 0.5 * (first - second).abs().mean() + 0.5 * Dssim()(first, second)
    torch.testing.assert_close(cycle_loss(first, second, Dssim()), expected)


def test_activation_loss_is_the_cross_entropy_of_one_or_more_logits() -> None:
    logits = torch.randn(5, 3)
    expected = F.cross_entropy(logits, torch.full((5,), 2))
    torch.testing.assert_close(activation_loss(logits, 2), expected)
    z = torch.randn(5, 1)
    torch.testing.assert_close(activation_loss(z, 1), F.binary_cross_entropy_with_logits(z, torch.ones(5, 1)))
    torch.testing.assert_close(activation_loss(z, 0), F.binary_cross_entropy_with_logits(z, torch.zeros(5, 1)))


# --- the two updates --------------------------------------------------------------------------------------------------


def updated(step: Step, objective: CycleGANObjective, batch: Batch) -> torch.Tensor:
    """What one update of `step` changes: the loss."""
    optimizer = torch.optim.Adam(step.module.parameters(), lr=0.01)
    optimizer.zero_grad()
    loss, _ = step.loss(batch, torch.Generator().manual_seed(0))
    loss.backward()
    optimizer.step()
    return loss


def test_each_update_leaves_the_others_and_the_classifier_alone() -> None:
    objective, batch = objective_of(), noise_split().batch(range(8))
    judges, generators = objective.steps()
    network, classifier = objective.network, objective._classifier
    before = {name: state_of(part) for name, part in (("d", network.discriminators), ("c", classifier))}
    weights = {key: value.clone() for key, value in network.generators.named_parameters()}
    updated(judges, objective, batch)
    assert not same(network.discriminators, before["d"])
    assert all(torch.equal(value, weights[key]) for key, value in network.generators.named_parameters())
    before["d"] = state_of(network.discriminators)
    updated(generators, objective, batch)
    assert same(network.discriminators, before["d"])
    assert not all(torch.equal(value, weights[key]) for key, value in network.generators.named_parameters())
    assert same(classifier, before["c"])
    assert all(parameter.grad is None for parameter in classifier.parameters())
    assert all(parameter.requires_grad for parameter in network.discriminators.parameters())


@pytest.mark.parametrize("term", ["cycle", "sim", "adv", "am"])
def test_every_term_reaches_every_generator(term: str) -> None:
    alone = Weights(**{name: float(name == term) for name in ("cycle", "sim", "adv", "am")})
    objective = objective_of(alone, output="sigmoid")
    loss, terms = objective.steps()[-1].loss(noise_split().batch(range(8)), torch.Generator())
    names = {"cycle": "cycle", "sim": "similarity", "adv": "adversarial", "am": "activation"}
    torch.testing.assert_close(loss.detach(), terms[names[term]])
    loss.backward()
    for generator in objective.network.generators:
        assert float(generator.encoder.stages[0][0].weight.grad.abs().max()) > 0


def test_identity_generators_cost_nothing_but_the_classifiers_doubt() -> None:
    objective, batch = objective_of(), noise_split().batch(range(8))
    loss, terms = objective.steps()[-1].loss(batch, torch.Generator())
    assert terms["similarity"] == pytest.approx(0, abs=1e-6)
    assert terms["cycle"] == pytest.approx(0, abs=1e-6)
    logits = objective._classifier(batch.images)
    doubt = sum(F.cross_entropy(logits, torch.full((8,), k)) for k in (0, 1)) / 2
    torch.testing.assert_close(terms["activation"], doubt)
    torch.testing.assert_close(loss.detach(), terms["activation"] + terms["adversarial"])


def test_without_an_adversarial_loss_there_is_no_discriminator() -> None:
    objective = objective_of(w_adv=0.0)
    (step,) = objective.steps()
    assert step.module is objective.network.generators
    assert not list(objective.network.discriminators.parameters())
    assert "adversarial" not in step.loss(noise_split().batch(range(4)), torch.Generator())[1]


def test_generators_are_asked_once_for_both_updates() -> None:
    objective, batch = objective_of(), noise_split().batch(range(8))
    calls = []
    for k, generator in enumerate(objective.network.generators):
        generator.register_forward_hook(lambda *_, k=k: calls.append(k))
    for step in objective.steps():
        step.loss(batch, torch.Generator())
    assert calls == [0, 1, 1, 0]  # toward each class once, and back once


def test_the_way_back_of_many_classes_is_through_another_generator() -> None:
    objective, batch = objective_of(classes=4), noise_split(classes=4).batch(range(8))
    back = set()
    for seed in range(12):
        calls = []
        hooks = [
            generator.register_forward_hook(lambda *_, k=k, calls=calls: calls.append(k))
            for k, generator in enumerate(objective.network.generators)
        ]
        objective.steps()[-1].loss(batch, torch.Generator().manual_seed(seed))
        for hook in hooks:
            hook.remove()
        assert calls[:4] == [0, 1, 2, 3]
        assert all(there != again for there, again in zip(calls[:4], calls[4:], strict=True))
        back.add(tuple(calls[4:]))
    assert back == {(1, 2, 3, 0), (2, 3, 0, 1), (3, 0, 1, 2)}
