"""The versions of the libraries that a plugin requires."""

from __future__ import annotations

import functools
import importlib.metadata
import importlib.util
import re
from collections.abc import Iterable, Iterator
from importlib.metadata import Distribution

from xbench.runtime.environment import installed_version

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def required_versions(distribution: Distribution) -> dict[str, str | None]:
    """Return the version of each distribution that one requires on this machine; None for one that is not installed.

    What only an extra of it requires is left out.
    """
    from packaging.requirements import Requirement

    wanted = [Requirement(text) for text in distribution.requires or ()]
    here = [one.name for one in wanted if one.marker is None or one.marker.evaluate({"extra": ""})]
    return {canonical(name): installed_version(name) for name in here}


def library_version(module: str, requiring: Distribution | None = None) -> tuple[str, str] | None:
    """Return the name and the version of the distribution that brings a module; None if none does.

    Args:
        module: An import name ("skimage").
        requiring: Who imports it; looked for first among what it requires ("scikit-image"), which is fast.
    """
    top = module.partition(".")[0]
    version = installed_version(top)
    if version is not None:
        return canonical(top), version
    required = [match[0] for text in (requiring.requires or () if requiring else ()) if (match := _NAME.match(text))]
    for name in _candidates(top, required):
        version = installed_version(name)
        if version is not None:
            return canonical(name), version
    return None


def canonical(name: str) -> str:
    """Return the one spelling of a distribution's name."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _candidates(top: str, required: Iterable[str]) -> Iterator[str]:
    yield from _providing(top, required)
    yield from _all_providing().get(top, ())  # not asked for unless nothing was found so far


def _providing(top: str, names: Iterable[str]) -> Iterator[str]:
    """Return those of the distributions that bring a module, without asking those imported by their own name."""
    for name in names:
        if importlib.util.find_spec(re.sub(r"[-.]", "_", name)) is None:
            try:
                distribution = importlib.metadata.distribution(name)
            except importlib.metadata.PackageNotFoundError:
                continue
            if _brings(distribution, top):
                yield name


def _brings(distribution: Distribution, top: str) -> bool:
    if top in (distribution.read_text("top_level.txt") or "").split():
        return True
    return re.search(rf"^{re.escape(top)}[/.]", distribution.read_text("RECORD") or "", re.MULTILINE) is not None


@functools.cache
def _all_providing() -> dict[str, list[str]]:
    """Return the distributions of each import name, for all that is installed. This takes a second or two."""
    return dict(importlib.metadata.packages_distributions())
