"""Sanity checks: does a map change when what the classifier has learned is taken from it?"""

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
_LEARNED = 0.05  # cross entropy below which labels are known by heart: less is no better
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
    """Of the case's maps to those of another model, at `rows`: float64 (N,) each, NaN elsewhere."""
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

    How similar is each map to that of the same network with layers re-initialised? Stage s re-initialises the s last
    groups of layers (cascading), or the s-th alone (independent). The value is the mean over images of the similarity
    (Spearman's rank correlation, or SSIM) at the last stage of the cascade, where nothing learned is left; or over all
    stages (`value`). Lower is better: 1 is a map that does not depend on what the network has learned, 0 one that has
    nothing in common with its former self. The paper's "ABS" and "no ABS" are the two signs of xbench.

    An explainer whose map can't change (trained once, or made of the image's edges) has 1: that is what is to be found.
    Two constant maps are equal, 1; a constant map and another have correlation 0.

    To be reported, never to pass or fail by: see the page of this metric for what confounds it.
    """

    higher_is_better = False
    needs = frozenset({"explain"})
    options: ParameterRandomisationOptions

    def observe(self, case: Case) -> dict[str, np.ndarray]:
        """Similarity after each of S stages.

        Returns:
            spearman, ssim: float64 (N, S), from the output to the input; NaN for images beyond `limit`.
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
        if not seen:  # a network without parameters has none to lose
            seen.append(_similarities(case, rows, explanation.model))
        return {name: np.stack([stage[name] for stage in seen], 1) for name in SIMILARITIES}

    def summarise(self, observations: Observations) -> float:
        """Mean over the images compared, at the last stage or over all."""
        values = observations[self.options.similarity]
        return mean_of_defined(values[:, -1] if self.options.resolved_value == "full" else values.mean(1))

    def curves(self, observations: Observations) -> Curves:
        """Similarity against the stage."""
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
        """What the similarity means."""
        last = "after the last stage" if self.options.order == "cascading" else "after the input's stage alone"
        return _card(self.options.similarity) | {
            "value": last if self.options.resolved_value == "full" else "mean over the stages",
            "weights": "torch's own initialisation of each layer, running statistics included; permuted where a layer "
            "has none",
        }


class LabelRandomisation(Metric):
    """Data randomisation test (Adebayo et al. 2018, section 4).

    How similar is each map to that of a network of the same architecture that was trained on permuted labels? It can
    only have learned the training images by heart. Value, direction and edges as for `parameter_randomisation`; here
    both networks are trained, so their maps are alike in what training does to any network, and only differ in what the
    true labels taught.

    Labels are permuted by patient: the patients' runs of labels are shuffled and dealt out anew in the order of the
    split, so that classes keep their numbers and (where patients have equally many images) a patient has labels of one
    patient. Training ends when the permuted labels are known by heart (a cross entropy of 0.05) or not fitted better,
    on the training split itself: there is nothing to generalise to.
    """

    higher_is_better = False
    needs = frozenset({"explain"})
    options: LabelRandomisationOptions

    def prepare(self, case: Case) -> dict[str, np.ndarray]:
        """The network that learned permuted labels.

        Returns:
            Its state, name by name, and `fitted`, float64 (1,), the share of the permuted labels that it learned.
        """
        assert case.model is not None
        network, fitted = self._train(case, case.model)
        state = {name: value.detach().cpu().numpy() for name, value in network.state_dict().items()}
        return {f"{_STATE}{name}": value for name, value in state.items()} | {"fitted": np.array([fitted])}

    def observe(self, case: Case) -> dict[str, np.ndarray]:
        """Similarity to the maps of the network that learned permuted labels.

        Returns:
            spearman, ssim: float64 (N,), NaN for images beyond `limit`.
            fitted: float64 (N,), share of the permuted labels that it learned; the same for all.
        """
        network = copy.deepcopy(live_explainer(case).model)
        given = {name: value for name, value in case.prepared.items() if name.startswith(_STATE)}
        network.load_state_dict({name.removeprefix(_STATE): torch.tensor(value) for name, value in given.items()})
        seen = _similarities(case, subsample(case, self.options.limit), network)
        return seen | {"fitted": np.full(len(case.split), case.prepared["fitted"][0])}

    def summarise(self, observations: Observations) -> float:
        """Mean over the images compared."""
        return mean_of_defined(observations[self.options.similarity])

    def card(self, info: DatasetInfo) -> dict[str, Any]:  # noqa: ARG002
        """What the similarity means."""
        return _card(self.options.similarity) | {
            "labels": "permuted by patient",
            "training": "class-weighted cross entropy, Adam; the weights that fit the permuted labels best, to a cross "
            "entropy of 0.05",
        }

    def _train(self, case: Case, model: nn.Module) -> tuple[nn.Module, float]:
        """The network, and the share of permuted labels that it learned."""
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
                f"label_randomisation: only {fitted:.0%} of the permuted labels were learned, {_FITTED:.0%} are "
                "wanted; give it more epochs"
            )
        return network.requires_grad_(False), fitted


class _ByHeart(ClassifierObjective):
    """Training that ends, after its patience, once the labels are known by heart."""

    def validate(self, split: Split, session: Session) -> dict[str, float]:
        """As ever, with nothing to gain below `_LEARNED`."""
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
    """The labels of (N,) samples, whole patients at a time, dealt out to the patients in another order: int64 (N,)."""
    _, first, patient = np.unique(np.asarray(groups, dtype=str), return_index=True, return_inverse=True)
    order = np.argsort(first)  # patients as they appear
    shuffled = rng(seed, "permuted labels").permutation(order)
    members = [np.flatnonzero(patient == index) for index in range(len(order))]
    given = np.concatenate([labels[members[index]] for index in shuffled])
    result = np.empty_like(labels)
    result[np.concatenate([members[index] for index in order])] = given
    return result
