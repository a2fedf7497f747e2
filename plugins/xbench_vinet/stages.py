"""Stages of a classifier at which features are destroyed. They are found by running it, for any classifier."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from xbench import UserError


@dataclass(frozen=True)
class Stage:
    """A module of a classifier after which features are destroyed.

    Attributes:
        module: Name of the module in the classifier.
        reduction: Pixels of the image per pixel of the output, along an axis.
        channels_last: Whether the output is (N, H, W, C).
    """

    module: str
    reduction: int
    channels_last: bool = False


def find_stages(
    classifier: nn.Module, image_shape: Sequence[int], placement: str, max_reduction: int | None
) -> tuple[Stage, ...]:
    """Return the stages of `classifier`, in the order in which an image passes them.

    Args:
        classifier: Module from images (N, C, H, W) to logits. It is left as it was.
        image_shape: Shape of an image, (C, H, W).
        placement: "stage_end" for the features just before the next down-sampling, as in the authors' code, which timm
            declares in `feature_info`; or "after_downsampling" for the output of each pooling or strided module, as in
            the paper's text, for any classifier.
        max_reduction: Largest reduction of a stage, or None for no limit.

    Raises:
        UserError: `placement` is "stage_end" and the classifier declares no stages, or it can't take such an image.
    """
    trace = _trace(classifier, image_shape)
    stages = _declared(classifier, trace) if placement == "stage_end" else list(_transitions(trace))
    limit = max(image_shape[1:]) if max_reduction is None else max_reduction
    return tuple(stage for stage in stages if 1 < stage.reduction <= limit)


@dataclass
class _Call:
    """One call of a module in the trial pass, with the shapes of its first input and its output if they are images."""

    name: str
    before: tuple[int, ...] | None
    after: tuple[int, ...] | None = None


@dataclass
class _Trace:
    image: tuple[int, ...]
    calls: list[_Call] = field(default_factory=list)  # in the order in which the modules finish


def _trace(classifier: nn.Module, image_shape: Sequence[int]) -> _Trace:
    trace = _Trace(tuple(image_shape))
    probe = next(classifier.parameters(), torch.empty(0))
    image = torch.zeros(1, *image_shape, device=probe.device)
    try:
        with _recording(classifier, trace), torch.no_grad():
            classifier(image)
    except Exception as error:
        shape = " x ".join(map(str, image_shape))
        raise UserError(
            f"the classifier {type(classifier).__name__} can't take images of {shape}: {error}",
            "choose a convolutional classifier, or other image sizes",
        ) from error
    return trace


@contextmanager
def _recording(classifier: nn.Module, trace: _Trace) -> Iterator[None]:
    modes = [(module, module.training) for module in classifier.modules()]
    handles: list[Any] = []
    open_calls: list[_Call] = []

    def enter(name: str) -> Any:
        def hook(module: nn.Module, inputs: Any) -> None:
            del module
            open_calls.append(_Call(name, _image_shape(inputs[0] if inputs else None)))

        return hook

    def leave(module: nn.Module, inputs: Any, output: Any) -> None:
        del module, inputs
        call = open_calls.pop()
        call.after = _image_shape(output)
        trace.calls.append(call)

    classifier.eval()
    try:
        for name, module in classifier.named_modules():
            if name:
                handles += [module.register_forward_pre_hook(enter(name)), module.register_forward_hook(leave)]
        yield
    finally:
        for handle in handles:
            handle.remove()
        for module, mode in modes:
            module.training = mode


def _image_shape(value: Any) -> tuple[int, ...] | None:
    return tuple(value.shape) if isinstance(value, torch.Tensor) and value.ndim == 4 else None


def _declared(classifier: nn.Module, trace: _Trace) -> list[Stage]:
    declared = getattr(classifier, "feature_info", None) or ()
    rows = declared.get_dicts() if hasattr(declared, "get_dicts") else declared
    outputs = {call.name: call.after for call in trace.calls}
    stages = []
    for row in rows:
        name, reduction = row["module"], int(row["reduction"])
        channels_last = _layout(outputs.get(name), trace.image, reduction)
        if channels_last is not None:
            stages.append(Stage(name, reduction, channels_last))
    if not stages:
        raise UserError(
            f"the classifier {type(classifier).__name__} declares no image-like stages (timm's feature_info)",
            "set placement=after_downsampling",
        )
    return stages


def _layout(output: tuple[int, ...] | None, image: tuple[int, ...], reduction: int) -> bool | None:
    """Return whether an output of this reduction is channels-last, or None if it is not an image (such as tokens)."""
    if output is None:
        return None
    expected = tuple(round(side / reduction) for side in image[1:])
    for channels_last, sides in ((False, output[2:]), (True, output[1:3])):
        # Convolutions without padding lose a pixel or two on the way.
        if all(abs(side - wanted) <= max(2, wanted // 8) for side, wanted in zip(sides, expected, strict=True)):
            return channels_last
    return None


def _transitions(trace: _Trace) -> Iterator[Stage]:
    """Yield the outermost modules that span exactly one down-sampling.

    Inside a residual stage, both the strided convolution and the shortcut beside it shrink the image. Destroying one of
    the two branches would leave the other intact. So of nested modules with the same transition, the outermost is
    taken.
    """
    steps: dict[str, _Step] = {}
    for call in trace.calls:
        step = _step(call, trace.image)
        if step is not None:
            steps.setdefault(call.name, step)
    single = {name: step for name, step in steps.items() if not _spans_several(name, steps)}
    for name, (*_, reduction, channels_last) in single.items():
        if not any(name.startswith(other + ".") for other in single):
            yield Stage(name, reduction, channels_last)


_Step = tuple[tuple[int, ...], tuple[int, ...], int, bool]


def _step(call: _Call, image: tuple[int, ...]) -> _Step | None:
    """Return how a call changes the image's sides, (before, after, reduction, channels-last), or None if not."""
    if call.before is None or call.after is None:
        return None
    for channels_last, sides in ((False, slice(2, 4)), (True, slice(1, 3))):
        before, after = call.before[sides], call.after[sides]
        # A convolution without padding trims the image but does not scale it down. A global pooling, such as that of a
        # squeeze-and-excitation gate, leaves nothing to destroy.
        if all(2 * b >= 3 * a for a, b in zip(after, before, strict=True)) and max(after) > 1:
            return before, after, round(image[1] / after[0]), channels_last
    return None


def _spans_several(name: str, steps: dict[str, _Step]) -> bool:
    own = steps[name][:2]
    return any(steps[inner][:2] != own for inner in steps if inner.startswith(name + "."))
