"""Orders of removal that were met before: nothing is evaluated twice."""

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

_MOST_BYTES = 2**26  # of what is remembered; then the oldest goes
_WORDS = 2  # of 64 bits in the hash of one sample
_BLOCK = 2**14  # values of a sample that are hashed at a time


@dataclass(frozen=True)
class Order:
    """An order of removal as it is remembered.

    Attributes:
        context: Hash of the images, the fill and the classes.
        ranks: Hash of the ranks.
        turned: Hash of the ranks in reverse.
    """

    context: bytes
    ranks: bytes
    turned: bytes


class SeenOrders:
    """What came of removing the pixels of some samples in some order, for whoever asks for the same order again.

    An inverted map removes in the reverse order of the map itself, so that its two curves are exchanged; so do maps
    that rank alike, whatever their values: those of two names of one method, absolute values of what has no sign.
    Only a chunk of samples that was met as a whole is not evaluated again, so that a number is the same to its last
    bit whether it is remembered or not.
    """

    def __init__(self) -> None:
        self._scorer: weakref.ref[Any] | None = None
        self._found: OrderedDict[bytes, np.ndarray] = OrderedDict()
        self._bytes = 0

    def curves(self, scorer: Any, order: Order, make: Callable[[], np.ndarray]) -> np.ndarray:
        """Return `make()`, or what it gave for the same order or its reverse.

        Args:
            scorer: Who is asked; what it said is forgotten when another comes.
            order: Of `read_order`.
            make: The two curves of each sample, first of this order, then of its reverse: (m, 2, ...).

        Returns:
            (m, 2, ...), not to be written into.
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
        """Whether answers of this scorer can be remembered: nothing but a reference tells it from another."""
        if self._scorer is None or self._scorer() is not scorer:
            self._found.clear()
            self._bytes = 0
            try:
                self._scorer = weakref.ref(scorer)
            except TypeError:
                self._scorer = None
        return self._scorer is not None


def read_order(ranks: torch.Tensor, given: Sequence[torch.Tensor], beside: torch.Tensor) -> tuple[Order, np.ndarray]:
    """Hash an order of removal where the tensors are, and bring it to the host with something else, in one transfer.

    A sample's hash is sum_i c_i v_i modulo 2^64, for two sets of fixed random coefficients c. Two samples with other
    values of 32 bits have the same hash with a probability of at most 2^-66. The reverse of ranks r_i is P - 1 - r_i,
    so that its hash follows from theirs.

    Args:
        ranks: int64 (m, P), 0 for the pixel that goes first.
        given: All else that determines the answer, numbers of 32 bits or integers: images, what replaces pixels, whose
            score is followed; (m, ...) or (1, ...) each.
        beside: int64 (m,), to be brought along.

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
    """Of each row of (m, ...): int64 (m, words)."""
    if values.is_floating_point():
        values = values.contiguous().view(torch.int32)
    rows = values.reshape(len(values), -1)
    coefficients = _coefficients(rows.shape[1], str(rows.device))
    found = torch.zeros((len(rows), _WORDS), dtype=torch.int64, device=rows.device)
    # Block by block: of large images all integers of 64 bits at once would be what runs out of memory.
    for part, factors in zip(torch.split(rows, _BLOCK, 1), torch.split(coefficients, _BLOCK), strict=True):
        whole = part.long()
        found += torch.stack([(whole * factors[:, word]).sum(1) for word in range(_WORDS)], 1)
    return found


@functools.lru_cache(maxsize=8)
def _coefficients(count: int, device: str) -> torch.Tensor:
    """Random integers of 64 bits, the same on every device: int64 (count, words)."""
    counter = torch.arange(count * _WORDS, dtype=torch.int64, device=device)
    return splitmix(counter + derive(0, "coefficients of an order's hash")).view(_WORDS, count).T
