"""Batches that fit the memory: halved for good when it runs out."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from typing import TypeVar

from xbench.errors import UserError
from xbench.runtime.devices import is_out_of_memory, release

T = TypeVar("T")


class Batches:
    """So many rows at a time, one batch after the other; half as many from then on when the memory runs out.

    Attributes:
        size: Rows of a batch, at most.
    """

    def __init__(self, size: int) -> None:
        self.size = size

    def results(self, count: int, work: Callable[[int, int], T]) -> Iterator[tuple[slice, T]]:
        """Call `work(start, stop)` for batches of the rows 0 to `count`.

        Args:
            count: Rows in all.
            work: Asked again, for fewer rows, where it ran out of memory: it must change nothing before the last thing
                that can. What it moves to the CPU itself is not on the device while the next batch is at work.

        Yields:
            Which rows, and the result.

        Raises:
            torch.OutOfMemoryError: One row does not fit; or what else the device raises then. It is as it came, because
                whoever called with several rows of its own can still halve those.
        """
        start = 0
        while start < count:
            stop = min(start + self.size, count)
            done = self._tried(work, start, stop)
            if done:
                yield slice(start, stop), done.pop()
                start = stop

    def _tried(self, work: Callable[[int, int], T], start: int, stop: int) -> list[T]:
        """The one result; none where it did not fit, and batches are smaller now."""
        try:
            return [work(start, stop)]
        except Exception as error:
            if stop - start == 1 or not is_out_of_memory(error):
                raise
        # Outside of the except block: inside, the frames of what failed live on, and the tensors in them.
        self.size = (stop - start + 1) // 2
        give_back()
        return []


def give_back() -> None:
    """Free what nothing refers to any more, cycles included, and the device memory that torch keeps for later.

    Call it where no exception is being handled: that one's frames, and the tensors in them, would stay.
    """
    gc.collect()
    release()


def out_of_memory(what: str, error: BaseException, hint: str = "") -> UserError:
    """An error for people, which holds nothing of the one that was raised.

    Args:
        what: That did not fit: "maps of gradcam for convnet".
        error: As raised.
        hint: What to do about it, if something better can be said than a smaller batch, network or image.
    """
    said = str(error).strip().split("\n")[0]
    message = f"out of memory: {what}" + (f": {said}" if said else "")
    return UserError(message, hint or "try a smaller --batch-size, a smaller model, smaller images, or --device cpu")
