"""Options of `quantus`: the constructor parameters of all its metrics. Without a value, the default applies."""

from __future__ import annotations

import ast
import json
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator

from xbench import Field, Options


def _literal(value: Any) -> Any:
    """Return text parsed as JSON or as a Python literal, or unchanged if it is neither."""
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
    """Options of `quantus`. None means the default of the metric's own constructor. Each metric has some of them."""

    abs: bool | None = Field(None, description="take the absolute values of maps, after normalisation")
    normalise: bool | None = Field(None, description="normalise maps, each by itself")
    normalise_func: Normalisation | None = Field(None, description="function that normalises maps, as named in Quantus")
    normalise_func_kwargs: Table = Field(None, description="arguments of normalise_func, as JSON")
    softmax: bool | None = Field(None, description="whether the metric reads probabilities rather than logits")
    similarity_func: Similarity | None = Field(None, description="comparison of two vectors, as named in Quantus")
    norm_numerator: Norm | None = Field(None, description="norm of the change of the map (sensitivity, Lipschitz)")
    norm_denominator: Norm | None = Field(None, description="norm of the denominator (sensitivity, Lipschitz)")
    perturb_func: Perturbation | None = Field(None, description="change of the image, as named in Quantus")
    perturb_func_kwargs: Table = Field(None, description="arguments of perturb_func, as JSON")
    perturb_baseline: Annotated[
        float | Literal["black", "white", "mean", "uniform"] | None, Field(union_mode="left_to_right")
    ] = Field(
        None, description="replacement of a pixel: a number, black, white, mean (of the image), or uniform (noise)"
    )
    perturb_mean: float | None = Field(None, description="mean of the noise (LocalLipschitzEstimate)")
    perturb_std: float | None = Field(None, gt=0, description="deviation of the noise (LocalLipschitzEstimate)")
    lower_bound: float | None = Field(None, description="least uniform noise (MaxSensitivity, AvgSensitivity)")
    upper_bound: float | None = Field(None, description="largest uniform noise; without it, +-lower_bound")
    noise: float | None = Field(None, ge=0, description="deviation of the imputation's noise (ROAD)")
    noise_magnitude: float | None = Field(None, ge=0, description="smoothing noise, share of the range (SmoothMPRT)")
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
    segmentation_method: Literal["slic", "felzenszwalb"] | None = Field(
        None, description="method of the regions (IROF)"
    )
    loss_func: Literal["mse"] | None = Field(None, description="loss between sums and drops (Infidelity)")
    k: int | None = Field(None, ge=1, description="number of highest pixels (TopKIntersection)")
    concept_influence: bool | None = Field(None, description="divide by the mask's share (TopKIntersection)")
    weighted: bool | None = Field(None, description="weight by the mask's size (PointingGame, AttributionLocalisation)")
    max_size: float | None = Field(None, gt=0, description="share of a mask beyond which Quantus warns")
    positive_attributions: bool | None = Field(None, description="only the positive part (AttributionLocalisation)")
    eps: float | None = Field(None, gt=0, description="threshold below which a value counts as zero")
    eps_min: float | None = Field(None, gt=0, description="keeps a division from zero (Relative*Stability)")
    layer_names: Names = Field(None, description="layers to read, as ['conv1'] (RelativeRepresentationStability)")
    layer_indices: Integers = Field(None, description="layers to read, by number (RelativeRepresentationStability)")
    layer_order: Literal["top_down", "bottom_up", "independent"] | None = Field(
        None, description="order in which layers lose their weights (MPRT family)"
    )
    skip_layers: bool | None = Field(None, description="compare only with the fully randomised model (MPRT family)")
    seed: int | None = Field(None, ge=0, description="seed of the random weights (MPRT family)")
    complexity_func: Literal["discrete_entropy", "gini_coeffiient"] | None = Field(
        None, description="complexity of a map, as named in Quantus (EfficientMPRT)"
    )
    complexity_func_kwargs: Table = Field(None, description="arguments of complexity_func, as JSON (EfficientMPRT)")
    return_nan_when_prediction_changes: bool | None = Field(
        None, description="whether an image is undefined if a draw changes the predicted class (robustness)"
    )
