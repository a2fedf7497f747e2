"""Options of `quantus`: the parameters of the constructors of all its metrics, each left to the metric if not given."""

from __future__ import annotations

import ast
import json
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator

from xbench import Field, Options


def _literal(value: Any) -> Any:
    """Text as JSON, or as a Python literal; as it is where it is neither."""
    if not isinstance(value, str):
        return value
    for read in (json.loads, ast.literal_eval):
        try:
            return read(value)
        except (ValueError, SyntaxError):
            continue
    return value


Table = Annotated[dict[str, Any] | None, BeforeValidator(_literal)]
Integers = Annotated[tuple[int, ...] | None, BeforeValidator(_literal)]
Numbers = Annotated[tuple[float, ...] | None, BeforeValidator(_literal)]
Names = Annotated[tuple[str, ...] | None, BeforeValidator(_literal)]

Similarity = Literal[
    "abs_difference",
    "correlation_kendall_tau",
    "correlation_pearson",
    "correlation_spearman",
    "cosine",
    "difference",
    "distance_chebyshev",
    "distance_euclidean",
    "distance_manhattan",
    "lipschitz_constant",
    "squared_difference",
    "ssim",
]
Norm = Literal["fro_norm", "l2_norm", "linf_norm", "distance_euclidean", "distance_manhattan"]
Perturbation = Literal[
    "baseline_replacement_by_mask",
    "batch_baseline_replacement_by_indices",
    "batch_gaussian_noise",
    "batch_uniform_noise",
    "no_perturbation",
    "noisy_linear_imputation",
]
Normalisation = Literal["normalise_by_average_second_moment_estimate", "normalise_by_max", "normalise_by_negative"]


class QuantusOptions(Options):
    """Options of `quantus`: none = the default of the metric's own constructor. Each metric knows some of them."""

    abs: bool | None = Field(None, description="take the absolute values of maps, after normalisation")
    normalise: bool | None = Field(None, description="normalise maps, each by itself")
    normalise_func: Normalisation | None = Field(None, description="how maps are normalised, by its name in Quantus")
    normalise_func_kwargs: Table = Field(None, description="arguments of normalise_func, as JSON")
    softmax: bool | None = Field(None, description="whether the metric reads probabilities rather than logits")
    similarity_func: Similarity | None = Field(None, description="how two vectors are compared, by its name in Quantus")
    norm_numerator: Norm | None = Field(None, description="norm of the change of the map (sensitivity, Lipschitz)")
    norm_denominator: Norm | None = Field(None, description="norm of what it is divided by (sensitivity, Lipschitz)")
    perturb_func: Perturbation | None = Field(None, description="what changes the image, by its name in Quantus")
    perturb_func_kwargs: Table = Field(None, description="arguments of perturb_func, as JSON")
    perturb_baseline: Annotated[
        float | Literal["black", "white", "mean", "uniform"] | None, Field(union_mode="left_to_right")
    ] = Field(None, description="what replaces a pixel: a number, or black, white, mean (of the image), uniform noise")
    perturb_mean: float | None = Field(None, description="mean of the noise (LocalLipschitzEstimate)")
    perturb_std: float | None = Field(None, gt=0, description="deviation of the noise (LocalLipschitzEstimate)")
    lower_bound: float | None = Field(None, description="of the uniform noise (MaxSensitivity, AvgSensitivity)")
    upper_bound: float | None = Field(None, description="of the uniform noise; without it, +-lower_bound")
    noise: float | None = Field(None, ge=0, description="deviation of the noise of the imputation (ROAD)")
    noise_magnitude: float | None = Field(None, ge=0, description="of the smoothing, share of the range (SmoothMPRT)")
    features_in_step: int | None = Field(None, ge=1, description="pixels changed in a step; divides their number")
    subset_size: int | None = Field(None, ge=1, description="pixels changed in a run (FaithfulnessCorrelation)")
    nr_runs: int | None = Field(None, ge=2, description="runs of an image (FaithfulnessCorrelation)")
    nr_samples: int | None = Field(None, ge=1, description="draws of an image (robustness, MonotonicityCorrelation)")
    nr_steps: int | None = Field(None, ge=1, description="translations of an image (Continuity)")
    n_perturb_samples: int | None = Field(None, ge=1, description="repetitions (Infidelity)")
    n_max_percentage: float | None = Field(None, gt=0, le=1, description="share of the pixels removed (SensitivityN)")
    percentages: Numbers = Field(None, description="shares of removed pixels in percent, as [10, 50] (ROAD)")
    patch_size: int | None = Field(None, ge=1, description="side of a patch (RegionPerturbation, Selectivity)")
    perturb_patch_sizes: Integers = Field(None, description="sides of the patches, as [4, 8] (Infidelity)")
    regions_evaluation: int | None = Field(None, ge=1, description="patches removed (RegionPerturbation)")
    order: Literal["morf", "lerf"] | None = Field(None, description="most or least relevant first (RegionPerturbation)")
    segmentation_method: Literal["slic", "felzenszwalb"] | None = Field(None, description="of the regions (IROF)")
    loss_func: Literal["mse"] | None = Field(None, description="between sums and drops (Infidelity)")
    k: int | None = Field(None, ge=1, description="how many of the highest pixels (TopKIntersection)")
    concept_influence: bool | None = Field(None, description="divide by the mask's share (TopKIntersection)")
    weighted: bool | None = Field(None, description="weigh by the mask's size (PointingGame, AttributionLocalisation)")
    max_size: float | None = Field(None, gt=0, description="share of a mask beyond which Quantus warns")
    positive_attributions: bool | None = Field(None, description="positive part only (AttributionLocalisation)")
    eps: float | None = Field(None, gt=0, description="what counts as zero")
    eps_min: float | None = Field(None, gt=0, description="keeps a division from zero (Relative*Stability)")
    layer_names: Names = Field(None, description="layers read, as ['conv1'] (RelativeRepresentationStability)")
    layer_indices: Integers = Field(None, description="layers read, by number (RelativeRepresentationStability)")
    layer_order: Literal["top_down", "bottom_up", "independent"] | None = Field(
        None, description="in which layers lose their weights (MPRT family)"
    )
    skip_layers: bool | None = Field(None, description="compare with the wholly randomised model only (MPRT family)")
    seed: int | None = Field(None, ge=0, description="of the random weights (MPRT family)")
    complexity_func: Literal["discrete_entropy", "gini_coeffiient"] | None = Field(
        None, description="complexity of a map, by its name in Quantus (EfficientMPRT)"
    )
    complexity_func_kwargs: Table = Field(None, description="arguments of complexity_func, as JSON (EfficientMPRT)")
    return_nan_when_prediction_changes: bool | None = Field(
        None, description="a draw that changes the predicted class makes the image undefined (robustness)"
    )
