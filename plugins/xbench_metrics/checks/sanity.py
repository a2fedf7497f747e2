"""Sanity checks: does a map change when the classifier loses what it has learned?"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from xbench import Batch, Case, Curves, DatasetInfo, Metric, Observations, Session, Split
from xbench.compute.passes import unchanging
from xbench.compute.similarity import map_spearman, map_ssim
from xbench.compute.training import ClassifierObjective, train_network
from xbench.runtime.seeding import derive, rng
from xbench_metrics.checks.options import LabelRandomisationOptions, ParameterRandomisationOptions
from xbench_metrics.checks.reinitialisation import layers, reinitialised, stages
from xbench_metrics.subsample import Part, live_explainer, mean_of_defined, parts, subsample

SIMILARITIES = {"spearman": map_spearman, "ssim": map_ssim}
_STATE = "state."
_LEARNED = 0.05  # cross entropy at which labels count as known by heart; less is no better
_FITTED = 0.95  # Adebayo et al. train until the permuted labels are learned this well


def _card(similarity: str) -> dict[str, Any]:
    how = {
        "spearman": "rank correlation over the pixels, average ranks for ties; 0 where only one map is constant",
        "ssim": "Gaussian window of 11 pixels, each map divided by its largest absolute value",
    }
    return {
        "similarity": how[similarity],
        "maps": "in the sign that is scored",
        "target": "the class explained in the trained classifier, whatever the changed one predicts",
        "aggregation": "mean over the images",
    }


def _similarities(case: Case, rows: np.ndarray, model: nn.Module) -> dict[str, np.ndarray]:
    """Return each similarity of the case's maps to those of another model, float64 (N,), NaN except at `rows`."""
    result = {name: np.full(len(case.split), np.nan) for name in SIMILARITIES}
    explanation = live_explainer(case)

    def compared(part: Part) -> np.ndarray:
        maps = explanation.maps(part.batch, part.targets, model)
        found: np.ndarray = torch.stack([one(part.maps, maps) for one in SIMILARITIES.values()]).cpu().numpy()
        return found

    with unchanging(model):
        for where, found in parts(case, rows, compared):
            for name, values in zip(SIMILARITIES, found, strict=True):
                result[name][where] = values
    return result


class ParameterRandomisation(Metric):
    """Model parameter randomisation test (Adebayo et al. 2018, section 3).

    How similar is each map to that of the same network with re-initialised layers? Stage s re-initialises the s last
    groups of layers (cascading), or only the s-th last (independent). The value is the mean over images of the
    similarity (Spearman's rank correlation, or SSIM) at the last stage of the cascade, where nothing learned is left.
    With `value`, it is the mean over all stages instead. Lower is better. 1 is a map that does not depend on what the
    network has learned. 0 is a map that has nothing in common with the original one. The paper's "ABS" and "no ABS" are
    the two signs of xbench.

    An explainer whose map can't change (because it is trained once, or shows the image's edges) has the value 1, which
    is what this test is for. Two constant maps have similarity 1. A constant map and another one have correlation 0.

    Report this value, but do not accept or reject an explainer by it: this metric's page names its confounders.
    """

    higher_is_better = False
    needs = frozenset({"explain"})
    options: ParameterRandomisationOptions

    def observe(self, case: Case) -> dict[str, np.ndarray]:
        """Return the similarity after each of S stages.

        Returns:
            spearman, ssim: Similarities, float64 (N, S), from the output to the input. NaN for images beyond `limit`.
        """
        options, explanation = self.options, live_explainer(case)
        rows = subsample(case, options.limit)
        first = case.split.batch(rows[:1]).to(case.session.device)
        groups = stages(layers(explanation.model, first.images), options.stages)
        seen = []
        for stage in case.session.track(range(len(groups)), "parameter randomisation", len(groups)):
            chosen = groups[: stage + 1] if options.order == "cascading" else groups[stage : stage + 1]
            names = [name for group in chosen for name in group]
            seen.append(_similarities(case, rows, reinitialised(explanation.model, names, options.seed)))
        if not seen:  # a network without parameters has nothing to re-initialise
            seen.append(_similarities(case, rows, explanation.model))
        return {name: np.stack([stage[name] for stage in seen], 1) for name in SIMILARITIES}

    def summarise(self, observations: Observations) -> float:
        """Return the mean over the compared images, at the last stage or over all stages."""
        values = observations[self.options.similarity]
        return mean_of_defined(values[:, -1] if self.options.resolved_value == "full" else values.mean(1))

    def curves(self, observations: Observations) -> Curves:
        """Return similarity against the stage."""
        count = observations["spearman"].shape[1]
        heights = {name: [mean_of_defined(stage) for stage in observations[name].T] for name in SIMILARITIES}
        cascading = self.options.order == "cascading"
        return Curves(
            x=np.arange(0 if cascading else 1, count + 1),
            y={name: np.array([1.0, *values] if cascading else values) for name, values in heights.items()},
            x_label="stages re-initialised, from the output" if cascading else "stage re-initialised, from the output",
            y_label="similarity to the trained network's map",
        )

    def card(self, info: DatasetInfo) -> dict[str, Any]:  # noqa: ARG002
        """Return what the similarity means."""
        last = "after the last stage" if self.options.order == "cascading" else "after the input's stage alone"
        return _card(self.options.similarity) | {
            "value": last if self.options.resolved_value == "full" else "mean over the stages",
            "weights": "torch's own initialisation of each layer, running statistics included; permuted where a layer "
            "has none",
        }


class LabelRandomisation(Metric):
    """Data randomisation test (Adebayo et al. 2018, section 4).

    How similar is each map to that of a network of the same architecture that was trained on permuted labels? Such a
    network can only have learned the training images by heart. Value, direction and edge cases are as for
    `parameter_randomisation`. Here, both networks are trained: their maps share what training does to any network, and
    differ only in what the true labels taught.

    Labels are permuted by patient. The patients' runs of labels are shuffled and dealt out again in the order of the
    split. So class counts stay the same, and where all patients have equally many images, each gets the labels of one
    patient. Training ends when the permuted labels are known by heart (a cross entropy of 0.05), or when the fit no
    longer improves. The fit is measured on the training split itself, because there is nothing to generalise to.
    """

    higher_is_better = False
    needs = frozenset({"explain"})
    options: LabelRandomisationOptions

    def prepare(self, case: Case) -> dict[str, np.ndarray]:
        """Train the network on permuted labels.

        Returns:
            The network's state by name, and `fitted`, the share of the permuted labels that it learned, float64 (1,).
        """
        assert case.model is not None
        network, fitted = self._train(case, case.model)
        state = {name: value.detach().cpu().numpy() for name, value in network.state_dict().items()}
        return {f"{_STATE}{name}": value for name, value in state.items()} | {"fitted": np.array([fitted])}

    def observe(self, case: Case) -> dict[str, np.ndarray]:
        """Return the similarity to the maps of the network that learned permuted labels.

        Returns:
            spearman, ssim: Similarities, float64 (N,). NaN for images beyond `limit`.
            fitted: Share of the permuted labels that the network learned, float64 (N,), the same for all samples.
        """
        network = copy.deepcopy(live_explainer(case).model)
        given = {name: value for name, value in case.prepared.items() if name.startswith(_STATE)}
        network.load_state_dict({name.removeprefix(_STATE): torch.tensor(value) for name, value in given.items()})
        seen = _similarities(case, subsample(case, self.options.limit), network)
        return seen | {"fitted": np.full(len(case.split), case.prepared["fitted"][0])}

    def summarise(self, observations: Observations) -> float:
        """Return the mean over the compared images."""
        return mean_of_defined(observations[self.options.similarity])

    def card(self, info: DatasetInfo) -> dict[str, Any]:  # noqa: ARG002
        """Return what the similarity means."""
        return _card(self.options.similarity) | {
            "labels": "permuted by patient",
            "training": "class-weighted cross entropy, Adam; the weights that fit the permuted labels best, to a cross "
            "entropy of 0.05",
        }

    def _train(self, case: Case, model: nn.Module) -> tuple[nn.Module, float]:
        """Return the network, and the share of permuted labels that it learned."""
        assert case.training is not None
        split = Relabelled(case.training, self.options.seed)
        image = split.batch([0]).to(case.session.device).images
        network = reinitialised(model, layers(model, image), self.options.seed).requires_grad_(True)
        seed = derive(self.options.seed, "label randomisation")
        session = dataclasses.replace(case.session, seed=seed, facts={})
        history = train_network(_ByHeart(network, split), split, split, self.options, session)
        best = min(history, key=lambda row: row["validation_criterion"], default={})
        fitted = best.get("validation_accuracy", float("nan"))
        if not fitted >= _FITTED:
            case.session.progress.warn(
                f"label_randomisation: the network learned only {fitted:.0%} of the permuted labels instead of "
                f"{_FITTED:.0%}; use more epochs"
            )
        return network.requires_grad_(False), fitted


class _ByHeart(ClassifierObjective):
    """Objective whose training ends, after its patience, once the labels are known by heart."""

    def validate(self, split: Split, session: Session) -> dict[str, float]:
        """Return the usual figures, with a criterion that never falls below `_LEARNED`."""
        figures = super().validate(split, session)
        return figures | {"criterion": max(figures["criterion"], _LEARNED)}


class Relabelled(Split):
    """A split whose labels are permuted by patient."""

    def __init__(self, inner: Split, seed: int) -> None:
        super().__init__(permuted_labels(inner.labels, inner.groups, seed), inner.ids, inner.groups, inner.seeds)
        self._inner = inner

    def _gather(self, where: np.ndarray) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        batch: Batch = self._inner.batch(where)
        return batch.images, batch.masks, batch.has_mask


def permuted_labels(labels: np.ndarray, groups: Sequence[str], seed: int) -> np.ndarray:
    """Return the labels of N samples, dealt out patient by patient in another order of the patients: int64 (N,)."""
    _, first, patient = np.unique(np.asarray(groups, dtype=str), return_index=True, return_inverse=True)
    order = np.argsort(first)  # patients in order of appearance
    shuffled = rng(seed, "permuted labels").permutation(order)
    members = [np.flatnonzero(patient == index) for index in range(len(order))]
    given = np.concatenate([labels[members[index]] for index in shuffled])
    result = np.empty_like(labels)
    result[np.concatenate([members[index] for index in order])] = given
    return result
