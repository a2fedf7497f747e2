"""Jobs -> artifacts, upstream first; whoever else works in the same cache takes a part of them."""

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
_LOOK_AGAIN = 0.5  # seconds between looks at what other processes are making


def make_artifacts(plan: Plan, store: Store, progress: Progress) -> Failures:
    """Make or find every artifact of the plan, upstream first.

    What another process is making is passed over and looked at again later, so that any number of processes with the
    same cache, on one machine or on several, share the work of a run: each makes what nobody has made or is making.
    One that dies gives back what it had begun.

    What fails is remembered with its reason, and so is everything made from it; the rest goes on. What it held is given
    back before the next is made, and so are networks that nothing is made with any more.

    Returns:
        Fingerprint -> error, as `XbenchError.kept` gives it.

    Raises:
        XbenchError: No cell at all can be scored; the first error, as it is.
    """
    making = _Builder(plan, store, progress)
    with progress.task("artifacts", len(making.pending)) as bar:
        while making.pending:
            if not making.sweep(bar):
                bar.note(f"waiting for another process: {making.awaited}")
                time.sleep(_LOOK_AGAIN)
    ends = {cell.observations.fingerprint for cell in plan.cells}
    if making.failures and ends <= making.failures.keys():
        raise next(iter(making.failures.values()))
    return making.failures


class _Builder:
    """What is still to be had, and what went wrong."""

    def __init__(self, plan: Plan, store: Store, progress: Progress) -> None:
        self._plan, self._store, self._progress = plan, store, progress
        self.pending = {job.fingerprint: job for job in plan.jobs}
        self.failures: Failures = {}
        self.awaited = ""
        self._missing = {job.fingerprint for job in plan.jobs if not store.has(job)}
        self._upstream: dict[Job, list[Job]] = {}
        # How many pending jobs still need each job: what none needs any more is forgotten.
        self._uses_left = Counter(above for job in self.pending.values() for above in self._with_upstream(job))

    def sweep(self, bar: Bar) -> int:
        """Go once through what is pending; how much of it is settled then.

        Raises:
            XbenchError: What every cell needs has failed.
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
        """Whether the job is made, or has failed; False while another process is making it."""
        error = next(
            (self.failures[above.fingerprint] for above in job.upstream if above.fingerprint in self.failures), None
        )
        if error is None:
            try:
                if self._store.attempt(job) is None:
                    return False
            except Exception as raised:  # whatever a plugin raises must not end the run of the others
                error = _explained(job, raised).kept()
            if error is None:
                self._report(job)
            else:
                self._failed(job, error)
        if error is not None:
            self.failures[job.fingerprint] = error
        return True

    def _failed(self, job: Job, error: XbenchError) -> None:
        """Report the error and free what the job held.

        Networks and plugins' objects are made anew for the others that need them.
        """
        if all(job.fingerprint in {each.fingerprint for each in cell.jobs} for cell in self._plan.cells):
            raise error
        for one in self._with_upstream(job):
            one.forget()
        give_back()
        self._progress.warn(f"failed: {job.kind} {job.label}: {error}")

    def _forget_unused(self, job: Job) -> None:
        for one in self._with_upstream(job):
            self._uses_left[one] -= 1
            if not self._uses_left[one]:
                one.forget()

    def _with_upstream(self, job: Job) -> list[Job]:
        """The job, and all that it is made from, each once."""
        if job not in self._upstream:
            above = [one for each in job.upstream for one in self._with_upstream(each)]
            self._upstream[job] = list(dict.fromkeys([job, *above]))
        return self._upstream[job]

    def _report(self, job: Job) -> None:
        """A line for what took long, a dataset's class counts, and what a trained explainer says of itself."""
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
    """What was raised, as one of ours; with where it came from, until it is kept."""
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
