"""Trials of which explainers can explain which models, on random images of one size and kind.

"Works" means more than that `supports` has no objection: maps were made, they are finite, and they are not constant.
How good the maps are is for a run to measure.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from xbench.contracts.dataset import DatasetInfo, Split
from xbench.contracts.explainer import Explainer, MapTransform, undisturbed
from xbench.contracts.model import Model
from xbench.contracts.session import Session
from xbench.errors import XbenchError
from xbench.registry.references import Choice
from xbench.runtime.batching import give_back, out_of_memory
from xbench.runtime.devices import float32, is_out_of_memory
from xbench.runtime.randomness import isolated
from xbench.runtime.seeding import rng

if TYPE_CHECKING:
    import torch
    from torch import nn

_WIDTH = 120  # columns of a line in a generated page
_IMAGES, _TRIES = 2, 4
# Options that make an explainer slow, reduced for a trial. None of them decides whether it works.
_QUICK = {"samples": 24, "masks": 24, "iterations": 2, "steps": 4, "background": 4, "epochs": 1}


@dataclass(frozen=True)
class Verdict:
    """The result of one pair.

    Attributes:
        explainer: Label of the explainer.
        model: Label of the model.
        reason: Why the explainer can't explain the model; empty if it can.
    """

    explainer: str
    model: str
    reason: str = ""

    @property
    def works(self) -> bool:
        """Whether maps were made."""
        return not self.reason


def verdicts(explainers: Sequence[Choice], models: Sequence[Choice], info: DatasetInfo) -> Iterator[Verdict]:
    """Yield the verdict of every pair, model by model.

    Args:
        explainers: Explainers to try, with their defaults but fewer samples.
        models: Models to try, newly initialised and untrained.
        info: Kind and size of the images.

    Raises:
        UserError: There is no such model. A model that can't take these images gives verdicts instead.
    """
    split = _random_images(info)
    for model in models:
        plugin: Model = model.create()
        try:
            modules = [_initialised(plugin, info, seed) for seed in range(_TRIES)]
        except XbenchError as error:
            yield from (Verdict(choice.label, model.label, str(error)) for choice in explainers)
            continue
        for choice in explainers:
            yield Verdict(choice.label, model.label, _reason(choice, modules, info, split))


def _initialised(model: Model, info: DatasetInfo, seed: int) -> nn.Module:
    with isolated(seed, "compatibility"):
        return model.build(info).eval()


def _random_images(info: DatasetInfo) -> Split:
    """Return images of noise with a bright square, so that maps can vary, with the classes in turn."""
    count = 4 * len(info.classes)
    images = rng(0, "compatibility").random((count, info.channels, *info.spatial), dtype=np.float32) / 2
    square: tuple[Any, ...] = (..., *(slice(side // 4, side // 2) for side in info.spatial))
    images[square] += 0.5
    labels = np.arange(count) % len(info.classes)
    names = [str(index) for index in range(count)]
    masks = images[:, 0] > 0.5
    return Split.from_arrays(images, labels, names, names, masks)


def _reason(choice: Choice, modules: Sequence[nn.Module], info: DatasetInfo, split: Split) -> str:
    """Return why the explainer does not work, or an empty string.

    A method that shows only positive evidence may find none in one initialisation. Then the next is tried.
    """
    for module in modules:
        maps = _try(choice, module, info, split)
        if isinstance(maps, str):
            return maps
        flat = maps.flatten(1)
        if bool((flat.amax(1) > flat.amin(1)).any()):
            return ""
    return "its maps are the same everywhere"


def _try(choice: Choice, module: nn.Module, info: DatasetInfo, split: Split) -> torch.Tensor | str:
    """Return maps, or why there are none, and free the memory of a failed trial."""
    try:
        with float32("32"), undisturbed(module):
            return _maps(choice, module, info, split)
    except XbenchError as error:
        reason = str(error)
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        reason = str(out_of_memory(f"maps of {_IMAGES * len(info.classes)} images", error, "smaller images"))
    give_back()
    return reason


def _maps(choice: Choice, module: nn.Module, info: DatasetInfo, split: Split) -> torch.Tensor | str:
    """Return maps of a few images, or why there are none."""
    import torch

    explainer: Explainer = _quick(choice, info).create()
    reason = explainer.supports(module, info)
    if reason:
        return reason
    if explainer.trained:
        _restore(explainer, module, info, split)
    # Every class of every image, because a method that shows only positive scores gives empty maps for some of them.
    classes = len(info.classes)
    batch = split.batch(np.repeat(np.arange(_IMAGES), classes))
    targets = torch.arange(classes).repeat(_IMAGES)
    if choice.inner is not None:
        inner = _maps(choice.inner, module, info, split)
        assert isinstance(explainer, MapTransform)
        return inner if isinstance(inner, str) else explainer.checked_transform(inner, batch, choice.label)
    return explainer.explain(module, batch, targets, choice.label)


def _quick(choice: Choice, info: DatasetInfo) -> Choice:
    """Return the choice with the options that make it slow cut; what a preset would decide (None) is cut, too."""
    limits = {name: limit for name, limit in _QUICK.items() if hasattr(choice.options, name)}
    found = {name: getattr(choice.options, name) for name in limits}
    fewer = {
        name: limit
        for name, limit in limits.items()
        if found[name] is None or (isinstance(found[name], int) and found[name] > limit)
    }
    return Choice(
        choice.entry, choice.argument, choice.options.model_copy(update=fewer | _windows(choice, info)), choice.inner
    )


def _windows(choice: Choice, info: DatasetInfo) -> dict[str, int]:
    """Return the sides of windows that slide by half of themselves: four along an axis, side by side."""
    options = choice.options
    if getattr(options, "stride", 1) is not None or not hasattr(options, "window"):
        return {}
    side = max(min(info.spatial) // 4, options.window or 1)
    return {"window": side, "stride": side}


def _restore(explainer: Explainer, module: nn.Module, info: DatasetInfo, split: Split) -> None:
    with tempfile.TemporaryDirectory(prefix="xbench-compatibility-") as folder:
        explainer.fit(module, split, split, info, Session(Path(folder), batch_size=4))
        explainer.restore(Path(folder), module, info, "cpu")


def markdown(results: Sequence[Verdict], command: str) -> str:
    """Return a page with a table of explainers (rows) and models (columns), and each reason once below it.

    A pair that was tried on several kinds of images works if it works on all of them.

    Args:
        results: The verdicts.
        command: The command that makes this page again.
    """
    models = list(dict.fromkeys(verdict.model for verdict in results))
    rows: dict[str, dict[str, str]] = {}
    for verdict in results:
        cells = rows.setdefault(verdict.explainer, {})
        cells[verdict.model] = cells.get(verdict.model) or verdict.reason
    reasons = dict.fromkeys(reason for cells in rows.values() for reason in cells.values() if reason)
    numbers = {reason: number for number, reason in enumerate(reasons, 1)}
    lines = ["# Which explainer can explain which model", "", "Generated; don't edit:", "", "```"]
    lines += [*_over_lines(command), "```", ""]
    lines += ["| explainer | " + " | ".join(models) + " |", "| --- |" + " :-: |" * len(models)]
    for name, cells in rows.items():
        marks = [f"[{numbers[cells[model]]}]" if cells[model] else "yes" for model in models]
        lines.append(f"| `{name}` | " + " | ".join(marks) + " |")
    lines += ["", *(f"{number}. {reason}" for reason, number in numbers.items())]
    return "\n".join(lines).rstrip() + "\n"


def _over_lines(command: str) -> list[str]:
    """Break a command before options, so that its lines have at most 120 columns; a shell reads them as one."""
    lines = [""]
    for number, part in enumerate(re.split(r" (?=--)", command)):
        if number and len(lines[-1]) + len(part) + len("  \\") > _WIDTH:
            lines[-1] += " \\"
            lines.append(f"    {part}")
        else:
            lines[-1] += f" {part}" if number else part
    return lines
