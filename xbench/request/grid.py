"""Grids of conventions, which show which explainers keep their rank when the conventions change.

Papers rarely name the removal value, the score space, the sign and the blur, but rankings depend on them. A grid names
the conventions to try. The maps are made once, and scored and ranked under each convention.
"""

from __future__ import annotations

import itertools
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xbench.comparison.conventions import Conventions
from xbench.errors import UserError
from xbench.registry.entries import Registry
from xbench.registry.references import Choice, choose
from xbench.request.config import RunConfig
from xbench.request.selection import ALL, all_explainers

_MAPS = "maps"
_SIGNS = ("original", "absolute")
_JOINING_BLUR = 2.0  # the blur of the copies that are added to every run


@dataclass(frozen=True)
class Grid:
    """The conventions to try. The others are compared with the first of each list.

    Attributes:
        metrics: Reference of each variant of a metric -> its options.
        signs: Signs of the maps: "original", "absolute" or both.
        blurs: Standard deviations of the blur in pixels; 0 for the unchanged map.
    """

    metrics: Mapping[str, Mapping[str, Any]]
    signs: tuple[str, ...]
    blurs: tuple[float, ...]

    @property
    def sign(self) -> str:
        """The run's option `sign`."""
        return "both" if len(self.signs) > 1 else self.signs[0]


def resolve(grid: Grid, explainers: Iterable[Choice], registry: Registry) -> Conventions:
    """Return the grid in labels.

    Raises:
        UserError: The grid names a metric, an option or a value that does not exist.
    """
    metrics = {choose("metric", reference, registry).label: options for reference, options in grid.metrics.items()}
    labels: dict[str, tuple[str, float]] = {}
    for choice, blur in itertools.product(list(explainers), grid.blurs):
        label = choice.label
        copy = label if blur == 0 else choose("explainer", f"blurred:sigma={blur:g}:{label}", registry).label
        labels[copy] = (label, blur)
    return Conventions(metrics, labels, grid.signs)


def read_grid(path: Path) -> Grid:
    """Read a grid:

        [fidelity]                      # a metric: lists of values for its options
        removal = ["mean", "zero"]
        score = ["accuracy", "logit"]

        [maps]                          # changes of the maps before scoring
        sign = ["original", "absolute"]
        blur = [0, 2]

    Raises:
        UserError: The grid can't be read, names no metric, or has an entry that is not a list.
    """  # noqa: D415
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"grid {path} does not exist") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UserError(f"grid {path} can't be read: {error}") from None
    maps = _lists(tables.pop(_MAPS, {}), f"grid {path}, [{_MAPS}]")
    unknown = set(maps) - {"sign", "blur"}
    if unknown:
        raise UserError(f"grid {path}, [{_MAPS}]: {', '.join(sorted(unknown))} is unknown", "known: sign, blur")
    wrong = [sign for sign in maps.get("sign", []) if sign not in _SIGNS]
    if wrong:
        raise UserError(f"grid {path}: sign {wrong[0]!r} is wrong", "allowed: original, absolute")
    if not tables:
        raise UserError(f"grid {path} names no metric", "add a table for each metric, such as [fidelity]")
    metrics: dict[str, Mapping[str, Any]] = {}
    for name, table in tables.items():
        options = _lists(table, f"grid {path}, [{name}]")
        for values in itertools.product(*options.values()):
            chosen = dict(zip(options, values, strict=True))
            words = ",".join(f"{key}={_word(value)}" for key, value in chosen.items())
            metrics[f"{name}:{words}" if words else name] = chosen
    return Grid(metrics, tuple(maps.get("sign", ["original"])), tuple(maps.get("blur", [0])))


def _lists(table: Any, where: str) -> dict[str, list[Any]]:
    if not isinstance(table, dict) or not all(isinstance(values, list) and values for values in table.values()):
        raise UserError(f"{where}: every entry must be a list of values", 'removal = ["mean", "zero"]')
    return table


def _word(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def under_conventions(config: RunConfig, registry: Registry) -> tuple[RunConfig, Conventions | None]:
    """Return the run of a grid: all variants of its metrics, its signs, and the explainers with their blurred copies.

    Raises:
        UserError: The grid is wrong, or has blurs for which the explainers must be named.
    """
    if config.conventions is None:
        return config, None
    grid = read_grid(config.conventions)
    everyone = ALL in config.explainer
    if everyone and set(grid.blurs) - {0, _JOINING_BLUR}:
        hint = f"name the explainers, or use blur = [0, {_JOINING_BLUR:g}]"
        message = f"blurs other than {_JOINING_BLUR:g} can't be used with --explainer all"
        raise UserError(f"grid {config.conventions}: {message}", hint)
    chosen = all_explainers(registry) if everyone else []
    chosen += [choose("explainer", reference, registry) for reference in config.explainer if reference != ALL]
    conventions = resolve(grid, chosen, registry)
    explainers = config.explainer if everyone else tuple(conventions.explainers)
    changed = {"metric": tuple(conventions.metrics), "sign": grid.sign, "explainer": explainers}
    return config.model_copy(update=changed), conventions
