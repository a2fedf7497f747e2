"""Options of the models; importable without torch."""

from __future__ import annotations

from typing import Literal

from xbench import Field, ModelOptions


class ConvNetOptions(ModelOptions):
    """Training of the ConvNet: weighted cross entropy with Adam, as in the paper, which leaves the schedule open."""


class TimmOptions(ModelOptions):
    """Training and head of a timm classifier."""

    learning_rate: float = Field(1e-4, gt=0, description="of Adam")
    pretrained: bool = Field(
        False, description="start from timm's pretrained weights; they must be on this machine already"
    )
    logits: Literal["classes", "one"] = Field(
        "classes", description="classes: one logit a class (softmax); one: a single logit (sigmoid), for two classes"
    )
