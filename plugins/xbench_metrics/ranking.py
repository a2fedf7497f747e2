"""The order in which a map removes pixels, from one sort."""

from __future__ import annotations

import torch

from xbench.runtime.randomness import uniform_field
from xbench.runtime.seeding import derive

_TIE_STREAM = derive(0, "ties of a ranking")
_KEY_BITS = 24  # bits of a number from uniform_field


def rank(maps: torch.Tensor, seeds: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the rank of each pixel, from the highest value of its map down.

    Ties are broken by a random key drawn from the sample's own seed, never by position. So a constant map ranks its
    pixels at random, in the same way in every batch and on every device.

    Args:
        maps: Finite maps, float32 (N, P).
        seeds: Seeds of the samples (`Batch.seeds`), int64 (N,).

    Returns:
        Ranks, int64 (N, P), 0 for the highest value, and the number of pixels that tie with another, int64 (N,).
    """
    keys = (tie_keys(seeds, maps.shape[1]) * 2**_KEY_BITS).long()
    # Value and tie key share one integer, so that one sort orders by both.
    values, order = (-_ordered(maps) << _KEY_BITS | keys).sort(dim=1, stable=True)
    same = (values[:, 1:] >> _KEY_BITS) == (values[:, :-1] >> _KEY_BITS)
    edge = same.new_zeros((len(maps), 1))
    tied = (torch.cat([same, edge], 1) | torch.cat([edge, same], 1)).sum(1)
    places = torch.arange(maps.shape[1], device=maps.device).expand_as(order)
    return torch.empty_like(order).scatter_(1, order, places), tied


def tie_keys(seeds: torch.Tensor, pixels: int) -> torch.Tensor:
    """Return the keys that break ties, lowest first: float32 (N, pixels), in [0, 1)."""
    return uniform_field(seeds ^ _TIE_STREAM, (pixels,))


def _ordered(values: torch.Tensor) -> torch.Tensor:
    """Return int64 values in the same order as float32 `values`."""
    # IEEE 754: the bits of positive floats have the order of the floats, those of negative ones the reversed order.
    bits = (values + 0.0).contiguous().view(torch.int32).long()  # + 0.0 makes -0.0 equal to 0.0
    return torch.where(bits < 0, bits ^ 0x7FFFFFFF, bits)
