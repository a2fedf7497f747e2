"""Options of the model and the explainers; importable without torch."""

from __future__ import annotations

from typing import Literal

from pydantic import ValidationInfo, field_validator

from xbench import Field, ModelOptions, Options, Schedule


class AttentionModelOptions(ModelOptions):
    """Network and training of the model `attention`."""

    compatibility: Literal["pc", "dp"] = Field(
        "pc",
        description="comparison of local with global features; pc: parametrised, <u, l + g>; dp: dot product, <l, g>",
    )
    widths: str = Field(
        "32,64,128,256",
        pattern=r"^[1-9]\d*(,[1-9]\d*){2,}$",
        description="channels of the stages, three or more; the last three have attention",
    )
    patience: int = Field(5, ge=1, description="stop after this many epochs without a better validation criterion")
    learning_rate: float = Field(3e-4, gt=0, description="learning rate of Adam")


class AttentionOptions(Options):
    """Options of the explainer `attention`."""

    stage: Literal["mean", "first", "second", "third"] = Field(
        "mean", description="which of the three attention maps; mean: all three with equal weights"
    )


class AutoencoderOptions(Schedule):
    """Network and training of `autoencoder`."""

    normal: int = Field(0, ge=0, description="index of the normal class; only its images are used for training")
    width: int = Field(16, ge=1, description="channels of the first level, doubled at each of the next two")
    latent: int = Field(64, ge=1, description="length of the code of an image")
    epochs: int = Field(50, ge=0, description="maximum number of passes over the normal training images")
    train_batch: int = Field(16, ge=2, description="training batch size")
    learning_rate: float = Field(2e-3, gt=0, description="learning rate of Adam")
    augment: Literal["none", "dihedral"] | None = Field(  # type: ignore[assignment]
        None, description="dihedral: random flips and quarter turns; default: dihedral for square images, else none"
    )


class VariationalOptions(AutoencoderOptions):
    """Network and training of `vae`."""

    beta: float = Field(1.0, ge=0, description="weight of the Kullback-Leibler divergence; 1 is the evidence bound")
    noise: float = Field(0.1, gt=0, description="standard deviation of a pixel about its reconstruction, p(x|z)")


class PerturbationOptions(VariationalOptions):
    """Network, training and windows of `vae-perturbation`."""

    window: int = Field(8, ge=1, description="side of the replaced square, in pixels")
    stride: int | None = Field(None, ge=1, description="step from window to window, in pixels; none: half the window")

    @field_validator("stride")
    @classmethod
    def _no_pixel_is_left_out(cls, value: int | None, options: ValidationInfo) -> int | None:
        window = options.data.get("window")
        if value is not None and window is not None and value > window:
            raise ValueError(f"pixels between the windows would never be replaced: at most window={window}")
        return value
