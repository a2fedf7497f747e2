"""The bridge: a Quantus metric as an xbench metric."""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import io
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch

from xbench import Case, DatasetInfo, Metric, Observations, UserError, XbenchError, class_scores, probabilities
from xbench.contracts.options import suggestion
from xbench.runtime.devices import is_out_of_memory
from xbench.runtime.randomness import uniform_field
from xbench_quantus.batches import Piece, piece_of
from xbench_quantus.catalogue import Entry, find
from xbench_quantus.networks import Networks
from xbench_quantus.options import QuantusOptions
from xbench_quantus.quantus_patches import contained, every_channel, row_by_row, seeded_rows, small, smoothed
from xbench_quantus.scoring import correlation, per_image

_TIE = 1e-12  # share of a map's largest value, far below the spacing of float32 values


class QuantusMetric(Metric):
    """A metric of Quantus (Hedström et al. 2023) by its class name, computed for every image by itself.

    Quantus computes the score; the bridge decides its inputs. Maps are normalised image by image (Quantus would divide
    a batch by its maximum). Random numbers come from the image's own seed, which also breaks ties for metrics that only
    use the order of the pixels. Metrics whose result depends on the other images of a batch are computed one image at a
    time. An image whose map is not finite, whose mask is empty, or on which Quantus fails is NaN, and failures are
    counted. The value is the mean over the other images. The direction is that of the catalogue.
    """

    options: QuantusOptions

    def __init__(self, options: QuantusOptions, argument: str = "") -> None:
        super().__init__(options, argument)
        self.entry = find(argument)
        self.given = _given(options, self.entry, argument)
        self.higher_is_better = self.entry.better_high(self.given)
        self.needs = frozenset(
            {"mask": "masks", "model": "explain", "explain": "explain"}[need] for need in self.entry.needs - {"scores"}
        )

    def supports(self, info: DatasetInfo) -> str | None:
        """Return a reason for what Quantus can't score, and for parameters that do not fit the images."""
        if self.entry.refused:
            return f"quantus:{self.argument}: {self.entry.refused}"
        if len(info.spatial) != 2:
            return f"quantus:{self.argument}: Quantus takes flat images, {info.name} has {len(info.spatial)}-D ones"
        if self.entry.flat and info.channels > 1:
            return (
                f"quantus:{self.argument} changes the {info.channels} channels of a pixel one after the other, "
                "so that a step is no pixel: images of one channel only"
            )
        if "mask" in self.entry.needs and not info.has_masks:
            return f"quantus:{self.argument} needs expert masks, and {info.name} has none"
        return self._unfit(info)

    def _unfit(self, info: DatasetInfo) -> str | None:
        height, width = info.spatial
        pixels = height * width
        name = f"quantus:{self.argument}"
        step = self._value("features_in_step", 1)
        if "features_in_step" in self.entry.parameters and pixels % step:
            return f"{name}: features_in_step={step} does not divide the {pixels} pixels of {info.name}"
        for key, default in (("subset_size", 224), ("k", 1000)):
            if key in self.entry.parameters and self._value(key, default) >= pixels:
                return f"{name}: {key}={self._value(key, default)} must be below the {pixels} pixels of {info.name}"
        for side in self._value("perturb_patch_sizes", (4,)) if "perturb_patch_sizes" in self.entry.parameters else ():
            if height % side or width % side:
                return f"{name}: perturb_patch_sizes={side} does not divide {height} x {width} of {info.name}"
        if "nr_steps" in self.entry.parameters and self._value("nr_steps", 28) > 2 * width + 1:
            return f"{name}: nr_steps={self._value('nr_steps', 28)} must be at most {2 * width + 1}, for {info.name}"
        return None

    def _value(self, key: str, default: Any) -> Any:
        return self.given.get(key, default)

    @property
    def softmax(self) -> bool:
        """Whether Quantus reads probabilities."""
        return bool(self._value("softmax", self.entry.softmax))

    def card(self, info: DatasetInfo) -> dict[str, Any]:  # noqa: ARG002
        """Return what the value means."""
        entry = self.entry
        abs_or_positive = "its positive part" if entry.positive and not self._value("abs", False) else "as Quantus does"
        return {
            "quantus": importlib.metadata.version("quantus"),
            "metric": self.argument,
            "parameters": {key: _plain(value) for key, value in self.given.items()},
            "score": "none" if entry.softmax is None else "probability" if self.softmax else "class score",
            "target": "the class the map explains",
            "maps": "each image's normalised by itself, where the metric normalises",
            "sign": abs_or_positive,
            "ties": "at random, seeded by sample" if entry.ranks else "as Quantus does",
            "aggregation": "mean over n of the correlation over images"
            if entry.form == "pairs"
            else "mean over images",
            "handled": list(entry.handled),
        }

    def observe(self, case: Case) -> dict[str, np.ndarray]:
        """Return the scores of the images.

        Returns:
            score: Scores, float64 (N,), NaN where undefined. SensitivityN has "drops" and "sums" instead, float64 (N,
                L).
            failed: Whether Quantus raised, bool (N,).
        """
        scores: dict[int, Mapping[str, np.ndarray]] = {}
        failures: dict[int, str] = {}
        networks = Networks(case, self.softmax, of_module="model" in self.entry.needs)

        def scored(start: int, stop: int) -> None:
            piece = piece_of(case, start, stop, masks="mask" in self.entry.needs)
            parts = [piece] if self.entry.batched and len(piece) else [piece.take([row]) for row in range(len(piece))]
            for part in parts:
                self._try(part, networks, scores, failures)

        for _ in case.session.batched(len(case.split), scored, f"quantus {self.argument}"):
            pass
        self._report(case, scores, failures)
        failed = np.zeros(len(case.split), dtype=bool)
        failed[list(failures)] = True
        return {**_table(scores, len(case.split), ("drops", "sums") if self._pairs else ("score",)), "failed": failed}

    def summarise(self, observations: Observations) -> float:
        """Return the mean over the images with a score; for SensitivityN, the mean correlation over images."""
        if self._pairs:
            return correlation(observations["drops"], observations["sums"])
        scores = observations["score"][~np.isnan(observations["score"])]
        return float(scores.mean()) if len(scores) else float("nan")

    @property
    def _pairs(self) -> bool:
        return self.entry.form == "pairs"

    def _try(
        self,
        piece: Piece,
        networks: Networks,
        scores: dict[int, Mapping[str, np.ndarray]],
        failures: dict[int, str],
    ) -> None:
        """Call the metric once. If it raises for several images, call it for each image."""
        try:
            scored = self._called(piece, networks)
        except XbenchError:
            raise
        except Exception as error:
            if is_out_of_memory(error):
                raise
            reason = f"{type(error).__name__}: {error}"
        else:
            for index, row in enumerate(piece.rows):
                scores[int(row)] = {key: values[index] for key, values in scored.items()}
            return
        if len(piece) == 1:
            failures[int(piece.rows[0])] = reason
        else:
            for row in range(len(piece)):
                self._try(piece.take([row]), networks, scores, failures)

    def _report(self, case: Case, scores: Mapping[int, object], failures: Mapping[int, str]) -> None:
        if not failures:
            return
        reason = next(iter(failures.values()))
        if not scores:
            hint = "try other options or other images"
            raise UserError(f"quantus:{self.argument} fails on every image: {reason}", hint)
        case.session.progress.warn(
            f"quantus:{self.argument} fails on {len(failures)} of {len(case.split)} images; they are left out: {reason}"
        )

    def _called(self, piece: Piece, networks: Networks) -> dict[str, np.ndarray]:
        with contained(int(piece.seeds[0])):
            metric = self._metric(piece, networks)
            normalised = _normalisation(metric)
            explain = self._explain(piece, networks, normalised)
            self._adapt(metric, piece, explain)
            with networks.lent(self.entry.needs != {"mask"}) as network:
                returned = metric(
                    model=network,
                    x_batch=piece.images,
                    y_batch=piece.targets,
                    a_batch=None if self.argument == "SmoothMPRT" else self._maps(piece, normalised),
                    s_batch=piece.masks[:, None] if "mask" in self.entry.needs else None,
                    channel_first=True,
                    explain_func=explain,
                    softmax=self.softmax,
                    device=networks.device,
                    batch_size=len(piece),
                )
        if self._pairs:
            steps = int(self._value("n_max_percentage", 0.8) * piece.pixels // self._value("features_in_step", 1))
            return {"drops": returned[0]["pred_deltas"][:, :steps], "sums": returned[0]["att_sums"][:, :steps]}
        scores = per_image(self.entry.form, returned, len(piece), self._start(piece))
        return {"score": scores * self._weight(piece)}

    def _metric(self, piece: Piece, networks: Networks) -> Any:
        """Return a new instance, because Quantus's instances keep state from call to call."""
        import quantus

        parameters = {
            key: _resolved(key, value) for key, value in self.given.items() if key not in {"softmax", "weighted"}
        }
        if self.entry.raw:
            parameters.setdefault("normalise", False)
        if self.argument == "RandomLogit":
            parameters |= {"num_classes": networks.classes, "seed": small(int(piece.seeds[0]))}
        parameters |= {"return_aggregate": False, "disable_warnings": True, "display_progressbar": False}
        with contextlib.redirect_stdout(io.StringIO()):  # Quantus's constructors print
            return getattr(quantus, self.argument)(**parameters)

    def _adapt(self, metric: Any, piece: Piece, explain: Callable[..., np.ndarray]) -> None:
        """Change the metric so that an image's score depends on that image alone."""
        seeds = piece.seeds
        if hasattr(metric, "similarity_func"):
            metric.similarity_func = row_by_row(metric.similarity_func)
        drawn = self.entry.random or self.given.keys() & {"perturb_func", "perturb_baseline"}
        if self.argument == "IROF":
            metric.perturb_func = every_channel(metric.perturb_func)
        elif self.entry.batched and drawn and hasattr(metric, "perturb_func"):
            metric.perturb_func = seeded_rows(metric.perturb_func, seeds)
        if self.argument == "SmoothMPRT":
            metric.explain_smooth_batch_numpy = smoothed(explain, seeds, metric.nr_samples)
        if self._pairs:
            metric.custom_postprocess = lambda **_: None  # Quantus's own would correlate over this call's images

    def _maps(self, piece: Piece, normalised: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        """Return the maps for the metric: float64 (n, 1, H, W)."""
        maps = normalised(piece.maps[:, None])
        if self.entry.positive and not self._value("abs", False):
            maps = maps.clip(min=0)
        if self.entry.ranks:
            keys = uniform_field(torch.from_numpy(piece.seeds), maps.shape[1:]).numpy().astype(np.float64)
            largest = np.abs(maps).max(axis=(1, 2, 3), keepdims=True)
            maps = maps + keys * _TIE * np.where(largest > 0, largest, 1)
        return maps

    def _explain(
        self, piece: Piece, networks: Networks, normalised: Callable[[np.ndarray], np.ndarray]
    ) -> Callable[..., np.ndarray]:
        """Return the explainer as a function that Quantus can call."""

        def explain(model: Any, inputs: Any, targets: Any, **_: Any) -> np.ndarray:
            maps = networks.maps(piece.batch, np.asarray(inputs), np.asarray(targets), model)
            return normalised(maps[:, None])

        return explain

    def _start(self, piece: Piece) -> np.ndarray:
        """Return the target's score on the unchanged images: (n,)."""
        logits = torch.from_numpy(np.array(piece.logits, dtype=np.float32))
        scores = probabilities(logits) if self.softmax else class_scores(logits)
        start: np.ndarray = scores.numpy()[np.arange(len(piece)), piece.targets].astype(np.float64)
        return start

    def _weight(self, piece: Piece) -> np.ndarray | float:
        """Return the factor of `weighted` for each score, from the image's own mask."""
        if not self._value("weighted", False):
            return 1.0
        share: np.ndarray = piece.masks.mean(axis=(1, 2))
        return 1 - share if self.argument == "PointingGame" else share


def _given(options: QuantusOptions, entry: Entry, name: str) -> dict[str, Any]:
    """Return the options that the user set.

    Raises:
        UserError: The metric does not have one of them.
    """
    given = {key: value for key in type(options).model_fields if (value := getattr(options, key)) is not None}
    for key in given:
        if key not in entry.known:
            raise UserError(f"quantus:{name} has no option {key!r}", suggestion(key, entry.known))
    return given


_MODULES = {
    "similarity_func": ("similarity_func",),
    "norm_numerator": ("norm_func", "similarity_func"),
    "norm_denominator": ("norm_func", "similarity_func"),
    "perturb_func": ("perturb_func",),
    "normalise_func": ("normalise_func",),
    "complexity_func": ("complexity_func",),
}


def _resolved(key: str, value: Any) -> Any:
    """Return a value for the constructor: functions from names, lists, and copies of tables, which it may change."""
    if key in _MODULES:
        modules = [importlib.import_module(f"quantus.functions.{module}") for module in _MODULES[key]]
        return next(getattr(module, value) for module in modules if hasattr(module, value))
    if isinstance(value, tuple):
        return list(value)
    return dict(value) if isinstance(value, Mapping) else value


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _normalisation(metric: Any) -> Callable[[np.ndarray], np.ndarray]:
    """Return the metric's normalisation, applied to each map (n, 1, H, W) by itself, and turn it off in the metric."""
    wanted, function = metric.normalise, metric.normalise_func
    metric.normalise = False

    def normalised(maps: np.ndarray) -> np.ndarray:
        if not wanted:
            return maps.copy()
        return np.concatenate([np.asarray(function(maps[row : row + 1].copy())) for row in range(len(maps))])

    return normalised


def _table(scores: Mapping[int, Mapping[str, np.ndarray]], count: int, names: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Return arrays of all rows, with NaN for rows without a score."""
    table = {}
    for name in names:
        shape = next((np.shape(row[name]) for row in scores.values()), ())
        table[name] = np.full((count, *shape), np.nan)
        for index, row in scores.items():
            table[name][index] = row[name]
    return table
