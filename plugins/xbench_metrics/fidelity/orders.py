"""Memory of orders of removal, so that no order is evaluated twice."""

from __future__ import annotations

import functools
import weakref
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from xbench.runtime.randomness import splitmix
from xbench.runtime.seeding import derive

_MOST_BYTES = 2**26  # size of the memory; above it, the oldest curves are dropped
_WORDS = 2  # number of 64-bit words in the hash of one sample
_BLOCK = 2**14  # number of values of a sample that are hashed at a time


@dataclass(frozen=True)
class Order:
    """Key of a remembered order of removal.

    Attributes:
        context: Hash of the images, the fill and the classes.
        ranks: Hash of the ranks.
        turned: Hash of the reversed ranks.
    """

    context: bytes
    ranks: bytes
    turned: bytes


class SeenOrders:
    """Memory of the curves of samples whose pixels were removed in some order.

    Different maps often have the same order. An inverted map removes pixels in the reverse order of the map itself, so
    its two curves are exchanged. Two names of one method, or a map without signs and its absolute values, rank pixels
    alike. Curves are only reused for a chunk of exactly the same samples, so a remembered number equals an evaluated
    one to the last bit.
    """

    def __init__(self) -> None:
        self._scorer: weakref.ref[Any] | None = None
        self._found: OrderedDict[bytes, np.ndarray] = OrderedDict()
        self._bytes = 0

    def curves(self, scorer: Any, order: Order, make: Callable[[], np.ndarray]) -> np.ndarray:
        """Return `make()`, or its earlier result for the same order or its reverse.

        Args:
            scorer: The function that gives the scores. A new scorer clears the memory.
            order: The order, from `read_order`.
            make: Function that returns the two curves of each sample, first of this order, then of its reverse:
                (m, 2, ...).

        Returns:
            The curves, (m, 2, ...). Do not write into them.
        """
        if not self._same(scorer):
            return make()
        key, turned = order.context + order.ranks, order.context + order.turned
        if key in self._found:
            return self._found[key]
        if turned in self._found:
            return self._found[turned][:, ::-1]
        made = self._found[key] = make()
        self._bytes += made.nbytes
        while self._bytes > _MOST_BYTES:
            self._bytes -= self._found.popitem(last=False)[1].nbytes
        return made

    def _same(self, scorer: Any) -> bool:
        """Return whether curves of this scorer can be remembered. Only a weak reference tells it from others."""
        if self._scorer is None or self._scorer() is not scorer:
            self._found.clear()
            self._bytes = 0
            try:
                self._scorer = weakref.ref(scorer)
            except TypeError:
                self._scorer = None
        return self._scorer is not None


def read_order(ranks: torch.Tensor, given: Sequence[torch.Tensor], beside: torch.Tensor) -> tuple[Order, np.ndarray]:
    """Hash an order of removal on its device, and bring the hash and `beside` to the host in one transfer.

    A sample's hash is sum_i c_i v_i modulo 2^64, for two sets of fixed random coefficients c. Two samples with
    different 32-bit values have the same hash with a probability of at most 2^-66. The reverse of ranks r_i is
    P - 1 - r_i, so its hash follows from that of the ranks.

    Args:
        ranks: Ranks, int64 (m, P), 0 for the pixel that is removed first.
        given: Everything else that determines the curves, as 32-bit numbers or integers: images, fill, and classes
            whose score is followed. Each is (m, ...) or (1, ...).
        beside: Numbers to transfer as well, int64 (m,).

    Returns:
        The order, and `beside` on the host.
    """
    pixels = ranks.shape[1]
    hashes = torch.cat([_hash(ranks), *map(_hash, given)])
    found = torch.cat([beside, hashes.flatten()]).cpu().numpy()
    count = len(beside)
    words = found[count:].reshape(-1, _WORDS)
    own, context = words[: len(ranks)], words[len(ranks) :]
    turned = (pixels - 1) * _coefficients(pixels, "cpu").sum(0).numpy() - own
    shapes = repr([(tuple(values.shape), str(values.dtype)) for values in (ranks, *given)])
    return Order(shapes.encode() + context.tobytes(), own.tobytes(), turned.tobytes()), found[:count]


def _hash(values: torch.Tensor) -> torch.Tensor:
    """Return the hash of each row of (m, ...): int64 (m, words)."""
    if values.is_floating_point():
        values = values.contiguous().view(torch.int32)
    rows = values.reshape(len(values), -1)
    coefficients = _coefficients(rows.shape[1], str(rows.device))
    found = torch.zeros((len(rows), _WORDS), dtype=torch.int64, device=rows.device)
    # Block by block, because the 64-bit integers of whole large images could exceed the memory.
    for part, factors in zip(torch.split(rows, _BLOCK, 1), torch.split(coefficients, _BLOCK), strict=True):
        whole = part.long()
        found += torch.stack([(whole * factors[:, word]).sum(1) for word in range(_WORDS)], 1)
    return found


@functools.lru_cache(maxsize=8)
def _coefficients(count: int, device: str) -> torch.Tensor:
    """Return random 64-bit integers, the same on every device: int64 (count, words)."""
    counter = torch.arange(count * _WORDS, dtype=torch.int64, device=device)
    return splitmix(counter + derive(0, "coefficients of an order's hash")).view(_WORDS, count).T
