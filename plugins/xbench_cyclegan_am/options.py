"""Options of both explainers, and the presets for those that the user leaves open; importable without torch."""

from __future__ import annotations

from typing import Any, Literal

from xbench import Field, Options, PresetOptions, Schedule

PRESETS: dict[str, dict[str, Any]] = {
    # Chosen on the validation split of lidc-phantom, 609 training images of 64 x 64. Widths of 8, 16, 32 and 64 take
    # half the time of 12 to 96. The classifier is moved after an epoch or two. From then on generators and
    # discriminators are balanced, and more epochs at a higher rate only make them oscillate. Generators that start as
    # the identity need no time to learn to copy.
    "tiny": {
        "width": 0.167,
        "output": "residual",
        "epochs": 8,
        "patience": 8,
        "train_batch": 16,
        "learning_rate": 5e-4,
        "decay": "linear",
        "augment": "dihedral",
    },
    # Section 3.2. The paper names no optimiser, rate, batch size or length, so these are from the CycleGAN authors'
    # code: 100 epochs, and 100 more in which the rate falls to 0.
    "paper": {
        "width": 1.0,
        "output": "sigmoid",
        "epochs": 200,
        "patience": 200,
        "train_batch": 32,
        "learning_rate": 2e-4,
        "decay": "linear",
        "augment": "none",
    },
}

Variant = Literal["difference", "toward", "counterfactual"]


class VariantOptions(Options):
    """Base of options with a choice of the relevance to show."""

    variant: Variant = Field(
        "difference",
        description="for target c: difference = G_c(x) - mean of the other G_j(x) (R, eq. 6); toward = G_c(x) - x (the "
        "unadjusted relevance of c, eq. 5); counterfactual = x - mean of the other G_j(x), what is to be removed",
    )


class CycleGANOptions(PresetOptions, VariantOptions, Schedule):
    """Options of `cyclegan-am`. None means the preset's value, which `resolve` fills in."""

    presets = PRESETS

    width: float | None = Field(None, gt=0, description="factor of the channels of all networks, 48 to 384")
    output: Literal["sigmoid", "residual"] | None = Field(
        None, description="a generator gives the image (sigmoid), or a change of it (residual)"
    )
    w_cycle: float = Field(1.0, ge=0, description="weight of the cycle loss")
    w_sim: float = Field(1.0, ge=0, description="weight of the similarity loss")
    w_adv: float = Field(1.0, ge=0, description="weight of the adversarial loss; at 0 no discriminator is trained")
    w_am: float = Field(1.0, ge=0, description="weight of the activation maximization loss")
    ssim_window: Literal["patch", "gaussian"] = Field(
        "patch", description="window of the structural similarity: 3 x 3 side by side, or 11 x 11 Gaussian"
    )
    ssim_constants: Literal["usual", "raw"] = Field(
        "usual", description="c1 and c2: (.01)^2 and (.03)^2, or .01 and .03 as the paper prints them"
    )
    ssim_scales: int = Field(1, ge=1, le=5, description="number of scales of the structural similarity")
    dssim_offset: float = Field(0.0, description="added constant; 0.5: the values of equation 1; changes no gradient")
    epochs: int | None = Field(  # type: ignore[assignment]
        None, ge=0, description="maximum number of passes over the training split"
    )
    patience: int | None = Field(  # type: ignore[assignment]
        None, ge=1, description="stop after this many epochs without a better criterion"
    )
    train_batch: int | None = Field(  # type: ignore[assignment]
        None, ge=2, description="training batch size"
    )
    learning_rate: float | None = Field(  # type: ignore[assignment]
        None, gt=0, description="learning rate of Adam"
    )
    decay: Literal["none", "cosine", "linear"] | None = Field(  # type: ignore[assignment]
        None, description="decay of the learning rate; linear: to 0 in the second half of `epochs`"
    )
    augment: Literal["none", "dihedral"] | None = Field(  # type: ignore[assignment]
        None, description="dihedral: random flips and quarter turns"
    )


class AscentOptions(VariantOptions):
    """Options of `activation-maximization`."""

    steps: int = Field(20, ge=0, description="steps of gradient ascent")
    step_size: float = Field(
        0.001, gt=0, description="root mean square of a step over the image's pixels, which lie in [0, 1]"
    )
    penalty: float = Field(0.0, ge=0, description="weight of the mean squared change, which the ascent keeps small")


def resolve(options: CycleGANOptions, device: str, spatial: tuple[int, ...]) -> CycleGANOptions:
    """Return the complete options: the user's where given, else the preset's.

    Args:
        options: Options as the user gave them.
        device: Device, which decides what preset=auto means.
        spatial: Size of the images, (H, W). A preset leaves out quarter turns if the sides differ.
    """
    instead = {} if spatial[-1] == spatial[-2] else {"augment": "none"}
    return options.filled_on(device, **instead)
