"""What is made by whom, where several work in one cache."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from xbench import ArtifactError, Session
from xbench.contracts.session import Progress, SilentProgress
from xbench.jobs.store import Manifest, Store
from xbench.provenance import digest
from xbench.run.build import make_artifacts


class Job:
    """Writes its name into a file, and into the list `made`."""

    kind = "toy"

    def __init__(self, store: Store, made: list[str], label: str, *upstream: Job, fails: bool = False) -> None:
        self.store, self.made, self.label, self.upstream, self.fails = store, made, label, upstream, fails
        self.fingerprint = digest(self.recipe())
        self.forgotten = 0

    def recipe(self) -> dict[str, Any]:
        return {"label": self.label}

    def session(self, folder: Path, progress: Progress) -> Session:
        return Session(folder, progress=progress)

    def forget(self) -> None:
        self.forgotten += 1

    def build(self, session: Session) -> None:
        if self.fails:
            raise ValueError("no such luck")
        self.made.append(self.label)
        (session.folder / "name").write_text(self.label)

    @property
    def manifest(self) -> Manifest:
        return self.store.ensure(self)

    @property
    def facts(self) -> Mapping[str, Any]:
        return self.manifest.facts


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "cache", SilentProgress())


def plan_of(*jobs: Job) -> Any:
    """A cell for each job that is nobody's upstream."""
    below = {id(one) for job in jobs for one in job.upstream}
    cells = [SimpleNamespace(observations=job, jobs=[*job.upstream, job]) for job in jobs if id(job) not in below]
    return SimpleNamespace(jobs=list(jobs), cells=cells)


def test_what_another_process_makes_is_passed_over_and_awaited(store: Store) -> None:
    made = []
    first, other = Job(store, made, "first"), Job(store, made, "other")
    after = Job(store, made, "after first", first)
    elsewhere = Store(store.root)
    begun, let_go = threading.Event(), threading.Event()

    def hold() -> None:
        with elsewhere._lock(first):
            begun.set()
            let_go.wait(30)
            elsewhere._make(first)

    holder = threading.Thread(target=hold)
    holder.start()
    begun.wait(30)
    notes = []

    class Watching(SilentProgress):
        def task(self, label: str, total: float | None = None) -> Any:
            return Noting()

    class Noting:
        def __enter__(self) -> Noting:
            return self

        def __exit__(self, *error: object) -> None:
            pass

        def advance(self, amount: float = 1) -> None:
            pass

        def note(self, text: str) -> None:
            notes.append((text, tuple(made)))
            if text.startswith("waiting"):
                let_go.set()

    assert make_artifacts(plan_of(first, after, other), store, Watching()) == {}
    holder.join()
    assert made == ["other", "first", "after first"]
    waited = [seen for text, seen in notes if text == "waiting for another process: toy first"]
    assert waited
    assert waited[0] == ("other",)
    assert store.progress.warnings == []


def test_the_order_is_that_of_the_plan_where_nobody_else_works(store: Store) -> None:
    made = []
    jobs = [Job(store, made, name) for name in ("c", "a", "b")]
    make_artifacts(plan_of(*jobs, Job(store, made, "end", *jobs)), store, SilentProgress())
    assert made == ["c", "a", "b", "end"]


def test_what_fails_takes_with_it_what_is_made_of_it_and_nothing_else(store: Store) -> None:
    made = []
    bad, good = Job(store, made, "bad", fails=True), Job(store, made, "good")
    lost = Job(store, made, "lost", bad)
    progress = SilentProgress()
    failures = make_artifacts(plan_of(bad, lost, good), store, progress)
    assert made == ["good"]
    assert set(failures) == {bad.fingerprint, lost.fingerprint}
    assert "ValueError: no such luck" in str(failures[lost.fingerprint])
    assert sum("no such luck" in text for text in progress.warnings) == 1
    for error in failures.values():  # frames would keep what was at work in them
        assert error.__traceback__ is error.__cause__ is error.__context__ is None
        assert 'raise ValueError("no such luck")' in "".join(error.__notes__)
    assert bad.forgotten


def test_what_nothing_is_made_with_any_more_is_forgotten_at_once(store: Store) -> None:
    made, left = [], []

    class Looking(Job):
        def build(self, session: Session) -> None:
            left.append((self.label, first.forgotten, second.forgotten))
            super().build(session)

    first, second = Job(store, made, "first"), Job(store, made, "second")
    a, b, c = (
        Looking(store, made, "a", first),
        Looking(store, made, "b", first, second),
        Looking(store, made, "c", second),
    )
    make_artifacts(plan_of(first, second, a, b, c), store, SilentProgress())
    assert left == [("a", 0, 0), ("b", 0, 0), ("c", 1, 0)]
    assert second.forgotten == 1


def test_what_all_need_ends_the_run(store: Store) -> None:
    made = []
    bad = Job(store, made, "bad", fails=True)
    with pytest.raises(Exception, match="no such luck"):
        make_artifacts(
            plan_of(bad, Job(store, made, "one", bad), Job(store, made, "two", bad)), store, SilentProgress()
        )
    assert made == []


def test_a_lock_of_this_very_process_is_no_other_process(store: Store) -> None:
    job = Job(store, [], "mine")
    with store._lock(job):
        assert store.attempt(job) is not None


def test_an_attempt_on_a_cache_that_can_not_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    store = Store(tmp_path / "file")
    with pytest.raises(ArtifactError, match="can't make the toy of x"):
        store.attempt(Job(store, [], "x"))
