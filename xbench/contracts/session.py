"""The session that a plugin works in: its folder, device, precision, seed, and where to report progress."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from xbench.runtime.batching import Batches
from xbench.runtime.devices import autocast

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    import torch

T = TypeVar("T")


class Bar(Protocol):
    """The progress bar of one piece of work."""

    def advance(self, amount: float = 1) -> None:
        """Move the bar forward by `amount`."""
        ...

    def note(self, text: str) -> None:
        """Show a few words beside the bar, such as the current loss."""
        ...


class Progress(Protocol):
    """The display of progress: live on the command line, silent in tests."""

    def task(self, label: str, total: float | None = None) -> AbstractContextManager[Bar]:
        """Show a piece of work of `total` steps while the context is open."""
        ...

    def warn(self, text: str) -> None:
        """Show a warning and keep it above the bars."""
        ...

    def say(self, text: str) -> None:
        """Show a line and keep it above the bars, such as a stage that is done."""
        ...


class SilentProgress:
    """Progress that is not shown. Warnings are kept in `warnings`."""

    def __init__(self) -> None:
        self.warnings: list[str] = []

    @contextmanager
    def task(self, label: str, total: float | None = None) -> Iterator[Bar]:  # noqa: ARG002
        """Yield a bar that shows nothing."""
        yield _NoBar()

    def warn(self, text: str) -> None:
        """Keep the warning."""
        self.warnings.append(text)

    def say(self, text: str) -> None:
        """Drop the line."""


class _NoBar:
    def advance(self, amount: float = 1) -> None:
        pass

    def note(self, text: str) -> None:
        pass


@dataclass
class Session:
    """Everything that one piece of work needs from the harness.

    Attributes:
        folder: Folder for results and checkpoints. It survives a kill, so a resumed run finds what was written.
        device: Name of the device: "cpu", "cuda", "cuda:1", "mps".
        precision: "32": true float32; "tf32": shorter mantissas in products on NVIDIA GPUs; "bf16" or "16": autocast of
            forward passes. The harness sets torch's switches of float32 during the work.
        seed: Seed of this piece of work. Derive everything random from it (`xbench.runtime.seeding`).
        batch_size: Batch size of passes without gradients, calibrated or given by the user. `batched` halves it where a
            batch does not fit the memory. Nothing else changes it: for another size, take a new session from `resized`.
        progress: Where to report progress.
        facts: Facts to keep beside the files of the work (JSON values): losses, accuracies, counts. A trained
            explainer's text under "warning" says why its maps can't be trusted, such as a training that collapsed. It
            appears in the run's warnings and in each of its score rows.
        reference: The item at work, as written on the command line: "convnet", "timm:resnet18"; empty if there is none.
    """

    folder: Path
    device: str = "cpu"
    precision: str = "32"
    seed: int = 0
    batch_size: int = 32
    progress: Progress = field(default_factory=SilentProgress)
    facts: dict[str, Any] = field(default_factory=dict)
    reference: str = ""

    def resized(self, batch_size: int) -> Session:
        """Return a session for the same piece of work with another batch size; folder, facts and progress are shared.

        Halving the batches of one leaves the other as it is.
        """
        return replace(self, batch_size=batch_size)

    def track(self, items: Iterable[T], label: str, total: float | None = None) -> Iterator[T]:
        """Yield the items and show a progress bar."""
        with self.progress.task(label, total) as bar:
            for item in items:
                yield item
                bar.advance()

    def batched(self, count: int, work: Callable[[int, int], T], label: str = "") -> Iterator[tuple[slice, T]]:
        """Call `work(start, stop)` for the rows 0 to `count`, `batch_size` at a time.

        When the memory runs out, the batches and `batch_size` are halved and stay so; see
        `xbench.runtime.batching.Batches`.

        Args:
            count: Total number of rows.
            work: Function to call. It is called again with fewer rows where they did not fit.
            label: Label of the progress bar, or empty for no bar.

        Yields:
            The rows and their result.
        """
        batches = Batches(self.batch_size)

        def sized(start: int, stop: int) -> T:
            self.batch_size = batches.size  # before the rows that did not fit are tried again
            return work(start, stop)

        with self.progress.task(label, count) if label else SilentProgress().task(label) as bar:
            for rows, result in batches.results(count, sized):
                yield rows, result
                bar.advance(rows.stop - rows.start)

    def autocast(self) -> AbstractContextManager[Any]:
        """Return the autocast context of `precision`, which does nothing at 32 and tf32."""
        return autocast(self.precision, self.device)

    def generator(self, *parts: object) -> torch.Generator:
        """Return a CPU generator for `parts` of this work."""
        from xbench.runtime.randomness import generator

        return generator(self.seed, *parts)
