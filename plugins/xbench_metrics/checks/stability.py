"""Stability: how much does a map change when a small change of the image keeps the prediction?"""

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

    The maximum is over those of `samples` images x' = x + noise, clipped to [0, 1], that have the predicted class of x
    (Ghorbani et al. 2019). Norms are Euclidean. The explained class stays the same. `relative` does not depend on the
    scale of the maps, which each explainer chooses freely. `lipschitz` does, so it only compares classifiers under one
    explainer.

    A constant map has 0, and so does a map that ignores the image: stability is worth nothing by itself. The value is
    NaN for an image if no x' keeps the class. `relative` is also NaN if A(x) is zero and A(x') is not.
    """

    higher_is_better = False
    needs = frozenset({"explain"})
    options: StabilityOptions

    def observe(self, case: Case) -> dict[str, np.ndarray]:
        """Return the changes of each map.

        Returns:
            relative, lipschitz: Largest change, float64 (N,). NaN where undefined and for images beyond `limit`.
            mean_relative: Mean of `relative` over the noise that keeps the class, float64 (N,).
            kept: Share of the noise that keeps the class, float64 (N,).
        """
        seen = {name: np.full(len(case.split), np.nan) for name in ("relative", "lipschitz", "mean_relative", "kept")}
        rows = subsample(case, self.options.limit)
        for where, changes in parts(case, rows, functools.partial(self._changes, case), "stability"):
            for name, values in changes.items():
                seen[name][where] = values.numpy()
        return seen

    def summarise(self, observations: Observations) -> float:
        """Return the mean over the images for which the figure is defined."""
        return mean_of_defined(observations[self.options.figure])

    def card(self, info: DatasetInfo) -> dict[str, Any]:  # noqa: ARG002
        """Return what the change means."""
        divided = {"relative": "the norm of the map", "lipschitz": "the norm of the noise, as clipped"}
        return {
            "distance": f"Euclidean, over {divided[self.options.figure]}",
            "noise": "on every channel, clipped to [0, 1]; only where the predicted class stays",
            "target": "the class explained in the untouched image",
            "randomness": "an explainer that draws numbers draws the same for the noisy image",
            "aggregation": "largest over the noise, mean over the images",
        }

    def _changes(self, case: Case, part: Part) -> dict[str, torch.Tensor]:
        """Return the figures of some images, float64 (n,) each, on the CPU."""
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
        """Return the images with noise number `index`, drawn from each sample's own seed."""
        seeds, shape = batch.seeds ^ derive(0, "noise that keeps the class", index), batch.images.shape[1:]
        field = normal_field(seeds, shape) if self.options.noise == "normal" else 2 * uniform_field(seeds, shape) - 1
        return (batch.images + self.options.radius * field).clamp(0, 1)


class AdversarialStability(Metric):
    """Share of a map's top-k that a manipulated image displaces: 1 - |top-k of A(x) and of A(x')| / k; lower is better.

    x' is made by the iterative top-k attack (Ghorbani et al. 2019, algorithm 1) on the gradient of the classifier. Sign
    steps within `epsilon` move mass away from the gradient map's top-k pixels. Softplus replaces ReLU, because a ReLU
    network has no second derivatives. Of the images along the way that keep the prediction, x' is the one whose plain
    gradient map keeps the fewest of these pixels.

    This is a transfer attack: for every explainer, x' is made against the plain gradient, because most explainers can't
    be differentiated. The attack fits explainers close to the gradient better than others, so a low value does not
    prove that an explainer can't be manipulated. The displacement of the gradient itself is observed as well: where the
    attack failed, the value shows nothing.

    The value is 0 for a map that ignores the image, for a constant map (its ties are broken in the same way), for a
    linear classifier (its gradient is the same everywhere), and where no step keeps the prediction. It is 1 if nothing
    of the top-k is left.
    """

    higher_is_better = False
    needs = frozenset({"explain", "targets"})
    options: AdversarialStabilityOptions

    def prepare(self, case: Case) -> dict[str, np.ndarray]:
        """Attack the images, once for all explainers.

        Returns:
            attacked: The manipulated versions of the n chosen images, float32 (n, C, *spatial).
            gradient_intersection: Share of the gradient map's top-k that stays, float64 (n,).
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
        """Return the effect of the attack on each map.

        Returns:
            intersection: Share of the map's top-k that stays, float64 (N,). All are NaN for images beyond `limit`.
            spearman: Rank correlation of the two maps, float64 (N,).
            gradient_intersection: The same share for the attacked gradient map, float64 (N,).
            change: Largest change of a pixel, float64 (N,).
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
        """Return the top-k pixels that stay, k, rank correlation and largest change of images: float64 (4, n)."""
        maps = live_explainer(case).maps(dataclasses.replace(part.batch, images=images), part.targets)
        before, after = (top_pixels(one, part.batch.seeds, self.options.top) for one in (part.maps, maps))
        change = (images - part.batch.images).abs().flatten(1).amax(1)
        figures = ((before & after).sum(1), before.sum(1), map_spearman(part.maps, maps), change)
        return torch.stack([figure.to(widest(images.device)) for figure in figures]).cpu().double()

    def summarise(self, observations: Observations) -> float:
        """Return 1 - the mean share that stays."""
        return 1 - mean_of_defined(observations["intersection"])

    def card(self, info: DatasetInfo) -> dict[str, Any]:  # noqa: ARG002
        """Return what the displacement means."""
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
    """Return change / size. 0/0 is 0, because nothing changed. NaN where it is infinite, and where `change` is NaN."""
    return torch.where(size > 0, change / torch.where(size > 0, size, 1.0), torch.where(change == 0, 0.0, torch.nan))


def _largest(values: torch.Tensor) -> torch.Tensor:
    """Return the largest value along the first axis without NaN, or NaN if there is none."""
    largest = torch.where(values.isnan(), -torch.inf, values).amax(0)
    return torch.where(largest.isinf(), torch.nan, largest)
