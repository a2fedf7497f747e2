"""The order in which a map removes pixels, from one sort."""

from __future__ import annotations

import torch

from xbench.runtime.randomness import uniform_field
from xbench.runtime.seeding import derive

_TIE_STREAM = derive(0, "ties of a ranking")
_KEY_BITS = 24  # of uniform_field


def rank(maps: torch.Tensor, seeds: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Where each pixel comes when a map is read from its highest value down.

    Ties are broken by a random key drawn from the sample's own seed, never by position: a constant map therefore
    ranks pixels at random, the same way in every batch and on every device.

    Args:
        maps: float32 (N, P), finite.
        seeds: int64 (N,), `Batch.seeds`.

    Returns:
        Ranks int64 (N, P), 0 for the highest value; and how many pixels tie with another, int64 (N,).
    """
    keys = (tie_keys(seeds, maps.shape[1]) * 2**_KEY_BITS).long()
    # Value and tie key side by side in one integer: one sort does for both.
    values, order = (-_ordered(maps) << _KEY_BITS | keys).sort(dim=1, stable=True)
    same = (values[:, 1:] >> _KEY_BITS) == (values[:, :-1] >> _KEY_BITS)
    edge = same.new_zeros((len(maps), 1))
    tied = (torch.cat([same, edge], 1) | torch.cat([edge, same], 1)).sum(1)
    places = torch.arange(maps.shape[1], device=maps.device).expand_as(order)
    return torch.empty_like(order).scatter_(1, order, places), tied


def tie_keys(seeds: torch.Tensor, pixels: int) -> torch.Tensor:
    """The keys that break ties, lowest first: float32 (N, pixels), in [0, 1)."""
    return uniform_field(seeds ^ _TIE_STREAM, (pixels,))


def _ordered(values: torch.Tensor) -> torch.Tensor:
    """float32 as int64 of the same order (IEEE 754: bits of positive floats are ordered, of negative ones reversed)."""
    bits = (values + 0.0).contiguous().view(torch.int32).long()  # + 0.0 makes -0.0 equal to 0.0
    return torch.where(bits < 0, bits ^ 0x7FFFFFFF, bits)
