"""Table of what is installed, from (kind, name) to the record and the distribution that brought it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from xbench.contracts.specs import Spec
from xbench.errors import PluginError, UserError

BUILT_IN = "xbench"


@dataclass(frozen=True)
class Entry:
    """A record and who brought it.

    Attributes:
        spec: The record.
        distribution: Name of the installed distribution.
        version: Its version.
    """

    spec: Spec
    distribution: str
    version: str

    @property
    def owner(self) -> str:
        """For messages: "explainer mine (my-package 0.2)"."""
        return f"{self.spec.kind} {self.spec.name} ({self.distribution} {self.version})"


@dataclass(frozen=True)
class BrokenPlugin:
    """A plugin, or one item of it, that can't be used.

    Attributes:
        plugin: Entry-point name.
        distribution: Name of the installed distribution.
        reason: One line.
        details: The traceback, or an empty string.
    """

    plugin: str
    distribution: str
    reason: str
    details: str = ""


@dataclass(frozen=True)
class Registry:
    """All usable items by kind and name, the names in dispute, and what is broken."""

    entries: Mapping[tuple[str, str], Entry]
    disputed: Mapping[tuple[str, str], tuple[Entry, ...]] = field(default_factory=dict)
    broken: tuple[BrokenPlugin, ...] = ()

    @classmethod
    def collect(cls, offered: Iterable[Entry], broken: Iterable[BrokenPlugin] = ()) -> Registry:
        """Settle who owns which name.

        A built-in keeps its name against a third party; between third parties nobody gets it. Either way it is
        reported, and everything else works.
        """
        claims: dict[tuple[str, str], list[Entry]] = {}
        for entry in offered:
            claims.setdefault((entry.spec.kind, entry.spec.name), []).append(entry)
        entries, disputed, faults = {}, {}, list(broken)
        for key, claimants in claims.items():
            built_in = [entry for entry in claimants if entry.distribution == BUILT_IN]
            if len(claimants) == 1 or len(built_in) == 1:
                winner = built_in[0] if built_in else claimants[0]
                entries[key] = winner
                faults += [_refused(entry, winner) for entry in claimants if entry is not winner]
            else:
                disputed[key] = tuple(claimants)
                faults += [_refused(entry, claimants[0]) for entry in claimants[1:]]
        return cls(entries, disputed, tuple(faults))

    def names(self, kind: str) -> list[str]:
        """Return all names of a kind, sorted."""
        return sorted(name for found, name in self.entries if found == kind)

    def of_kind(self, kind: str) -> list[Entry]:
        """Return all entries of a kind, in the order of their names."""
        return [self.entries[kind, name] for name in self.names(kind)]

    def get(self, kind: str, name: str) -> Entry:
        """Return the entry of that name.

        Raises:
            UserError: There is none; the hint suggests near names and names plugins that could not be loaded.
            PluginError: Two distributions claim the name.
        """
        if (kind, name) in self.entries:
            return self.entries[kind, name]
        if (kind, name) in self.disputed:
            owners = " and ".join(f"{entry.distribution} {entry.version}" for entry in self.disputed[kind, name])
            raise PluginError(f"{kind} name {name!r} is claimed by {owners}", "uninstall one of them")
        from xbench.contracts.options import suggestion

        hint = suggestion(name, self.names(kind))
        if self.broken:
            hint += "; not loaded: " + ", ".join(f"{fault.plugin} of {fault.distribution}" for fault in self.broken)
        raise UserError(f"there is no {kind} named {name!r}", hint)


def _refused(entry: Entry, winner: Entry) -> BrokenPlugin:
    reason = (
        f"{entry.spec.kind} name {entry.spec.name!r} of {entry.distribution} {entry.version} "
        f"is taken by {winner.distribution} {winner.version}"
    )
    return BrokenPlugin(entry.spec.name, entry.distribution, reason)
