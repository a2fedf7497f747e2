"""Many passes through a model in batches that fit the memory, for path, noise and perturbation explainers."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch import nn

from xbench.compute.scorer import ABSOLUTE_TOLERANCE, RELATIVE_TOLERANCE, Scorer, ScoringRecipe
from xbench.contracts.model import class_scores
from xbench.runtime.batching import Batches
from xbench.runtime.devices import float32

# Limits of the rows of one pass. On a CPU, a batch beyond its caches is slower per image. A GPU should be filled.
_PIXELS_CPU, _ROWS_CPU = 2**19, 64
_PIXELS_GPU, _ROWS_GPU = 2**24, 1024
# Bytes that one operation of a pass with gradients may keep on a CPU. With more, every pass claims memory from the
# system and returns it, which made the passes of a small convolutional network take 2.3 times as long.
_KEPT_CPU = 2**23
_LIGHTER = 2  # a pass that keeps nothing holds this many times more rows
_PROBE = 4
_PAYS = 64  # passes of an image from which making a copy for them alone pays

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class _Promise:
    """An open block of `unchanging`, with everything that is kept until it ends.

    Attributes:
        model: The model that does not change.
        made: Results computed from the model, by purpose.
        fitting: Numbers of rows that fit the memory, by rows in a pass, shape and device.
    """

    model: nn.Module
    made: dict[Hashable, Any] = field(default_factory=dict)
    fitting: dict[Hashable, Batches] = field(default_factory=dict)


# The open blocks, the innermost last. An explainer is handed the model and nothing else, so the promise can't come as
# an argument. It belongs to the block and the thread that gave it, and ends with the block.
_PROMISES: ContextVar[tuple[_Promise, ...]] = ContextVar("promises", default=())


@contextmanager
def unchanging(model: nn.Module) -> Iterator[None]:
    """Promise that the model does not change in the block, so `forward` and `differentiable` make their copy only once.

    Weights, hooks and settings can change unnoticed, so only the owner of the model can promise this. The block also
    remembers how many rows fit the memory. A block inside another one starts with nothing kept.
    """
    opened = _PROMISES.set((*_PROMISES.get(), _Promise(model)))
    try:
        yield
    finally:
        _PROMISES.reset(opened)


def _promise(model: nn.Module) -> _Promise | None:
    """Return the innermost open promise for this model, if there is one."""
    return next((promise for promise in reversed(_PROMISES.get()) if promise.model is model), None)


def _once(model: nn.Module, key: Hashable, make: Callable[[], T]) -> T:
    """Return `make()`, or what it returned before under the promise for this model."""
    promise = _promise(model)
    if promise is None:
        return make()
    if key not in promise.made:
        promise.made[key] = make()
    made: T = promise.made[key]
    return made


def rows_of(images: torch.Tensor) -> int:
    """Return how many images like `images` (N, C, *spatial) one pass should hold."""
    pixels = math.prod(images.shape[1:])
    budget, most = (_PIXELS_CPU, _ROWS_CPU) if images.device.type == "cpu" else (_PIXELS_GPU, _ROWS_GPU)
    return max(1, min(most, budget // pixels))


def gradient_rows(model: nn.Module, images: torch.Tensor) -> int:
    """Return how many images like `images` (N, C, *spatial) one pass with gradients should hold, the same for every N.

    On a CPU, this depends on the bytes per image that the largest operation keeps for the backward pass.
    """
    if images.device.type != "cpu" or rows_of(images) == 1 or not len(images):
        return rows_of(images)
    key = ("rows", tuple(images.shape[1:]))
    return _once(model, key, lambda: _rows_keeping(_watched(model, images[:1])[1], images))


def _rows_keeping(kept: int, images: torch.Tensor) -> int:
    """Return the rows of a pass with gradients whose largest operation keeps `kept` bytes per image."""
    return max(1, min(rows_of(images), _KEPT_CPU // kept))


def _watched(model: nn.Module, images: torch.Tensor) -> tuple[torch.Tensor, int]:
    """Return the logits, and the most bytes per image that an operation keeps for the backward pass."""
    weights = {tensor.untyped_storage().data_ptr() for tensor in itertools.chain(model.parameters(), model.buffers())}
    largest = 1

    def pack(kept: torch.Tensor) -> torch.Tensor:
        nonlocal largest
        if kept.untyped_storage().data_ptr() not in weights:
            largest = max(largest, kept.nbytes // len(images))
        return kept.detach()  # an operation that keeps its own result would otherwise keep itself alive for ever

    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(pack, lambda kept: kept):
        logits = model(images.detach().requires_grad_())
    return logits.detach(), largest


def chunks(count: int, images: torch.Tensor, work: Callable[[int, int], None], rows: int | None = None) -> None:
    """Call `work(start, stop)` for 0 to `count` in chunks of `rows`, halved when the memory runs out.

    Inside `unchanging`, chunks stay halved for later calls with images of this size.

    Args:
        count: Total number of rows.
        images: Images of the size and device of the rows.
        work: Function to call. It must change nothing before the last step that can run out of memory.
        rows: Rows of a chunk; `rows_of(images)` if not given.
    """
    size = rows or rows_of(images)
    batches = Batches(size)
    promises = _PROMISES.get()
    if promises:
        batches = promises[-1].fitting.setdefault((size, tuple(images.shape[1:]), images.device), batches)
    for _ in batches.results(count, work):
        pass


def target_scores(model: nn.Module, images: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Return the class score S_c of each image's target: (N, C, *spatial), int64 (N,) -> (N,)."""
    return class_scores(model(images)).gather(1, targets[:, None]).squeeze(1)


def gradients(model: nn.Module, images: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Return dS_c/dx of each image: (N, C, *spatial), zero for a model that does not read its input."""
    with torch.enable_grad():
        images = images.detach().requires_grad_()
        score = target_scores(model, images, targets).sum()
        if not score.requires_grad:
            return torch.zeros_like(images)
        return torch.autograd.grad(score, images, allow_unused=True, materialize_grads=True)[0]


def mean_over_samples(
    images: torch.Tensor,
    count: int,
    sample: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    rows: int | None = None,
) -> torch.Tensor:
    """Return the mean of `sample` over `count` samples of each image, in passes of at most `rows` rows.

    Args:
        images: (N, C, *spatial).
        count: Number of samples per image.
        sample: Function from int64 (R,) indices of images and int64 (R,) numbers of samples to (R, ...), the samples of
            these rows. It is called with sample 0 of an image before its others.
        rows: Largest R. Give `gradient_rows` for passes with gradients; `rows_of(images)` if not given.

    Returns:
        (N, ...).
    """
    total: list[torch.Tensor] = []

    def work(start: int, stop: int) -> None:
        numbers = torch.arange(start, stop, device=images.device)
        which = numbers // count
        values = sample(which, numbers % count)
        if not total:
            total.append(values.new_zeros((len(images), *values.shape[1:])))
        total[0].index_add_(0, which, values)

    chunks(len(images) * count, images, work, rows)
    return total[0] / count


def forward(model: nn.Module, images: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return a function for class scores without gradients. It uses a faster copy of the model with the same logits.

    Batch norms are folded and the layout is channels-last if a trial on a few images gives the model's own logits
    (`xbench.compute.scorer` says how closely).

    Args:
        model: Module from (N, C, *spatial) to (N, K), in eval mode. It is not changed.
        images: (N, C, *spatial), on the model's device. The trial uses the first few.

    Returns:
        Function from images (R, C, *spatial) to class scores (R, K), for any R.
    """
    scorer = _equivalent(model, images)
    return lambda rows: class_scores(scorer(rows))


def differentiable(model: nn.Module, images: torch.Tensor, passes: int) -> nn.Module:
    """Return the model for passes with gradients to the image: the copy that `forward` uses, or the model itself.

    A copy gives the model's gradients up to rounding. (At a kink of the network, such as a ReLU's zero, rounding
    decides on which side an image is.) A copy is made where it pays: once inside `unchanging`, otherwise only for many
    passes.

    Args:
        model: Module from (N, C, *spatial) to (N, K), in eval mode, frozen. It is not changed.
        images: (N, C, *spatial), on the model's device. The trial uses the first few.
        passes: Number of images that will go through the model.

    Returns:
        Module from images (R, C, *spatial) to logits (R, K). Do not change it.
    """
    if _promise(model) is None and passes < _PAYS:
        return model
    return _equivalent(model, images).network


def _equivalent(model: nn.Module, images: torch.Tensor) -> Scorer:
    key = ("scorer", tuple(images.shape[1:]), images.device)
    return _once(model, key, lambda: _make_equivalent(model, images))


@float32("32")  # copies are compared in true float32, whatever the precision of the passes
def _make_equivalent(model: nn.Module, images: torch.Tensor) -> Scorer:
    probe, rows = images[:_PROBE], rows_of(images)
    if images.device.type == "cpu":
        logits, kept = _watched(model, probe)
        rows = min(rows, _LIGHTER * _rows_keeping(kept, images))
    else:
        with torch.no_grad():
            logits = model(probe)
    layouts = (True, False) if images.ndim == 4 else (False,)
    tolerance = ABSOLUTE_TOLERANCE + RELATIVE_TOLERANCE * float(logits.abs().max())
    for folded, channels_last in [*itertools.product((True,), layouts), (False, False)]:
        recipe = ScoringRecipe(rows, folded, channels_last, "32", 0.0, 0.0)
        scorer = Scorer(model, recipe, str(images.device))
        if float((scorer(probe) - logits).abs().max()) <= tolerance:
            break
    return scorer
