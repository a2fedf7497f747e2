"""Building the artifacts of a plan, upstream first. Processes with the same cache share the work."""

from __future__ import annotations

import time
from collections import Counter

from xbench.contracts.session import Bar, Progress
from xbench.errors import PluginError, XbenchError
from xbench.jobs.base import Job
from xbench.jobs.explainer import PEAK
from xbench.jobs.store import Store
from xbench.run.plan import Plan
from xbench.runtime.batching import give_back, out_of_memory
from xbench.runtime.devices import is_out_of_memory

Failures = dict[str, XbenchError]

_WORTH_A_LINE = 2.0  # seconds
_LOOK_AGAIN = 0.5  # seconds between checks of what other processes have built


def make_artifacts(plan: Plan, store: Store, progress: Progress) -> Failures:
    """Build or find every artifact of the plan, upstream first.

    An artifact that another process is building is skipped and checked again later. So any number of processes with the
    same cache, on one machine or several, share the work of a run: each builds what no other has built or is building.
    If a process dies, another one takes over the artifact that it had begun.

    If an artifact fails, its error is recorded for it and for everything made from it, and the run continues with the
    rest. Its memory is freed before the next artifact is built, and so are networks that are no longer needed.

    Returns:
        Fingerprint -> error, as `XbenchError.kept` returns it.

    Raises:
        XbenchError: No cell can be scored. This is the first error, unchanged.
    """
    builder = _Builder(plan, store, progress)
    with progress.task("artifacts", len(builder.pending)) as bar:
        while builder.pending:
            if not builder.sweep(bar):
                bar.note(f"waiting for another process: {builder.awaited}")
                time.sleep(_LOOK_AGAIN)
    ends = {cell.observations.fingerprint for cell in plan.cells}
    if builder.failures and ends <= builder.failures.keys():
        raise next(iter(builder.failures.values()))
    return builder.failures


class _Builder:
    """The pending jobs of a plan, and the errors of failed ones."""

    def __init__(self, plan: Plan, store: Store, progress: Progress) -> None:
        self._plan, self._store, self._progress = plan, store, progress
        self.pending = {job.fingerprint: job for job in plan.jobs}
        self.failures: Failures = {}
        self.awaited = ""
        self._missing = {job.fingerprint for job in plan.jobs if not store.has(job)}
        self._upstream: dict[Job, list[Job]] = {}
        # The number of pending jobs that still need each job. A job that none needs is told to free its memory.
        self._uses_left = Counter(above for job in self.pending.values() for above in self._with_upstream(job))

    def sweep(self, bar: Bar) -> int:
        """Go through the pending jobs once, and return how many of them were settled.

        Raises:
            XbenchError: A job that every cell needs has failed.
        """
        before = len(self.pending)
        for job in list(self.pending.values()):
            if any(above.fingerprint in self.pending for above in job.upstream):
                continue
            bar.note(f"{job.kind} {job.label}")
            if self._settle(job):
                del self.pending[job.fingerprint]
                self._forget_unused(job)
                bar.advance()
            else:
                self.awaited = f"{job.kind} {job.label}"
        return before - len(self.pending)

    def _settle(self, job: Job) -> bool:
        """Return whether the job is built or has failed, or False if another process is building it."""
        error = next(
            (self.failures[above.fingerprint] for above in job.upstream if above.fingerprint in self.failures), None
        )
        if error is None:
            try:
                if self._store.attempt(job) is None:
                    return False
            except Exception as raised:  # an error of one plugin must not end the run of the others
                error = _explained(job, raised).kept()
            if error is None:
                self._report(job)
            else:
                self._failed(job, error)
        if error is not None:
            self.failures[job.fingerprint] = error
        return True

    def _failed(self, job: Job, error: XbenchError) -> None:
        """Report the error and free the memory that the job held.

        Networks and plugins' objects are loaded or created again for other jobs that need them.
        """
        if all(job.fingerprint in {needed.fingerprint for needed in cell.jobs} for cell in self._plan.cells):
            raise error
        for held in self._with_upstream(job):
            held.forget()
        give_back()
        self._progress.warn(f"failed: {job.kind} {job.label}: {error}")

    def _forget_unused(self, job: Job) -> None:
        for needed in self._with_upstream(job):
            self._uses_left[needed] -= 1
            if not self._uses_left[needed]:
                needed.forget()

    def _with_upstream(self, job: Job) -> list[Job]:
        """Return the job and everything that it is made from, each once."""
        if job not in self._upstream:
            above = [ancestor for parent in job.upstream for ancestor in self._with_upstream(parent)]
            self._upstream[job] = list(dict.fromkeys([job, *above]))
        return self._upstream[job]

    def _report(self, job: Job) -> None:
        """Print a line for a long build, a dataset's class counts, and the figures of a trained explainer."""
        say, made = self._progress.say, job.fingerprint in self._missing or job.fingerprint in self._store.built
        if made and job.manifest.seconds >= _WORTH_A_LINE:
            say(f"made {job.kind} {job.label} in {job.manifest.seconds:.1f} s")
        for split, counts in job.facts.get("class_counts", {}).items():
            say(f"  {job.label} {split}: " + ", ".join(f"{count} {name}" for name, count in counts.items()))
        if job.kind == "explainer":
            figures = [
                f"{key.replace('_', ' ')} {value:.3f}"
                for key, value in job.facts.items()
                if isinstance(value, float) and key != PEAK
            ]
            if figures:
                say(f"  {job.label}: " + ", ".join(figures))


def _explained(job: Job, error: Exception) -> XbenchError:
    """Return the error as an `XbenchError`. It keeps its cause until `XbenchError.kept` is called."""
    if isinstance(error, XbenchError):
        return error
    what = f"{job.kind} of {job.label}"
    if is_out_of_memory(error):
        failure: XbenchError = out_of_memory(what, error)
    else:
        choice = getattr(job, "choice", None)
        owner = choice.entry.owner if choice is not None else what
        failure = PluginError(f"{owner} raised {type(error).__name__}: {error}")
    failure.__cause__ = error
    return failure
