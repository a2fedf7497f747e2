"""The checks of models pass for good ones and name the fault of bad ones."""

import functools
import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from xbench import DatasetInfo, Model, UserError
from xbench.contracts.model import ModelOptions
from xbench.testing import model_checks
from xbench.testing.fakes import TinyModel, TinyOptions


@pytest.mark.parametrize(
    "options",
    [{}, {"relu": "reused", "batch_norm": True}, {"relu": "functional"}, {"relu": "inplace"}, {"network": "linear"}],
)
def test_tiny_models_pass(failures: Callable[..., dict[str, str]], options: dict[str, Any]) -> None:
    assert failures(model_checks(), lambda: TinyModel(TinyOptions(**options))) == {}


class Bad(Model):
    """A fault of choice around a tiny model."""

    def __init__(self, fault: str) -> None:
        super().__init__(ModelOptions())
        self.fault = fault

    def build(self, info: DatasetInfo) -> nn.Module:
        return BadModule(TinyModel().build(info), self.fault)


class BadModule(nn.Module):
    def __init__(self, inner: nn.Module, fault: str) -> None:
        super().__init__()
        self.inner, self.fault = inner, fault
        self.register_buffer("count", torch.zeros(()))
        if fault == "unseeded":
            self.noise = nn.Parameter(torch.rand(3, generator=torch.Generator().manual_seed(random.getrandbits(60))))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if self.fault == "detached":
            return self.inner(images.detach()) + 0 * next(self.inner.parameters()).sum()
        if self.fault == "overwrites":
            images.sub_(0.5)
        if self.fault == "batch":
            images = images - images.mean(0)
        logits = self.inner(images)
        if self.fault == "dropout":
            logits = nn.functional.dropout(logits)
        if self.fault == "counts":
            self.count += 1  # type: ignore[assignment]
        if self.fault == "infinite":
            logits = logits / 0
        return logits[:, :, None] if self.fault == "shape" else logits


@pytest.mark.parametrize(
    ("fault", "name", "message"),
    [
        ("shape", "logits_plain", "logits of shape (4, 2, 1)"),
        ("infinite", "logits_plain", "NaN or infinity"),
        ("detached", "gradient_reaches_input", "gradient at the images is zero"),
        ("dropout", "deterministic", "different logits"),
        ("counts", "deterministic", "changed count"),
        ("overwrites", "deterministic", "changes the images in place"),
        ("batch", "independent_of_batch", "the other images of the batch"),
        ("unseeded", "reproducible", "noise differs between two builds"),
    ],
)
def test_faults_of_models_are_found(
    failures: Callable[..., dict[str, str]], fault: str, name: str, message: str
) -> None:
    failed = failures(model_checks(), functools.partial(Bad, fault))
    assert message in failed[name]
    assert failures(model_checks(), functools.partial(Bad, "none")) == {}


def test_one_logit_for_three_classes_is_found(failures: Callable[..., dict[str, str]]) -> None:
    failed = failures(model_checks(), lambda: TinyModel(TinyOptions(one_logit=True)))
    assert list(failed) == ["logits_three_channels_odd_size"]


def test_a_model_may_refuse_images_but_not_all(failures: Callable[..., dict[str, str]]) -> None:
    class Picky(TinyModel):
        def build(self, info: DatasetInfo) -> nn.Module:
            if info.channels > self.most:
                raise UserError("too many channels")
            return super().build(info)

    class OneChannel(Picky):
        most = 1

    class NoChannel(Picky):
        most = 0

    assert failures(model_checks(), OneChannel) == {}
    assert "refuses every scenario" in failures(model_checks(), NoChannel)["builds_a_scenario"]
