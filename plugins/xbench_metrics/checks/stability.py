"""Stability: how much does a map change when the image changes so little that the prediction stays?"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import numpy as np
import torch

from xbench import Batch, Case, DatasetInfo, Metric, Observations, class_scores
from xbench.compute.similarity import map_spearman
from xbench.runtime.devices import upload, widest
from xbench.runtime.randomness import normal_field, uniform_field
from xbench.runtime.seeding import derive
from xbench_metrics.checks.manipulation import Attack, top_pixels
from xbench_metrics.checks.options import AdversarialStabilityOptions, StabilityOptions
from xbench_metrics.subsample import Part, live_explainer, mean_of_defined, parts, subsample


class InputStability(Metric):
    """Largest change of a map under small noise that keeps the prediction; lower is better.

        relative = max over x' of ||A(x) - A(x')|| / ||A(x)||    (max-sensitivity, Yeh et al. 2019, section 3)
        lipschitz = max over x' of ||A(x) - A(x')|| / ||x - x'||  (Alvarez-Melis and Jaakkola 2018, section 4)

    over `samples` images x' = x + noise, clipped to [0, 1], of those whose predicted class is that of x (Ghorbani et
    al. 2019); Euclidean norms. The class explained stays. `relative` does not depend on the scale of the maps, which
    explainers choose as they like; `lipschitz` does, so it compares classifiers under one explainer.

    A constant map has 0, and so has one that does not look at the image: stability is worth nothing by itself. NaN for
    an image where no x' keeps the class, and for `relative` where A(x) is zero and A(x') is not.
    """

    higher_is_better = False
    needs = frozenset({"explain"})
    options: StabilityOptions

    def observe(self, case: Case) -> dict[str, np.ndarray]:
        """Changes of each map.

        Returns:
            relative, lipschitz: float64 (N,), the largest; NaN where undefined and for images beyond `limit`.
            mean_relative: float64 (N,), the mean over the noise that keeps the class.
            kept: float64 (N,), share of the noise that does.
        """
        seen = {name: np.full(len(case.split), np.nan) for name in ("relative", "lipschitz", "mean_relative", "kept")}
        rows = subsample(case, self.options.limit)
        for where, changes in parts(case, rows, functools.partial(self._changes, case), "stability"):
            for name, values in changes.items():
                seen[name][where] = values.numpy()
        return seen

    def summarise(self, observations: Observations) -> float:
        """Mean over the images for which it is defined."""
        return mean_of_defined(observations[self.options.figure])

    def card(self, info: DatasetInfo) -> dict[str, Any]:  # noqa: ARG002
        """What the change means."""
        divided = {"relative": "the norm of the map", "lipschitz": "the norm of the noise, as clipped"}
        return {
            "distance": f"Euclidean, over {divided[self.options.figure]}",
            "noise": "on every channel, clipped to [0, 1]; only where the predicted class stays",
            "target": "the class explained in the untouched image",
            "randomness": "an explainer that draws numbers draws the same for the noisy image",
            "aggregation": "largest over the noise, mean over the images",
        }

    def _changes(self, case: Case, part: Part) -> dict[str, torch.Tensor]:
        """The figures of some images: float64 (n,) each, on the CPU."""
        predicted = upload(_predicted(torch.from_numpy(np.array(case.logits[part.rows]))), case.session.device)
        size = _norm(part.maps)
        found = []
        for index in range(self.options.samples):
            noisy = self._noisy(part.batch, index)
            moved = live_explainer(case).maps(dataclasses.replace(part.batch, images=noisy), part.targets)
            kept = _predicted(case.logits_of(noisy)) == predicted
            change = torch.where(kept, _norm(moved - part.maps), torch.nan)
            found.append(torch.stack([_ratio(change, size), _ratio(change, _norm(noisy - part.batch.images))]))
        relative, lipschitz = torch.stack(found, 1).cpu().double()
        return {
            "relative": _largest(relative),
            "lipschitz": _largest(lipschitz),
            "mean_relative": relative.nanmean(0),
            "kept": (~lipschitz.isnan()).double().mean(0),
        }

    def _noisy(self, batch: Batch, index: int) -> torch.Tensor:
        """The images with noise number `index`, drawn from each sample's own seed."""
        seeds, shape = batch.seeds ^ derive(0, "noise that keeps the class", index), batch.images.shape[1:]
        field = normal_field(seeds, shape) if self.options.noise == "normal" else 2 * uniform_field(seeds, shape) - 1
        return (batch.images + self.options.radius * field).clamp(0, 1)


class AdversarialStability(Metric):
    """How much of a map's top-k a manipulated image displaces: 1 - |top-k of A(x) and of A(x')| / k; lower is better.

    x' is made by the iterative top-k attack (Ghorbani et al. 2019, algorithm 1) on the gradient of the classifier:
    sign steps within `epsilon` that take mass away from the gradient map's top-k pixels, with softplus for ReLU because
    a ReLU network has no second derivatives; of the images on the way that keep the prediction, the one whose plain
    gradient map keeps the fewest of them.

    This is a transfer attack: whatever the explainer, x' was made against the plain gradient, since most explainers
    can't be differentiated. An explainer close to the gradient meets an attack made for it, others one made for their
    neighbour: a low value does not prove that an explainer can't be manipulated. The gradient's own displacement is
    observed beside it: where the attack itself failed, nothing is shown.

    0 for a map that does not look at the image, for a constant map (ties are broken alike), for a linear classifier,
    whose gradient is everywhere the same, and where no step keeps the prediction; 1 where nothing of the top-k is left.
    """

    higher_is_better = False
    needs = frozenset({"explain", "targets"})
    options: AdversarialStabilityOptions

    def prepare(self, case: Case) -> dict[str, np.ndarray]:
        """The attack, which is the same for all explainers.

        Returns:
            attacked: float32 (n, C, *spatial), the manipulated images of the n of `limit`.
            gradient_intersection: float64 (n,), share of the gradient map's top-k that stays.
        """
        options, device, rows = self.options, case.session.device, subsample(case, self.options.limit)
        assert case.model is not None
        attack = Attack(case.model, options.epsilon, options.step_size, options.steps, options.top, options.beta)
        size = attack.rows(upload(case.split.batch(rows[:1]).images, device))

        def attacked(start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
            chosen = rows[start:stop]
            targets = upload(torch.from_numpy(np.array(case.targets[chosen], dtype=np.int64)), device)
            images, share = attack(case.split.batch(chosen).to(device), targets)
            return images.cpu().numpy(), share.cpu().double().numpy()

        session = case.session.resized(size)
        moved, shares = zip(*(found for _, found in session.batched(len(rows), attacked, "attack")), strict=True)
        return {"attacked": np.concatenate(moved), "gradient_intersection": np.concatenate(shares)}

    def observe(self, case: Case) -> dict[str, np.ndarray]:
        """What the attack does to each map.

        Returns:
            intersection: float64 (N,), share of the map's top-k that stays; NaN for images beyond `limit`.
            spearman: float64 (N,), rank correlation of the two maps.
            gradient_intersection: float64 (N,), the same share for the gradient map that was attacked.
            change: float64 (N,), the largest change of a pixel.
        """
        names = ("intersection", "spearman", "gradient_intersection", "change")
        seen = {name: np.full(len(case.split), np.nan) for name in names}
        rows = subsample(case, self.options.limit)
        seen["gradient_intersection"][rows] = case.prepared["gradient_intersection"]
        place = np.full(len(case.split), -1)
        place[rows] = np.arange(len(rows))

        def displaced(part: Part) -> torch.Tensor:
            attacked = torch.from_numpy(np.array(case.prepared["attacked"][place[part.rows]]))
            return self._displaced(case, part, upload(attacked, case.session.device))

        for where, (stays, size, correlation, change) in parts(case, rows, displaced, "adversarial stability"):
            seen["intersection"][where] = (stays / size).numpy()
            seen["spearman"][where], seen["change"][where] = correlation.numpy(), change.numpy()
        return seen

    def _displaced(self, case: Case, part: Part, images: torch.Tensor) -> torch.Tensor:
        """Of some images: pixels of the top-k that stay, k, rank correlation, largest change: float64 (4, n)."""
        maps = live_explainer(case).maps(dataclasses.replace(part.batch, images=images), part.targets)
        before, after = (top_pixels(one, part.batch.seeds, self.options.top) for one in (part.maps, maps))
        change = (images - part.batch.images).abs().flatten(1).amax(1)
        figures = ((before & after).sum(1), before.sum(1), map_spearman(part.maps, maps), change)
        return torch.stack([figure.to(widest(images.device)) for figure in figures]).cpu().double()

    def summarise(self, observations: Observations) -> float:
        """1 - the mean share that stays."""
        return 1 - mean_of_defined(observations["intersection"])

    def card(self, info: DatasetInfo) -> dict[str, Any]:  # noqa: ARG002
        """What the displacement means."""
        return {
            "attack": "transferred: made against the gradient map of the class explained, softplus for ReLU",
            "constraint": "largest change of a pixel; the predicted class stays",
            "ties": "at random, seeded by sample, alike for both maps",
            "target": "the class explained in the untouched image",
            "aggregation": "mean over the images, those where the attack found nothing included",
        }


def _predicted(logits: torch.Tensor) -> torch.Tensor:
    return class_scores(logits).argmax(1)


def _norm(values: torch.Tensor) -> torch.Tensor:
    norm: torch.Tensor = values.flatten(1).to(widest(values.device)).norm(dim=1)
    return norm


def _ratio(change: torch.Tensor, size: torch.Tensor) -> torch.Tensor:
    """The change over the size; 0/0 is 0: nothing changed. NaN where it is infinite, and where `change` is NaN."""
    return torch.where(size > 0, change / torch.where(size > 0, size, 1.0), torch.where(change == 0, 0.0, torch.nan))


def _largest(values: torch.Tensor) -> torch.Tensor:
    """Along the first axis, without NaN; NaN if nothing else is there."""
    largest = torch.where(values.isnan(), -torch.inf, values).amax(0)
    return torch.where(largest.isinf(), torch.nan, largest)
