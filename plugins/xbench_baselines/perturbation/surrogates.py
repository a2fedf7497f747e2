"""Explanations by superpixels: one switched off at a time, or many at random and a linear model of what happens."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterator, Sequence

import torch
from torch import nn

from xbench import Batch, DatasetInfo, Explainer
from xbench.compute.passes import forward
from xbench.runtime.devices import upload, widest
from xbench.runtime.randomness import uniform_field
from xbench.runtime.seeding import derive
from xbench_baselines.perturbation.occlusion import perturbed_scores
from xbench_baselines.perturbation.options import (
    FeatureAblationOptions,
    KernelShapOptions,
    LimeOptions,
    SuperpixelOptions,
)
from xbench_baselines.perturbation.superpixels import Superpixels

_BLOCK = 1024  # coalitions held at a time


class SuperpixelGame:
    """v(z) = S_c(x where z_s = 1, x_off where z_s = 0): superpixels s are the players, a coalition z says who is on.

    Args:
        model: Class scores of images.
        batch: N images with their superpixels, int (N, *spatial), in `feature`.
        targets: int64 (N,).
        fill: What a superpixel shows that is off: "mean", its own mean per channel, or "zero".

    Attributes:
        players: M of each image.
    """

    def __init__(self, model: nn.Module, batch: Batch, targets: torch.Tensor, fill: str) -> None:
        if batch.feature is None:
            raise ValueError("the batch has no superpixels")
        self._images, self._targets = batch.images, targets
        self._score = forward(model, batch.images)
        self._labels = batch.feature.flatten(1).to(torch.int64)
        self.players: list[int] = (self._labels.amax(1) + 1).tolist()
        self._off = self._means() if fill == "mean" else torch.zeros_like(batch.images)

    def values(self, which: torch.Tensor | int, on: torch.Tensor) -> torch.Tensor:
        """The values v of R coalitions.

        Args:
            which: int64 (R,), the image of each, on the device; or the one image of all.
            on: bool (R, M), M at least that of their images, on the host or the device.

        Returns:
            float32 (R,).
        """
        on = upload(on, self._images.device)

        def perturb(rows: slice) -> torch.Tensor:
            # Of one image nothing needs to be copied: it stands for all rows.
            one = slice(which, which + 1) if isinstance(which, int) else which[rows]
            labels = self._labels[one].expand(len(on[rows]), -1)
            shown = on[rows].gather(1, labels).view(-1, 1, *self._images.shape[2:])
            return torch.where(shown, self._images[one], self._off[one])

        targets = self._targets[which].expand(len(on))
        return perturbed_scores(self._score, self._images, targets, perturb)

    def ends(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The values of nobody on and of all on, for each image: float32 (N,) and (N,)."""
        count = len(self._images)
        every = torch.arange(2 * count, device=self._images.device)
        which, on = every % count, (every >= count)[:, None]
        nobody, everybody = self.values(which, on.expand(-1, max(self.players))).chunk(2)
        return nobody, everybody

    def maps(self, worth: torch.Tensor) -> torch.Tensor:
        """Each pixel carries what its superpixel is worth: (N, M) on the host or the device -> (N, *spatial)."""
        worth = upload(worth.float(), self._labels.device)
        return worth.gather(1, self._labels).view(len(worth), *self._images.shape[2:])

    def _means(self) -> torch.Tensor:
        """Every pixel replaced by its superpixel's mean per channel: (N, C, *spatial)."""
        pixels = self._images.flatten(2).to(widest(self._images.device))
        labels = self._labels[:, None].expand_as(pixels)
        shape = (*pixels.shape[:2], max(self.players))
        total = pixels.new_zeros(shape).scatter_add_(2, labels, pixels)
        size = pixels.new_zeros(shape).scatter_add_(2, labels, torch.ones_like(pixels))
        return (total / size.clamp(min=1)).gather(2, labels).to(self._images.dtype).view_as(self._images)


class _SuperpixelExplainer(Explainer):
    """What a superpixel is worth, painted on its pixels."""

    options: SuperpixelOptions

    def __init__(self, options: SuperpixelOptions, argument: str = "") -> None:
        super().__init__(options, argument)
        self.feature = Superpixels(options.n_segments, options.compactness)

    def supports(self, model: nn.Module, info: DatasetInfo) -> str | None:  # noqa: ARG002
        """Refuses images that SLIC does not cut up."""
        axes = len(info.spatial)
        return None if axes in (2, 3) else f"superpixels need images of 2 or 3 axes, not {axes}"

    def attribute_batch(self, model: nn.Module, batch: Batch, targets: torch.Tensor) -> torch.Tensor:
        """(N, *spatial), the same value all over a superpixel."""
        game = SuperpixelGame(model, self.ready(batch), targets, self.options.fill)
        return game.maps(self.worth(game, batch.seeds))

    @abstractmethod
    def worth(self, game: SuperpixelGame, seeds: torch.Tensor) -> torch.Tensor:
        """(N, M), M the largest of the batch; what stands beyond an image's own players is never read."""


class FeatureAblation(_SuperpixelExplainer):
    """A_s = v(all on) - v(all on but s): what switching off one superpixel costs (`SuperpixelGame` says what off is).

    Positive where it costs the target score; M + 1 passes an image. The leave-one-out value of the game, occlusion with
    windows that follow the image. Not captum's, which takes one pass for each of the largest number of superpixels in
    the batch, whatever the number of an image's own.
    """

    options: FeatureAblationOptions

    def worth(self, game: SuperpixelGame, seeds: torch.Tensor) -> torch.Tensor:
        """The drops."""
        rows = torch.tensor(game.players) + 1  # all on, then one off after the other
        which = torch.arange(len(rows)).repeat_interleave(rows)
        first = rows.cumsum(0) - rows
        off = torch.arange(len(which)) - first[which] - 1
        on = off[:, None] != torch.arange(max(game.players))
        values = game.values(upload(which, seeds.device), upload(on, seeds.device)).cpu().double()
        drops = values.new_zeros((len(rows), max(game.players) + 1))
        drops[which, off + 1] = values[first][which] - values
        return drops[:, 1:]


class Lime(_SuperpixelExplainer):
    """Coefficients of a weighted ridge regression of v(z) on z (Ribeiro et al. 2016, equation 1 and section 3.4).

    A = argmin over beta, with an intercept b that is not penalised, of
        sum_i pi_i (v(z_i) - b - beta . z_i)^2 + alpha |beta|^2,  z_is ~ Bernoulli(1/2),
        pi = exp(-D^2 / (2 width^2)),  D = 1 - cos(z, 1) = 1 - sqrt(|z| / M).
    Positive where showing the superpixel raises the target score. As many samples, ridge and kernel as the authors'
    `lime_image`, which compares coalitions; captum's kernel compares pixels, and there a superpixel that shows its mean
    hardly turns the image, so that all weights are nearly 1.

    Not captum's, which perturbs, weighs and stores sample after sample in Python, image after image.
    """

    options: LimeOptions

    def worth(self, game: SuperpixelGame, seeds: torch.Tensor) -> torch.Tensor:
        """The coefficients: float64, on the host."""
        own = seeds.cpu()
        asked = [list(self.coalitions(own[index : index + 1], players)) for index, players in enumerate(game.players)]
        values = _on_host([game.values(index, on) for index, blocks in enumerate(asked) for on in blocks])
        worth = torch.zeros((len(seeds), max(game.players)), dtype=torch.float64)
        for index, blocks in enumerate(asked):
            worth[index, : game.players[index]] = self._coefficients(blocks, values)
        return worth

    def _coefficients(self, blocks: Sequence[torch.Tensor], values: Iterator[torch.Tensor]) -> torch.Tensor:
        """Of one image: float64 (M,), from the normal equations, which do not grow with the samples.

        Args:
            blocks: Its coalitions, bool (r, M) each.
            values: Gives those of each block, float64 (r,).
        """
        penalty = torch.full((blocks[0].shape[1] + 1,), self.options.alpha, dtype=torch.float64)
        penalty[0] = 0  # the intercept
        gram, moment = torch.diag(penalty), torch.zeros_like(penalty)
        for on in blocks:
            design = torch.cat([torch.ones_like(on[:, :1]), on], dim=1).double()
            weighted = design * self._kernel(on)[:, None]
            gram += weighted.T @ design
            moment += weighted.T @ next(values)
        solution: torch.Tensor = torch.linalg.solve(gram, moment)
        return solution[1:]

    def coalitions(self, seed: torch.Tensor, players: int) -> Iterator[torch.Tensor]:
        """Of one image, in blocks: bool (r, M); a larger `samples` goes on from the same first ones."""
        for start in range(0, self.options.samples, _BLOCK):
            rows = min(_BLOCK, self.options.samples - start)
            yield uniform_field(seed ^ derive(0, "lime coalitions", start), (rows, players))[0] < 0.5

    def _kernel(self, on: torch.Tensor) -> torch.Tensor:
        distance = 1 - on.double().mean(1).sqrt()
        return torch.exp(-(distance**2) / (2 * self.options.kernel_width**2))


class KernelShap(_SuperpixelExplainer):
    """Shapley values of the superpixels by regression (Lundberg & Lee 2017, theorem 2).

    phi = argmin of sum_z k(z) (v(z) - v(0) - phi . z)^2 subject to sum(phi) = v(1) - v(0),
        k(z) = (M - 1) / (binom(M, |z|) |z| (M - |z|)).
    Positive where the superpixel adds to the target score; the values add up to S_c(x) - S_c(x_off) exactly. All
    2^M - 2 coalitions are weighed where `samples` reaches so far, and the values are exact. Else coalitions are drawn
    from k, each with its complement (Covert & Lee 2021), their sizes in exact proportion (systematic sampling), and
    weigh the same.

    Not captum's, which gives the two ends a weight of 10^6 instead of the constraint, draws one coalition after another
    from the global generator, and never enumerates; nor shap's, which explains one image at a time in numpy.
    """

    options: KernelShapOptions

    def worth(self, game: SuperpixelGame, seeds: torch.Tensor) -> torch.Tensor:
        """The Shapley values: float64, on the host."""
        own = seeds.cpu()
        asked = [list(self.coalitions(own[index : index + 1], players)) for index, players in enumerate(game.players)]
        seen = [game.values(index, on) for index, blocks in enumerate(asked) for on, _ in blocks]
        values = _on_host([*game.ends(), *seen])
        nobody, everybody = next(values), next(values)
        worth = torch.zeros((len(seeds), max(game.players)), dtype=torch.float64)
        for index, players in enumerate(game.players):
            gram = torch.zeros((players, players), dtype=torch.float64)
            moment = torch.zeros_like(gram[0])
            for on, weight in asked[index]:
                weighted = on * weight[:, None]
                gram += weighted.T @ on.double()
                moment += weighted.T @ (next(values) - nobody[index])
            worth[index, :players] = _constrained(gram, moment, everybody[index] - nobody[index])
        return worth

    def coalitions(self, seed: torch.Tensor, players: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Of one image, in blocks: bool (r, M), neither empty nor full, and their weights, float64 (r,)."""
        if 2**players - 2 <= self.options.samples:
            return _all_coalitions(players)
        return _drawn_coalitions(seed, players, self.options.samples // 2)


def _on_host(blocks: Sequence[torch.Tensor]) -> Iterator[torch.Tensor]:
    """The values block by block in float64 on the host: surrogates are fitted to differences of scores.

    They are brought there at once, and fitted there: a GPU would solve the small equations of image after image and
    have the host wait for each, and some GPUs have no float64.
    """
    together = torch.cat(list(blocks)).cpu().double()
    return iter(torch.split(together, [len(block) for block in blocks]))


def _all_coalitions(players: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    kernel = [0.0] * (players + 1)
    for size in range(1, players):
        kernel[size] = (players - 1) / (math.comb(players, size) * size * (players - size))
    weights = torch.tensor(kernel, dtype=torch.float64)
    bits = torch.arange(players)
    for start in range(1, 2**players - 1, _BLOCK):
        numbers = torch.arange(start, min(start + _BLOCK, 2**players - 1))
        on = (numbers[:, None] >> bits) & 1
        yield on > 0, weights[on.sum(1)]


def _drawn_coalitions(seed: torch.Tensor, players: int, pairs: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    sizes = torch.arange(1, players, dtype=torch.float64)
    share = 1 / (sizes * (players - sizes))  # of all coalitions of a size, by the kernel
    below = (share.cumsum(0) / share.sum())[:-1]
    jitter = uniform_field(seed ^ derive(0, "kernelshap sizes"), (1,))[0].double()
    for start in range(0, pairs, _BLOCK // 2):
        number = torch.arange(start, min(start + _BLOCK // 2, pairs))
        size = 1 + torch.searchsorted(below, (number + jitter) / pairs, right=True)
        order = uniform_field(seed ^ derive(0, "kernelshap coalitions", start), (len(number), players))[0]
        rank = order.argsort(dim=1, stable=True).argsort(dim=1)
        on = rank < size[:, None]
        both = torch.cat([on, ~on])
        yield both, torch.ones(len(both), dtype=torch.float64)


def _constrained(gram: torch.Tensor, moment: torch.Tensor, total: torch.Tensor) -> torch.Tensor:
    """The least phi . gram phi - 2 moment . phi with sum(phi) = total: float64 (M,).

    phi = total / M + psi, where psi adds up to 0. The pseudo-inverse leaves at 0 what too few samples can't tell.
    """
    players = len(moment)
    even = torch.full_like(moment, 1 / players) * total
    centre = torch.eye(players, dtype=gram.dtype, device=gram.device) - 1 / players
    inverse: torch.Tensor = torch.linalg.pinv(centre @ gram @ centre, rtol=1e-10, hermitian=True)
    return even + centre @ (inverse @ (centre @ (moment - gram @ even)))
