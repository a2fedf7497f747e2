"""The contract of a model: a torch module from images in [0, 1] to logits."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from xbench.contracts.options import Field, Options

if TYPE_CHECKING:
    import torch
    from torch import nn

    from xbench.contracts.dataset import DatasetInfo, Split
    from xbench.contracts.session import Session


class Schedule(Options):
    """Schedule of a training. Each plugin may set other defaults."""

    epochs: int = Field(100, ge=0, description="maximum number of passes over the training split")
    patience: int = Field(10, ge=1, description="stop after this many epochs without a better validation criterion")
    train_batch: int = Field(32, ge=2, description="training batch size")
    learning_rate: float = Field(1e-3, gt=0, description="learning rate of Adam")
    decay: Literal["none", "cosine", "linear"] = Field(
        "none", description="decay of the learning rate over `epochs`; linear: to 0 in the second half"
    )
    augment: Literal["none", "dihedral"] = Field("none", description="dihedral: random flips and quarter turns")


class ModelOptions(Schedule):
    """Options that every model has. `build` sees them all; the harness loads `weights`."""

    weights: Path | None = Field(None, description="your own trained weights (safetensors); skips the training")


class Model(ABC):
    """A model plugin.

    Authors write `build`. The harness trains the module that it returns (`xbench.compute.training`), unless they also
    write `fit`.

    Args:
        options: Validated options.
        argument: The part of a reference after the name ("resnet18" in `timm:resnet18`), or an empty string.
    """

    options: ModelOptions

    def __init__(self, options: ModelOptions, argument: str = "") -> None:
        self.options = options
        self.argument = argument

    @abstractmethod
    def build(self, info: DatasetInfo) -> nn.Module:
        """Return a new module: float32 (N, C, *spatial) in [0, 1] -> logits (N, K), or (N, 1) for a sigmoid.

        The module normalises the images itself. Initialise it from torch's global generator, which the harness has
        seeded.
        """

    def files(self) -> Sequence[Path]:
        """Return the files of this machine that `build` reads, beside those that options name, such as weights.

        The module is kept under their contents, so that a changed file trains it anew.
        """
        return ()

    def fit(self, module: nn.Module, train: Split, validation: Split, session: Session) -> None:
        """Train `module` in place.

        Without this method the harness trains it with class-weighted cross entropy, Adam and early stopping.
        """
        raise NotImplementedError

    @property
    def fits_itself(self) -> bool:
        """Whether this model has its own training."""
        return type(self).fit is not Model.fit


def class_scores(logits: torch.Tensor) -> torch.Tensor:
    """Return the score S_c of each class for either head (Brocki et al.: S_1 = z, S_0 = -z for one output neuron).

    Args:
        logits: (N, K), or (N, 1).

    Returns:
        (N, K), or (N, 2).
    """
    import torch

    return torch.cat([-logits, logits], dim=1) if logits.shape[1] == 1 else logits


def probabilities(logits: torch.Tensor) -> torch.Tensor:
    """Return class probabilities (N, K): softmax, or sigmoid for one neuron (two-class logits -z/2, z/2)."""
    scores = class_scores(logits)
    return (scores / 2 if logits.shape[1] == 1 else scores).softmax(dim=1)
