"""Explanations by superpixels: switch off one at a time, or many at random and fit a linear model to the scores."""

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
    """v(z) = S_c(x where z_s = 1, x_off where z_s = 0). Superpixels s are players, and a coalition z says who is on.

    Args:
        model: The model, (N, C, *spatial) -> logits.
        batch: N images with their superpixels, int (N, *spatial), in `feature`.
        targets: Classes, int64 (N,).
        fill: Value that fills a superpixel that is off: "mean", its own mean per channel, or "zero".

    Attributes:
        players: Number M of players of each image.
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
        """Return the values v of R coalitions.

        Args:
            which: Image of each coalition, int64 (R,) on the device, or one image for all.
            on: Coalitions, bool (R, M) on the host or the device. M is at least the number of players of each image.

        Returns:
            The values, float32 (R,).
        """
        on = upload(on, self._images.device)

        def perturb(rows: slice) -> torch.Tensor:
            # A single image is broadcast to all rows, so it need not be copied.
            one = slice(which, which + 1) if isinstance(which, int) else which[rows]
            labels = self._labels[one].expand(len(on[rows]), -1)
            shown = on[rows].gather(1, labels).view(-1, 1, *self._images.shape[2:])
            return torch.where(shown, self._images[one], self._off[one])

        targets = self._targets[which].expand(len(on))
        return perturbed_scores(self._score, self._images, targets, perturb)

    def ends(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the values of the empty and of the full coalition of each image: float32 (N,) and (N,)."""
        count = len(self._images)
        every = torch.arange(2 * count, device=self._images.device)
        which, on = every % count, (every >= count)[:, None]
        nobody, everybody = self.values(which, on.expand(-1, max(self.players))).chunk(2)
        return nobody, everybody

    def maps(self, worth: torch.Tensor) -> torch.Tensor:
        """Return maps in which each pixel has the worth of its superpixel.

        Args:
            worth: Worth of each superpixel, (N, M), on the host or the device.

        Returns:
            The maps, (N, *spatial).
        """
        worth = upload(worth.float(), self._labels.device)
        return worth.gather(1, self._labels).view(len(worth), *self._images.shape[2:])

    def _means(self) -> torch.Tensor:
        """Return the images with every pixel replaced by its superpixel's mean per channel: (N, C, *spatial)."""
        pixels = self._images.flatten(2).to(widest(self._images.device))
        labels = self._labels[:, None].expand_as(pixels)
        shape = (*pixels.shape[:2], max(self.players))
        total = pixels.new_zeros(shape).scatter_add_(2, labels, pixels)
        size = pixels.new_zeros(shape).scatter_add_(2, labels, torch.ones_like(pixels))
        return (total / size.clamp(min=1)).gather(2, labels).to(self._images.dtype).view_as(self._images)


class _SuperpixelExplainer(Explainer):
    """Base of the explainers that compute the worth of each superpixel and give it to all of its pixels."""

    options: SuperpixelOptions

    def __init__(self, options: SuperpixelOptions, argument: str = "") -> None:
        super().__init__(options, argument)
        self.feature = Superpixels(options.n_segments, options.compactness)

    def supports(self, model: nn.Module, info: DatasetInfo) -> str | None:  # noqa: ARG002
        """Return a reason for images that SLIC can't segment."""
        axes = len(info.spatial)
        return None if axes in (2, 3) else f"superpixels need images of 2 or 3 axes, not {axes}"

    def attribute_batch(self, model: nn.Module, batch: Batch, targets: torch.Tensor) -> torch.Tensor:
        """Return the maps, (N, *spatial), with one value per superpixel."""
        game = SuperpixelGame(model, self.ready(batch), targets, self.options.fill)
        return game.maps(self.worth(game, batch.seeds))

    @abstractmethod
    def worth(self, game: SuperpixelGame, seeds: torch.Tensor) -> torch.Tensor:
        """Return the worth of each superpixel, (N, M), where M is the largest number of players in the batch.

        Values beyond an image's own players are never read.
        """


class FeatureAblation(_SuperpixelExplainer):
    """A_s = v(all on) - v(all on but s): the drop of the score when one superpixel is switched off (`SuperpixelGame`).

    This is the leave-one-out value of the game, or occlusion with windows that follow the image. A superpixel is
    positive where switching it off lowers the target's score. It takes M + 1 passes per image. This is own code because
    captum's takes as many passes for every image as the largest number of superpixels in the batch requires.
    """

    options: FeatureAblationOptions

    def worth(self, game: SuperpixelGame, seeds: torch.Tensor) -> torch.Tensor:
        """Return the drops: float64, on the host."""
        # The coalitions of all images stand in one list: for each image all on, then one player off after the other.
        rows = torch.tensor(game.players) + 1
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
    A superpixel is positive where showing it raises the target's score. The number of samples, the ridge penalty and
    the kernel are those of the authors' `lime_image`, whose kernel compares coalitions. captum's kernel compares
    pixels. There, all weights are nearly 1, because a superpixel filled with its mean hardly turns the image.

    This is own code because captum's perturbs, weights and stores one sample after the other in Python, image by image.
    """

    options: LimeOptions

    def worth(self, game: SuperpixelGame, seeds: torch.Tensor) -> torch.Tensor:
        """Return the coefficients: float64, on the host."""
        own = seeds.cpu()
        asked = [list(self.coalitions(own[index : index + 1], players)) for index, players in enumerate(game.players)]
        # All images are scored before the first is fitted, so that the host waits for the device only once.
        seen: list[torch.Tensor] = []
        for index, blocks in enumerate(asked):
            seen += [game.values(index, on) for on in blocks]
        values = _on_host(seen)
        worth = torch.zeros((len(seeds), max(game.players)), dtype=torch.float64)
        for index, blocks in enumerate(asked):
            worth[index, : game.players[index]] = self._coefficients(blocks, values)
        return worth

    def _coefficients(self, blocks: Sequence[torch.Tensor], values: Iterator[torch.Tensor]) -> torch.Tensor:
        """Return the coefficients of one image, float64 (M,).

        They come from the normal equations, whose size does not grow with the samples.

        Args:
            blocks: Coalitions of the image, bool (r, M) each.
            values: Iterator that yields the values of each block, float64 (r,).
        """
        penalty = torch.full((blocks[0].shape[1] + 1,), self.options.alpha, dtype=torch.float64)
        penalty[0] = 0  # the intercept is not penalised
        gram, moment = torch.diag(penalty), torch.zeros_like(penalty)
        for on in blocks:
            design = torch.cat([torch.ones_like(on[:, :1]), on], dim=1).double()
            weighted = design * self._kernel(on)[:, None]
            gram += weighted.T @ design
            moment += weighted.T @ next(values)
        solution: torch.Tensor = torch.linalg.solve(gram, moment)
        return solution[1:]

    def coalitions(self, seed: torch.Tensor, players: int) -> Iterator[torch.Tensor]:
        """Yield the coalitions of one image in blocks, bool (r, M). A larger `samples` starts with the same ones."""
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
    A superpixel is positive where it adds to the target's score. The values sum exactly to S_c(x) - S_c(x_off). If
    `samples` is large enough, all 2^M - 2 coalitions are used, weighted with k, and the values are exact. Otherwise,
    coalitions are drawn from k, each with its complement (Covert & Lee 2021), and have equal weights. Their sizes are
    drawn in exact proportion (systematic sampling).

    This is own code because captum's gives the two ends a weight of 10^6 instead of the constraint, draws one coalition
    after the other from the global generator, and never uses all coalitions. shap's explains one image at a time in
    numpy.
    """

    options: KernelShapOptions

    def worth(self, game: SuperpixelGame, seeds: torch.Tensor) -> torch.Tensor:
        """Return the Shapley values: float64, on the host."""
        own = seeds.cpu()
        asked = [list(self.coalitions(own[index : index + 1], players)) for index, players in enumerate(game.players)]
        # All images are scored before the first is fitted, so that the host waits for the device only once.
        seen: list[torch.Tensor] = []
        for index, blocks in enumerate(asked):
            seen += [game.values(index, on) for on, _ in blocks]
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
        """Yield the coalitions of one image in blocks: bool (r, M), and their weights, float64 (r,).

        The empty and the full coalition are not among them.
        """
        if 2**players - 2 <= self.options.samples:
            return _all_coalitions(players)
        return _drawn_coalitions(seed, players, self.options.samples // 2)


def _on_host(blocks: Sequence[torch.Tensor]) -> Iterator[torch.Tensor]:
    """Return an iterator over the values block by block, in float64 on the host.

    Surrogates are fitted to differences of scores, which need float64, and some GPUs have none. A GPU would also solve
    the small equations one image after the other, and the host would wait for each. All values are copied at once.
    """
    together = torch.cat(list(blocks)).cpu().double()
    return iter(torch.split(together, [len(block) for block in blocks]))


def _all_coalitions(players: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield all coalitions but the empty and the full one in blocks, with their weights k."""
    kernel = [0.0] * (players + 1)
    for size in range(1, players):
        kernel[size] = (players - 1) / (math.comb(players, size) * size * (players - size))
    weights = torch.tensor(kernel, dtype=torch.float64)
    bits = torch.arange(players)
    for start in range(1, 2**players - 1, _BLOCK):
        # The bits of a coalition's number say who is on.
        numbers = torch.arange(start, min(start + _BLOCK, 2**players - 1))
        on = (numbers[:, None] >> bits) & 1
        yield on > 0, weights[on.sum(1)]


def _drawn_coalitions(seed: torch.Tensor, players: int, pairs: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield random coalitions and their complements in blocks, with equal weights."""
    sizes = torch.arange(1, players, dtype=torch.float64)
    share = 1 / (sizes * (players - sizes))  # the kernel, summed over all coalitions of a size, up to a factor
    below = (share.cumsum(0) / share.sum())[:-1]
    jitter = uniform_field(seed ^ derive(0, "kernelshap sizes"), (1,))[0].double()
    for start in range(0, pairs, _BLOCK // 2):
        number = torch.arange(start, min(start + _BLOCK // 2, pairs))
        # Sizes by systematic sampling: evenly spaced points, moved by one draw, through the inverse distribution.
        size = 1 + torch.searchsorted(below, (number + jitter) / pairs, right=True)
        # The members are the players with the lowest of independent random numbers.
        order = uniform_field(seed ^ derive(0, "kernelshap coalitions", start), (len(number), players))[0]
        rank = order.argsort(dim=1, stable=True).argsort(dim=1)
        on = rank < size[:, None]
        both = torch.cat([on, ~on])
        yield both, torch.ones(len(both), dtype=torch.float64)


def _constrained(gram: torch.Tensor, moment: torch.Tensor, total: torch.Tensor) -> torch.Tensor:
    """Return the phi that minimises phi . gram phi - 2 moment . phi with sum(phi) = total: float64 (M,).

    phi = total / M + psi, where psi sums to 0. Directions of psi that too few samples leave undetermined are set to 0
    by the pseudo-inverse.
    """
    players = len(moment)
    even = torch.full_like(moment, 1 / players) * total
    centre = torch.eye(players, dtype=gram.dtype, device=gram.device) - 1 / players
    inverse: torch.Tensor = torch.linalg.pinv(centre @ gram @ centre, rtol=1e-10, hermitian=True)
    return even + centre @ (inverse @ (centre @ (moment - gram @ even)))
