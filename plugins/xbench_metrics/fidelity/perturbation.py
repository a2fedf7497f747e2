"""Images with more and more of their pixels replaced, in full forward passes."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from xbench.runtime.devices import upload, widest


def removed_counts(pixels: int, steps: int) -> list[int]:
    """How many of P pixels are gone after steps 1 to K - 1: round(f P), halves up; in integers, for every platform."""
    return [(2 * step * pixels + steps) // (2 * steps) for step in range(1, steps)]


def perturbed(
    images: torch.Tensor, fill: torch.Tensor, ranks: torch.Tensor, steps: int, size: int
) -> Iterator[torch.Tensor]:
    """The images of a chunk after each step of MiF, then of LiF, both without the first and the last.

    All m images of the chunk go through a forward pass together, each at the same step, so that nothing is gathered: a
    comparison of ranks and an interpolation make the whole pass. A chunk smaller than the batch takes several steps at
    once.

    Args:
        images: float32 (m, C, *spatial), m at most `size`.
        fill: What replaces the pixels, broadcastable to (m, C, P).
        ranks: (m, P), 0 for the pixel that MiF removes first; LiF reads them backwards, so one sort serves both.
        steps: K.
        size: The batch size of the forward passes.

    Yields:
        Images (n, C, *spatial), n at most `size`, by mode, then step, then image. Each overwrites the one before.
    """
    pixels, together = ranks.shape[1], max(1, size // len(images))
    whole = torch.float32 if pixels <= 2**24 else widest(images.device)  # what holds every rank exactly
    repeated = images.flatten(2).repeat(together, 1, 1)
    fills = fill if len(fill) == 1 else fill.repeat(together, 1, 1)
    counts = upload(torch.tensor(removed_counts(pixels, steps), dtype=whole), images.device)
    limits = [group.repeat_interleave(len(images))[:, None] for group in torch.split(counts, together)]
    gone, result = torch.empty((len(repeated), pixels), device=images.device), torch.empty_like(repeated)
    for order in (ranks, pixels - 1 - ranks):
        arrays = (order.to(whole).repeat(together, 1), repeated, gone, result)
        for limit in limits:
            n = len(limit)
            # The last steps of a small chunk may be fewer than fit.
            places, before, weights, after = arrays if n == len(repeated) else (array[:n] for array in arrays)
            # Reused arrays, and a comparison that writes the weights of `lerp` at once: exact at the weights 0 and 1,
            # and several times as fast as `where`.
            torch.lt(places, limit, out=weights)
            torch.lerp(before, fills[:n], weights.unsqueeze(1), out=after)
            yield after.view(n, *images.shape[1:])
