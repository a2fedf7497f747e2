"""The objective of generators and discriminators, which learn in turn (Katzmann et al., sections 2.2 to 2.5)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from xbench import Batch, Session, Split
from xbench.compute.training import Objective, Step
from xbench_cyclegan_am.discriminator import PairDiscriminator
from xbench_cyclegan_am.generator import WIDTHS, Generator
from xbench_cyclegan_am.losses import Dssim, activation_loss, cycle_loss
from xbench_cyclegan_am.options import CycleGANOptions
from xbench_cyclegan_am.validation import Trial, figures

_BETAS = (0.5, 0.999)  # from the CycleGAN authors' code; the paper names no optimiser
_LONGEST_GRADIENT = 1.0


class CycleGAN(nn.Module):
    """A generator and a discriminator per class.

    Args:
        channels: Number of channels, C.
        classes: Number of classes, K.
        options: Resolved options.
    """

    def __init__(self, channels: int, classes: int, options: CycleGANOptions) -> None:
        super().__init__()
        self.generators = build_generators(channels, classes, options)
        judges = classes if options.w_adv > 0 else 0
        self.discriminators = nn.ModuleList(PairDiscriminator(channels, _widths(options)) for _ in range(judges))


def build_generators(channels: int, classes: int, options: CycleGANOptions) -> nn.ModuleList:
    """Return untrained generators, one per class."""
    assert options.output is not None
    return nn.ModuleList(Generator(channels, _widths(options), options.output) for _ in range(classes))


def _widths(options: CycleGANOptions) -> list[int]:
    assert options.width is not None
    return [max(1, round(options.width * width)) for width in WIDTHS]


@dataclass(frozen=True)
class Weights:
    """Weights of the generators' losses. The paper gives none, so all are 1."""

    cycle: float = 1.0
    sim: float = 1.0
    adv: float = 1.0
    am: float = 1.0


class CycleGANObjective(Objective):
    """Equation 4 for every class k, with its errors corrected.

        w_cycle L_cycle(x_a, G_j(G_k(x_a))) + w_sim L_sim(x_a, G_k(x_a)) + w_adv L_adv(D_k; x_b, G_k(x_a))
        + w_am L_AM(k, C(G_k(x_a)))

    For every batch, first the discriminators learn, on images that send no gradient back. Then all generators learn at
    once on the mean of their losses. Section 2.2 gives G+ the cycle G+(G-(x)), equation 4 the cycle G-(G+(x)); by
    learning jointly, both have both. L_sim is the DSSIM alone, as its formula says ("the same definition as above"
    could also mean the L1 term). Labels are never used.

    x_b is an image of the same batch that is not x_a. For more than two classes (not in the paper), the way back of the
    whole batch from class k is through the generator of another class, j = k + s modulo K with s drawn for each batch.
    It is the whole batch because the batch norms need it.

    The classifier is in eval mode and frozen: gradients go through it, but do not change it.

    The best state is the epoch whose generators have the lowest criterion on the validation split,

        w_am L_AM(k, smoothed C(G_k(x))) + w_cycle L_cycle + w_sim L_sim, the mean over k

    where the smoothed classifier judges a blurred and a noisy copy of the generated image (`validation.Trial`). A
    generator that has found adversarial noise has a low L_AM on its images and a high one on these copies, so it can't
    win. The adversarial loss is not part of the criterion: it compares an epoch's generator with the same epoch's
    discriminator, so it has no common scale. (The paper trains "until the loss converges". A single epoch of an
    alternating training may be bad, so the last epoch is not simply taken.)

    Args:
        network: Generators and discriminators.
        classifier: Classifier, frozen, in eval mode, on the session's device.
        weights: Weights of the losses.
        dssim: Dissimilarity of images.
    """

    network: CycleGAN
    shown = {  # noqa: RUF012  (as in the base class)
        "loss": "train_loss",
        "D": "train_discriminator_loss",
        "adv": "train_adversarial",
        "cycle": "train_cycle",
        "sim": "train_similarity",
        "am": "train_activation",
        "validation": "validation_criterion",
        "shift": "validation_shift",
        "cycle L1": "validation_cycle_l1",
    }

    def __init__(self, network: CycleGAN, classifier: nn.Module, weights: Weights, dssim: Dssim) -> None:
        self.network, self._classifier, self._weights, self._dssim = network, classifier, weights, dssim
        self._changed: list[torch.Tensor] | None = None

    def steps(self) -> Sequence[Step]:
        """Return the steps of discriminators and generators, or of generators alone if `w_adv` is 0."""
        generators = Step(self.network.generators, self.generator_loss, "loss", _BETAS, _LONGEST_GRADIENT)
        if not len(self.network.discriminators):
            return [generators]
        judges = self.network.discriminators
        return [Step(judges, self.discriminator_loss, "discriminator_loss", _BETAS, _LONGEST_GRADIENT), generators]

    def discriminator_loss(self, batch: Batch, noise: torch.Generator) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Return the mean over k of D_k's cross entropy. Chance is ln 2."""
        del noise
        # The generators' step reuses these images, because the generators do not change in between.
        self._changed = self._transferred(batch.images)
        real = _partners(batch.images)
        losses = [
            judge.loss(real, changed.detach())
            for judge, changed in zip(self._discriminators, self._changed, strict=True)
        ]
        return torch.stack(losses).mean(), {}

    def generator_loss(self, batch: Batch, noise: torch.Generator) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Return the mean over k of equation 4, and its terms."""
        images, classes = batch.images, len(self.network.generators)
        changed, self._changed = self._changed or self._transferred(images), None
        shift = int(torch.randint(1, classes, (), generator=noise)) if classes > 2 else 1
        back = [self.network.generators[(k + shift) % classes](changed[k]) for k in range(classes)]
        terms = {
            "cycle": torch.stack([cycle_loss(images, cycled, self._dssim) for cycled in back]).mean(),
            "similarity": torch.stack([self._dssim(images, moved) for moved in changed]).mean(),
            "activation": torch.stack([activation_loss(self._classifier(x), k) for k, x in enumerate(changed)]).mean(),
        }
        weights = self._weights
        loss = weights.cycle * terms["cycle"] + weights.sim * terms["similarity"] + weights.am * terms["activation"]
        if len(self._discriminators):
            terms["adversarial"] = self._fooling(images, changed)
            loss = loss + weights.adv * terms["adversarial"]
        return loss, {name: value.detach() for name, value in terms.items()}

    def validate(self, split: Split, session: Session) -> dict[str, float]:
        """Return the criterion, the classifier shift and other figures (see `validation.figures`)."""
        trial = self.trial()
        self.network.eval()
        means = figures(trial, split, session)
        weights = self._weights
        criterion = (
            weights.am * means["smoothed_activation"]
            + weights.cycle * means["cycle"]
            + weights.sim * means["similarity"]
        )
        return {"criterion": criterion} | means

    def trial(self) -> Trial:
        """Return the trial of the generators with the classifier."""
        return Trial(self._generators, self._classifier, self._dssim)

    @property
    def _generators(self) -> Sequence[Generator]:
        return list(self.network.generators)  # type: ignore[arg-type]

    @property
    def _discriminators(self) -> Sequence[PairDiscriminator]:
        return list(self.network.discriminators)  # type: ignore[arg-type]

    def _transferred(self, images: torch.Tensor) -> list[torch.Tensor]:
        return [generator(images) for generator in self._generators]

    def _fooling(self, images: torch.Tensor, changed: Sequence[torch.Tensor]) -> torch.Tensor:
        """Return L_adv: the loss of frozen discriminators for the slot of the generated patch."""
        real = _partners(images)
        self.network.discriminators.requires_grad_(False)
        pairs = zip(self._discriminators, changed, strict=True)
        losses = [judge.loss(real, moved, fooled=True) for judge, moved in pairs]
        self.network.discriminators.requires_grad_(True)
        return torch.stack(losses).mean()


def _partners(images: torch.Tensor) -> torch.Tensor:
    """Return x_b: for every image another one of the batch, whose order is random."""
    return images.roll(1, dims=0)
