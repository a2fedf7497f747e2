"""Scenarios to test plugins on: tiny datasets and models of the shapes that plugins meet."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

from xbench.contracts.dataset import Dataset, DatasetInfo, Split
from xbench.contracts.model import Model
from xbench.contracts.session import Session
from xbench.runtime.randomness import isolated
from xbench.testing.fakes import FakeDataset, FakeOptions, TinyModel, TinyOptions

if TYPE_CHECKING:
    from torch import nn

Plugin = TypeVar("Plugin")


@dataclass(eq=False)
class Scenario:
    """A dataset and an untrained model for it.

    Attributes:
        name: Name of the scenario, which is part of the check's name.
        dataset: The dataset. It is prepared on first use.
        model: The model. It is built with a fixed seed.
    """

    name: str
    dataset: Dataset
    model: Model

    def __post_init__(self) -> None:
        self._folder: Path | None = None

    @property
    def info(self) -> DatasetInfo:
        """The dataset's facts."""
        return self.dataset.info

    def split(self, name: str) -> Split:
        """Return one of the dataset's splits."""
        if self._folder is None:
            self._folder = folder_of(self)
            self.dataset.prepare(self._folder, Session(self._folder))
        return self.dataset.open(name, self._folder)

    def module(self) -> nn.Module:
        """Return the model in eval mode, frozen as by the harness, with the same weights every time."""
        with isolated(0, "scenario"):
            return self.model.build(self.info).eval().requires_grad_(False)


def default_scenarios() -> list[Scenario]:
    """Return scenarios of 1 and 3 channels, an odd size, 1 to 3 logits, and ReLU as module, function and in place."""
    return [
        Scenario("plain", FakeDataset(), TinyModel()),
        Scenario(
            "one_logit", FakeDataset(), TinyModel(TinyOptions(one_logit=True, batch_norm=True, relu="functional"))
        ),
        Scenario(
            "three_channels_odd_size",
            FakeDataset(FakeOptions(size=33, width=27, channels=3, classes=3)),
            TinyModel(TinyOptions(relu="inplace")),
        ),
    ]


def folder_of(owner: Any) -> Path:
    """Return a new folder that exists as long as `owner`."""
    folder = tempfile.mkdtemp(prefix="xbench-checks-")
    weakref.finalize(owner, shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


def fresh(subject: Any, kind: Callable[..., Plugin]) -> Plugin:
    """Return the plugin of class `kind`, which is `subject` itself or is created by it."""
    contract = cast("type", kind)
    plugin = subject if isinstance(subject, contract) else subject()
    assert isinstance(plugin, contract), (
        f"the factory gives a {type(plugin).__name__}: derive it from xbench.{contract.__name__}"
    )
    return cast("Plugin", plugin)
