"""Batches that fit the memory. Their size is halved, and stays so, when the memory runs out."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from typing import TypeVar

from xbench.errors import UserError
from xbench.runtime.devices import is_out_of_memory, release

T = TypeVar("T")


class Batches:
    """Rows in batches of `size`, which is halved, and stays so, when the memory runs out.

    Attributes:
        size: Maximum number of rows in a batch.
    """

    def __init__(self, size: int) -> None:
        self.size = size

    def results(self, count: int, work: Callable[[int, int], T]) -> Iterator[tuple[slice, T]]:
        """Call `work(start, stop)` for batches of the rows 0 to `count`.

        Args:
            count: Total number of rows.
            work: Function to call. It is called again with fewer rows after it ran out of memory, so it must change
                nothing before the last step that can. Results that it moves to the CPU itself do not take memory of the
                device while the next batch is computed.

        Yields:
            The rows and their result.

        Raises:
            torch.OutOfMemoryError: One row does not fit. Some devices raise another error for this. It is passed on
                unchanged, because a caller whose row stands for several of its own can still halve those.
        """
        start = 0
        while start < count:
            stop = min(start + self.size, count)
            done = self._tried(work, start, stop)
            if done:
                yield slice(start, stop), done.pop()
                start = stop

    def _tried(self, work: Callable[[int, int], T], start: int, stop: int) -> list[T]:
        """Return the result in a list, or an empty list after halving `size` because the rows did not fit."""
        try:
            return [work(start, stop)]
        except Exception as error:
            if stop - start == 1 or not is_out_of_memory(error):
                raise
        # Outside of the except block: inside it, the frames of the failed call live on with all their tensors.
        self.size = (stop - start + 1) // 2
        give_back()
        return []


def give_back() -> None:
    """Free unreferenced objects, cycles included, and the device memory that torch caches.

    Call it where no exception is being handled: the exception would keep its frames and their tensors alive.
    """
    gc.collect()
    release()


def out_of_memory(what: str, error: BaseException, hint: str = "") -> UserError:
    """Return an error for users that keeps no reference to the error that was raised.

    Args:
        what: The work that did not fit: "maps of gradcam for convnet".
        error: The error that was raised.
        hint: Advice that is better than a smaller batch, network or image. Empty for the usual advice.
    """
    reason = str(error).strip().split("\n")[0]
    message = f"out of memory: {what}" + (f": {reason}" if reason else "")
    return UserError(message, hint or "try a smaller --batch-size, a smaller model, smaller images, or --device cpu")
