"""Options of the checks: randomisation, class sensitivity, stability."""

from __future__ import annotations

from typing import Literal

from xbench import Field, Options, Schedule


class ParameterRandomisationOptions(Options):
    """Options of `parameter_randomisation`."""

    order: Literal["cascading", "independent"] = Field(
        "cascading",
        description="cascading = layers are re-initialised one after the other from the output on, and stay "
        "re-initialised; independent = one layer at a time, with the others as trained",
    )
    similarity: Literal["spearman", "ssim"] = Field("spearman", description="similarity measure of two maps")
    value: Literal["auto", "full", "mean"] = Field(
        "auto",
        description="full = similarity at the last stage; mean = mean over all stages; auto = full for "
        "order=cascading, mean for order=independent, whose last stage re-initialises only the first layer",
    )
    stages: int = Field(
        16,
        ge=1,
        description="maximum number of stages; with more layers, neighbours are re-initialised together",
    )
    limit: int | None = Field(32, ge=1, description="images compared, chosen by their seeds; none = all")
    seed: int = Field(0, description="seed of the new weights, the same for every explainer")

    @property
    def resolved_value(self) -> str:
        """The option `value`, with "auto" resolved."""
        if self.value == "auto":
            return "full" if self.order == "cascading" else "mean"
        return self.value


class LabelRandomisationOptions(Schedule):
    """Options of `label_randomisation`."""

    epochs: int = Field(200, ge=0, description="maximum number of passes over the training split with permuted labels")
    patience: int = Field(
        30, ge=1, description="stop after this many epochs without a better fit of the permuted labels"
    )
    similarity: Literal["spearman", "ssim"] = Field("spearman", description="similarity measure of two maps")
    limit: int | None = Field(32, ge=1, description="images compared, chosen by their seeds; none = all")
    seed: int = Field(0, description="seed of the permutation and of the training, the same for every explainer")


class ClassSensitivityOptions(Options):
    """Options of `class_sensitivity`."""

    limit: int | None = Field(32, ge=1, description="images compared, chosen by their seeds; none = all")


class StabilityOptions(Options):
    """Options of `stability`."""

    figure: Literal["relative", "lipschitz"] = Field(
        "relative",
        description="relative = largest |A(x) - A(x')| / |A(x)| (max-sensitivity); lipschitz = largest "
        "|A(x) - A(x')| / |x - x'|",
    )
    noise: Literal["uniform", "normal"] = Field(
        "uniform",
        description="distribution of the noise: uniform in [-radius, radius], or normal with standard deviation radius",
    )
    radius: float = Field(0.02, gt=0, le=1, description="size of the noise, for intensities in [0, 1]")
    samples: int = Field(10, ge=1, description="number of noisy images tried for each image")
    limit: int | None = Field(32, ge=1, description="images tried, chosen by their seeds; none = all")


class AdversarialStabilityOptions(Options):
    """Options of `adversarial_stability`."""

    epsilon: float = Field(
        8 / 255, ge=0, le=1, description="largest change of a pixel, for intensities in [0, 1]; 0 changes nothing"
    )
    steps: int = Field(100, ge=1, description="number of sign steps of the attack")
    step_size: float = Field(1 / 255, gt=0, le=1, description="size of one step, for intensities in [0, 1]")
    top: float = Field(0.02, gt=0, le=1, description="share of the pixels in a map's top-k")
    beta: float = Field(30.0, gt=0, description="sharpness of the softplus that replaces each ReLU during the attack")
    limit: int | None = Field(32, ge=1, description="images attacked, chosen by their seeds; none = all")
