"""Images with more and more of their pixels replaced, in batches that fill a forward pass."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from xbench.runtime.devices import upload, widest


def removed_counts(pixels: int, steps: int) -> list[int]:
    """Return how many of P pixels are removed after steps 1 to K - 1: round(f P), halves up."""
    # In integers, so that every platform rounds alike.
    return [(2 * step * pixels + steps) // (2 * steps) for step in range(1, steps)]


def perturbed(
    images: torch.Tensor, fill: torch.Tensor, ranks: torch.Tensor, steps: int, size: int
) -> Iterator[torch.Tensor]:
    """Yield the images of a chunk after each step of MiF, then of LiF, without the first and the last step.

    All m images of the chunk go through a forward pass together, each at the same step. So no pixels need to be
    gathered: one comparison of ranks and one interpolation make the whole batch. If the chunk is smaller than the
    batch, a batch holds several steps.

    Args:
        images: Images, float32 (m, C, *spatial), m at most `size`.
        fill: Values that replace the pixels, broadcastable to (m, C, P).
        ranks: Ranks, (m, P), 0 for the pixel that MiF removes first. LiF reads them backwards, so one sort serves both.
        steps: Number of steps, K.
        size: Batch size of the forward passes.

    Yields:
        Images (n, C, *spatial), n at most `size`, by mode, then step, then image. Each batch overwrites the previous
        one.
    """
    pixels, together = ranks.shape[1], max(1, size // len(images))
    whole = torch.float32 if pixels <= 2**24 else widest(images.device)  # holds every rank exactly
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
            # The arrays are reused, and the comparison writes the weights of `lerp` directly. This is exact at the
            # weights 0 and 1, and several times as fast as `where`.
            torch.lt(places, limit, out=weights)
            torch.lerp(before, fills[:n], weights.unsqueeze(1), out=after)
            yield after.view(n, *images.shape[1:])
