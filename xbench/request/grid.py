"""The same maps under other conventions: which explainers keep their rank, and whose order turns round.

Removal value, score space, sign, blur: papers rarely name them, and rankings hang on them. A grid names the conventions
to try; the maps are made once, and every convention is scored and ranked for itself.
"""

from __future__ import annotations

import itertools
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xbench.comparison.conventions import Conventions
from xbench.errors import UserError
from xbench.registry.entries import Registry
from xbench.registry.references import Choice, choose
from xbench.request.config import RunConfig
from xbench.request.selection import ALL, all_explainers

if TYPE_CHECKING:
    pass

_MAPS = "maps"
_SIGNS = ("original", "absolute")
_COMPANY = 2.0  # the blur of the copies that join every run


@dataclass(frozen=True)
class Grid:
    """What is tried; the first of each list is the convention that the others are held against.

    Attributes:
        metrics: Reference of each metric variant -> its options.
        signs: Of "original" and "absolute".
        blurs: Standard deviations in pixels; 0 for the map as it is.
    """

    metrics: Mapping[str, Mapping[str, Any]]
    signs: tuple[str, ...]
    blurs: tuple[float, ...]

    @property
    def sign(self) -> str:
        """As the run is told."""
        return "both" if len(self.signs) > 1 else self.signs[0]


def resolve(grid: Grid, explainers: Iterable[Choice], registry: Registry) -> Conventions:
    """The grid in labels.

    Raises:
        UserError: The grid names a metric, an option or a value that there is not.
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

        [maps]                          # what is done to maps before
        sign = ["original", "absolute"]
        blur = [0, 2]

    Raises:
        UserError: It can't be read, names no metric, or has something that is not a list.
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
        raise UserError(f"grid {path}, [{_MAPS}]: {', '.join(sorted(unknown))} is unknown", "sign and blur are known")
    wrong = [sign for sign in maps.get("sign", []) if sign not in _SIGNS]
    if wrong:
        raise UserError(f"grid {path}: sign {wrong[0]!r} is wrong", "original or absolute")
    if not tables:
        raise UserError(f"grid {path} names no metric", "a table per metric: [fidelity]")
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
        raise UserError(f"{where}: every entry is a list of values", 'removal = ["mean", "zero"]')
    return table


def _word(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def under_conventions(config: RunConfig, registry: Registry) -> tuple[RunConfig, Conventions | None]:
    """The run of a grid: every variant of its metrics, its signs, and the explainers with their blurred copies.

    Raises:
        UserError: The grid is wrong, or asks for copies of explainers that are not named.
    """
    if config.conventions is None:
        return config, None
    grid = read_grid(config.conventions)
    everyone = ALL in config.explainer
    if everyone and set(grid.blurs) - {0, _COMPANY}:
        hint = f"name the explainers, or blur = [0, {_COMPANY:g}]"
        raise UserError(f"grid {config.conventions}: other blurs than {_COMPANY:g} with --explainer all", hint)
    chosen = all_explainers(registry) if everyone else []
    chosen += [choose("explainer", reference, registry) for reference in config.explainer if reference != ALL]
    conventions = resolve(grid, chosen, registry)
    explainers = config.explainer if everyone else tuple(conventions.explainers)
    changed = {"metric": tuple(conventions.metrics), "sign": grid.sign, "explainer": explainers}
    return config.model_copy(update=changed), conventions
