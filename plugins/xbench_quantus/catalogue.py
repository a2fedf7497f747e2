"""The catalogue of Quantus 0.6: each metric's category, direction and needs, and which can't score a single image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from xbench import UserError
from xbench.contracts.options import suggestion

EVERY = frozenset({"abs", "normalise", "normalise_func", "normalise_func_kwargs"})
"""Parameters of every constructor."""

RESERVED = frozenset(
    {
        *("return_aggregate", "aggregate_func", "return_auc_per_sample", "return_sample_correlation"),
        *("return_average_correlation", "return_last_correlation", "compute_extra_scores"),
        *("default_plot_func", "disable_warnings", "display_progressbar", "num_classes", "kwargs", "self"),
    }
)
"""Constructor parameters that the bridge sets, or that change no score."""

Form = Literal["score", "area", "drops", "shares", "layers", "pairs"]


@dataclass(frozen=True)
class Entry:
    """A metric of Quantus.

    Attributes:
        category: Category that Quantus declares.
        higher: Whether higher is better.
        parameters: Constructor parameters that may be given, besides `EVERY`.
        ignored: Constructor parameters that Quantus takes but can't use, or that the bridge sets.
        needs: "mask"; "scores", the model's predictions; "model", the network itself; "explain", maps of other images.
        softmax: Whether it reads probabilities by default, or None if it reads no predictions.
        form: Form of the values for an image: a "score"; a curve that is integrated ("area") or averaged ("drops");
            shares of right predictions ("shares"); a similarity per "layers"; "pairs" that are correlated over images.
        batched: Whether several images may be given at once without changing any score.
        random: Whether the perturbation draws random numbers by default.
        ranks: Whether only the order of the pixels counts, so that ties are broken.
        flat: Whether it changes single values of a flattened image, which are not pixels in a colour image.
        positive: Whether only the positive part of the map counts, unless `abs` is set.
        raw: Whether maps are not normalised by default, although Quantus would.
        corrected: Why the direction differs from the one that Quantus declares.
        refused: Why it can't score an image, or empty.
        handled: Differences between the bridge and a plain call.
    """

    category: str
    higher: bool
    parameters: frozenset[str] = frozenset()
    ignored: frozenset[str] = frozenset()
    needs: frozenset[str] = frozenset()
    softmax: bool | None = None
    form: Form = "score"
    batched: bool = True
    random: bool = False
    ranks: bool = False
    flat: bool = False
    positive: bool = False
    raw: bool = False
    corrected: str = ""
    refused: str = ""
    handled: tuple[str, ...] = field(default=())

    @property
    def known(self) -> frozenset[str]:
        """Options that may be given."""
        return EVERY | self.parameters | ({"softmax"} if self.softmax is not None else frozenset())

    def better_high(self, given: Mapping[str, Any]) -> bool:
        """Return whether higher is better with these parameters. Least relevant first reverses the direction."""
        return self.higher != (given.get("order") == "lerf")


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_BASELINE = "perturb_func perturb_func_kwargs perturb_baseline"
_NOISE = "perturb_func perturb_func_kwargs return_nan_when_prediction_changes nr_samples"
_SIMILAR = "similarity_func norm_numerator norm_denominator"
_ROWS = "vectors compared pair by pair: a constant one breaks a batch's Spearman if it is among the first two"
_FROM_START = "the curve starts at the untouched image and is integrated over [0, 1]"
_SIZE = "weighted: by the mask's own share of the image"


def _faithful(higher: bool, parameters: str, **rest: Any) -> Entry:
    return Entry("Faithfulness", higher, _words(parameters), needs=_words("scores"), **rest)


def _robust(parameters: str, needs: str = "scores explain", **rest: Any) -> Entry:
    return Entry("Robustness", False, _words(parameters), needs=_words(needs), random=True, **rest)


def _local(parameters: str = "", **rest: Any) -> Entry:
    return Entry("Localisation", True, _words(parameters), needs=_words("mask"), **rest)


def _randomised(higher: bool, parameters: str, **rest: Any) -> Entry:
    return Entry("Randomisation", higher, _words(parameters), needs=_words("model explain"), **rest)


CATALOGUE: Mapping[str, Entry] = {
    "FaithfulnessCorrelation": _faithful(
        True, f"similarity_func nr_runs subset_size {_BASELINE}", softmax=False, batched=False, flat=True
    ),
    "FaithfulnessEstimate": _faithful(
        True, f"similarity_func features_in_step {_BASELINE}", softmax=False, flat=True, handled=(_ROWS,)
    ),
    "PixelFlipping": _faithful(
        False, f"features_in_step {_BASELINE}", softmax=True, form="area", ranks=True, flat=True, handled=(_FROM_START,)
    ),
    "RegionPerturbation": _faithful(
        True,
        f"patch_size order regions_evaluation {_BASELINE}",
        softmax=True,
        form="drops",
        ranks=True,
        corrected="it is the mean drop of the score when the most relevant patches go first: more is better",
        handled=("AOPC of Samek et al.: the drops, with the zero at the start, are averaged",),
    ),
    "Monotonicity": _faithful(
        True, f"features_in_step {_BASELINE}", softmax=True, batched=False, ranks=True, flat=True
    ),
    "MonotonicityCorrelation": _faithful(
        True,
        f"similarity_func eps nr_samples features_in_step {_BASELINE}",
        softmax=True,
        random=True,
        flat=True,
        handled=(_ROWS,),
    ),
    "Selectivity": _faithful(
        False, f"patch_size {_BASELINE}", softmax=True, form="area", ranks=True, handled=(_FROM_START,)
    ),
    "SensitivityN": _faithful(
        True,
        f"n_max_percentage features_in_step {_BASELINE}",
        softmax=True,
        form="pairs",
        flat=True,
        ignored=_words("similarity_func"),
        handled=("Quantus correlates over the first batch only; here over all images (Pearson), mean over n",),
    ),
    "IROF": _faithful(
        True,
        f"segmentation_method {_BASELINE}",
        softmax=True,
        batched=False,
        ranks=True,
        handled=("colour: the segment's mask is given to every channel", "np.trapz is lent to it on numpy >= 2.4"),
    ),
    "ROAD": _faithful(
        False,
        "percentages noise perturb_func perturb_func_kwargs",
        softmax=True,
        form="shares",
        batched=False,
        ranks=True,
        flat=True,
        handled=("every image is scored, not the first batch only",),
    ),
    "Infidelity": _faithful(False, f"loss_func perturb_patch_sizes n_perturb_samples {_BASELINE}", softmax=False),
    "Sufficiency": _faithful(
        True,
        "",
        softmax=True,
        ignored=_words("threshold distance_func"),
        refused="it compares the maps of several images: an image alone has no score",
    ),
    "Continuity": _robust(
        "nr_steps return_nan_when_prediction_changes",
        softmax=False,
        ignored=_words(_BASELINE),
    ),
    "LocalLipschitzEstimate": _robust(f"{_SIMILAR} perturb_mean perturb_std {_NOISE}", softmax=True),
    "MaxSensitivity": _robust(f"{_SIMILAR} lower_bound upper_bound {_NOISE}", softmax=False),
    "AvgSensitivity": _robust(f"{_SIMILAR} lower_bound upper_bound {_NOISE}", softmax=False),
    "Consistency": Entry(
        "Robustness",
        True,
        softmax=True,
        needs=_words("scores"),
        ignored=_words("discretise_func"),
        corrected="it is a probability that images with like maps have like predictions: more is better",
        refused="it compares the maps of several images: an image alone has no score",
    ),
    "RelativeInputStability": _robust(f"eps_min {_NOISE}", softmax=False),
    "RelativeOutputStability": _robust(f"eps_min {_NOISE}", softmax=False),
    "RelativeRepresentationStability": _robust(
        f"eps_min layer_names layer_indices {_NOISE}", needs="model explain", softmax=False
    ),
    "PointingGame": _local("weighted", ranks=True, handled=("an empty mask is no hit", _SIZE)),
    "TopKIntersection": _local("k concept_influence", ranks=True),
    "RelevanceMassAccuracy": _local(positive=True, handled=("the positive part of the map: a share, within [0, 1]",)),
    "RelevanceRankAccuracy": _local(ranks=True),
    "AttributionLocalisation": _local("weighted max_size positive_attributions", handled=(_SIZE,)),
    "AUC": _local(),
    "Focus": Entry(
        "Localisation",
        True,
        ignored=_words("mosaic_shape"),
        refused="it needs mosaics of four images, which a dataset does not have",
    ),
    "Sparseness": Entry("Complexity", True),
    "Complexity": Entry("Complexity", False),
    "EffectiveComplexity": Entry("Complexity", False, _words("eps")),
    "MPRT": _randomised(
        False,
        "similarity_func layer_order seed skip_layers",
        softmax=False,
        form="layers",
        handled=("mean over the randomised layers, without the untouched model that Quantus counts as one", _ROWS),
    ),
    "SmoothMPRT": _randomised(
        False,
        "similarity_func layer_order seed skip_layers nr_samples noise_magnitude",
        softmax=False,
        form="layers",
        handled=("smooths the explainer itself, which Quantus replaces by its own gradient", _ROWS),
    ),
    "EfficientMPRT": _randomised(
        True,
        "complexity_func complexity_func_kwargs layer_order seed skip_layers",
        softmax=True,
        batched=False,
        ignored=_words("similarity_func"),
        handled=("bins of the histogram are found for each image",),
    ),
    "RandomLogit": Entry(
        "Randomisation",
        False,
        _words("similarity_func"),
        ignored=_words("seed"),
        needs=_words("explain"),
        batched=False,
        handled=("the other class is drawn from the dataset's classes, for each image from its own seed",),
    ),
    "Completeness": Entry(
        "Axiomatic",
        True,
        _words(_BASELINE),
        ignored=_words("output_func"),
        needs=_words("scores"),
        softmax=False,
        batched=False,
        raw=True,
        handled=("maps are not normalised unless asked for; equality of the floats is exact, so 0 is the rule",),
    ),
    "NonSensitivity": Entry(
        "Axiomatic",
        False,
        _words(f"eps {_BASELINE}"),
        ignored=_words("features_in_step"),  # any but 1 crashes
        needs=_words("scores"),
        softmax=True,
        batched=False,
        flat=True,
    ),
    "InputInvariance": Entry(
        "Axiomatic",
        True,
        ignored=_words("input_shift perturb_func perturb_func_kwargs"),
        needs=_words("model explain"),
        refused="it leaves the first pixel unshifted, and makes up for the shift only where the second module of the "
        "network is a convolution with bias and without padding",
    ),
}


def find(name: str) -> Entry:
    """Return the metric with a class name.

    Raises:
        UserError: There is no such metric.
    """
    if name not in CATALOGUE:
        raise UserError(f"Quantus has no metric {name!r}", suggestion(name, CATALOGUE))
    return CATALOGUE[name]


def table() -> str:
    """Return the catalogue in Markdown, for the documentation."""
    lines = [
        "| metric | category | better | needs | options | what the bridge does |",
        "|---|---|---|---|---|---|",
    ]
    for name, entry in CATALOGUE.items():
        notes = [f"**not supported**: {entry.refused}"] if entry.refused else []
        notes += [f"direction corrected: {entry.corrected}"] if entry.corrected else []
        notes += ["one channel only"] if entry.flat and not entry.refused else []
        cells = (
            *(f"`{name}`", entry.category, "higher" if entry.higher else "lower"),
            ", ".join(sorted(entry.needs)) or "the map alone",
            " ".join(f"`{key}`" for key in sorted(entry.parameters)),
            "; ".join([*notes, *entry.handled]),
        )
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)
