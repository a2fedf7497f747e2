"""What a plugin is tried on: a tiny dataset and a tiny model of every shape that it will meet."""

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
    """A dataset and an untrained model on it.

    Attributes:
        name: Part of the check's name.
        dataset: Prepared on first use.
        model: Built with a fixed seed.
    """

    name: str
    dataset: Dataset
    model: Model

    def __post_init__(self) -> None:
        self._folder: Path | None = None

    @property
    def info(self) -> DatasetInfo:
        """Of the dataset."""
        return self.dataset.info

    def split(self, name: str) -> Split:
        """One of its splits."""
        if self._folder is None:
            self._folder = folder_of(self)
            self.dataset.prepare(self._folder, Session(self._folder))
        return self.dataset.open(name, self._folder)

    def module(self) -> nn.Module:
        """The model in eval mode, its parameters frozen as the harness freezes them; the same weights every time."""
        with isolated(0, "scenario"):
            return self.model.build(self.info).eval().requires_grad_(False)


def default_scenarios() -> list[Scenario]:
    """One channel, three channels, an odd size; one logit, two, three; ReLU as modules, functional and in place."""
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
    """A new folder that lasts as long as `owner`."""
    folder = tempfile.mkdtemp(prefix="xbench-checks-")
    weakref.finalize(owner, shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


def fresh(subject: Any, kind: Callable[..., Plugin]) -> Plugin:
    """The plugin of class `kind` itself: given as an instance, or made by a factory."""
    contract = cast("type", kind)
    made = subject if isinstance(subject, contract) else subject()
    assert isinstance(made, contract), (
        f"the factory gives a {type(made).__name__}: derive it from xbench.{contract.__name__}"
    )
    return cast("Plugin", made)
