"""Sort submissions by versions of suites: each version has a page of its own, so no two are ever mixed."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from xbench.leaderboard.records import CUSTOM, Submission, SuiteKey
from xbench.leaderboard.standings import RankedGroup, ranked_groups
from xbench.results.naming import file_name


@dataclass(frozen=True)
class Place:
    """One dataset and classifier.

    Attributes:
        dataset: Name of the dataset.
        model: The classifier.
        groups: The groups that were scored there.
    """

    dataset: str
    model: str
    groups: tuple[RankedGroup, ...]


@dataclass(frozen=True)
class Edition:
    """One version of a suite.

    Attributes:
        suite: Name, version and fingerprint of the suite.
        submissions: Its submissions, in the order they were handed in.
        places: Its datasets and classifiers.
        newest: Stem of the suite's newest version.
    """

    suite: SuiteKey
    submissions: tuple[Submission, ...]
    places: tuple[Place, ...]
    newest: str

    @property
    def stem(self) -> str:
        """Stem of the names of its files."""
        return _stem(self.suite)

    @property
    def is_old(self) -> bool:
        """Whether there is a newer version."""
        return self.stem != self.newest

    @property
    def is_custom(self) -> bool:
        """Whether it is of runs without a suite."""
        return self.suite.name.startswith(CUSTOM)

    @property
    def groups(self) -> list[RankedGroup]:
        """The ranked groups of all places."""
        return [group for place in self.places for group in place.groups]


def editions(submissions: Iterable[Submission]) -> list[Edition]:
    """Sort submissions by the suite's name, newest version first; runs without a suite come last."""
    members: dict[SuiteKey, list[Submission]] = {}
    for submission in sorted(submissions, key=lambda submission: submission.order):
        members.setdefault(submission.suite, []).append(submission)
    newest: dict[str, SuiteKey] = {}
    for suite in sorted(members, key=_age):
        newest[suite.name] = suite
    ordered = sorted(members, key=_age, reverse=True)
    ordered.sort(key=lambda suite: (suite.name.startswith(CUSTOM), suite.name))
    return [
        Edition(suite, tuple(members[suite]), _places(ranked_groups(members[suite])), _stem(newest[suite.name]))
        for suite in ordered
    ]


def _age(suite: SuiteKey) -> list[int]:
    return [int(number) for number in re.findall("[0-9]+", suite.version)]


def _stem(suite: SuiteKey) -> str:
    return file_name(suite.label)


def _places(groups: Sequence[RankedGroup]) -> tuple[Place, ...]:
    """Sort by dataset and classifier. Where most explainers are ranked comes first, since a page opens there."""
    members: dict[tuple[str, str], list[RankedGroup]] = {}
    for group in groups:
        members.setdefault((group.setting.dataset, group.setting.model), []).append(group)
    places = [Place(*names, tuple(of_place)) for names, of_place in members.items()]
    return tuple(sorted(places, key=lambda place: -max(len(group.standings) for group in place.groups)))
