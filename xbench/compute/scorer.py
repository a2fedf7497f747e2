"""Scorers: forward passes on the fastest equivalent copy of a module, in batches that suit the machine."""

from __future__ import annotations

import copy
import functools
import math
import time
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from xbench.compute.folding import fold_batch_norms
from xbench.errors import PluginError, UserError
from xbench.runtime.batching import Batches, give_back
from xbench.runtime.devices import autocast, float32, is_out_of_memory, rounds_products, upload
from xbench.runtime.precision import PRECISIONS
from xbench.runtime.randomness import isolated

_PROBE = 8  # images on which a copy is compared with the original
_SIZES_CPU = (4, 8, 16, 32, 64, 128, 256)  # small batches fit a CPU's caches; a GPU should be filled
_SIZES_GPU = (16, 32, 64, 128, 256, 512, 1024)
_MARGIN = 1.03  # a smaller batch is preferred if it is at most this factor slower, and so is channels-last
_HOPELESS = 1.25  # a batch slower than the best by this factor is not timed again
_ROUNDS = 3  # candidates are timed in turn in each round, so that a busy moment of the machine affects all
_PASSES = (2, 10)  # least and most passes of a timing, which is the shortest of them
_MOMENT = 0.03  # seconds that the passes beyond the least may take
_BUDGET = 2.0  # seconds for timing layouts, and again for timing batches; each layout is timed at least once

# A copy is accepted if no logit differs from the original's in float32 by more than
#     1e-6 + 1e-5 x the largest logit of the probe.
# The original's own rounding, measured against float64, is 3e-7 to 6e-6 of its largest logit (22 timm
# architectures), and a copy need not be better. A wrongly folded layer is off by 1e-3 or more.
ABSOLUTE_TOLERANCE, RELATIVE_TOLERANCE = 1e-6, 1e-5


@dataclass(frozen=True)
class ScoringRecipe:
    """The choices of `calibrate` for scoring a module. `ScoringRecipe(**dataclasses.asdict(recipe))` restores them.

    Attributes:
        batch_size: Images in one forward pass.
        folded: Whether batch norms are folded into the layers before them.
        channels_last: Whether the channel is the fastest axis of weights and images in memory.
        precision: "32", "tf32", "bf16" or "16". The scorer sets the autocast of the forward pass. The caller sets
            torch's switches of float32 (`xbench.runtime.devices.float32`).
        max_difference: Largest absolute difference between a logit at this precision and the original's in float32.
        milliseconds: Time per image at `batch_size`, in milliseconds.
    """

    batch_size: int
    folded: bool
    channels_last: bool
    precision: str
    max_difference: float
    milliseconds: float


class Scorer:
    """The logits of a module, mostly without gradients. They are computed by a copy; the module is not run or changed.

    Forward hooks are copied with the module, because they may be part of its computation.

    Args:
        module: float32 (N, C, *spatial) -> (N, K).
        recipe: Recipe from `calibrate`, for this module on this kind of device.
        device: Device for the copy: "cpu", "cuda", "cuda:1".
    """

    def __init__(self, module: nn.Module, recipe: ScoringRecipe, device: str) -> None:
        self._batches = Batches(recipe.batch_size)
        self._copy = _Copy(module, recipe.folded, device)
        self._copy.lay_out(recipe.channels_last)
        self._precision = recipe.precision

    @property
    def batch_size(self) -> int:
        """Images in one forward pass: the recipe's number, or fewer if those did not fit the memory."""
        return self._batches.size

    @property
    def network(self) -> nn.Module:
        """The copy, frozen and in eval mode, for passes with gradients to the images. Do not change it."""
        return self._copy.module

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """Return the logits of images on the device: float32 (n, C, *spatial) -> float32 (n, K).

        Any n is cut into batches, which are halved, and stay so, when the device runs out of memory.
        """
        if len(images) == 0:
            return self(images.new_zeros((1, *images.shape[1:])))[:0]
        logits = [part for _, part in self._batches.results(len(images), functools.partial(self._logits, images))]
        return logits[0] if len(logits) == 1 else torch.cat(logits)

    def _logits(self, images: torch.Tensor, start: int, stop: int) -> torch.Tensor:
        return self._copy.logits(images[start:stop], self._precision)


def calibrate(
    module: nn.Module, images: torch.Tensor, device: str, precision: str, batch_size: int | None = None
) -> ScoringRecipe:
    """Find the fastest copy of a module that gives the same logits, and its fastest batch size.

    Folded copies are tried first, then a plain copy. Each is tried contiguous, and for 2-D images also channels-last. A
    copy that fails or gives other logits is skipped.

    Args:
        module: Module from float32 (N, C, *spatial) to (N, K). It is not changed.
        images: A few images of the dataset, float32 (n, C, *spatial), on the CPU.
        device: Device to score on.
        precision: "32", "tf32", "bf16" or "16".
        batch_size: Batch size to keep; only the copy is chosen then. By default the fastest is found.

    Raises:
        UserError: The precision is unknown, or the device computes in less than float32 although told not to.
        PluginError: The module itself can't be copied or run on the images, or changes them.
    """
    if precision not in PRECISIONS:
        raise UserError(f"precision {precision!r} is not known", "one of " + ", ".join(PRECISIONS))
    _check_float32(device, precision)
    probe = upload(images[:_PROBE].clone(), device)
    # With fixed seeds, a module that draws noise draws the same for every copy.
    with float32(precision), isolated(0, "calibration"):
        plain = _Copy(module, False, device)
        try:
            reference = plain.exact_logits(probe)
            plain.logits(probe[:1], precision)
        except Exception as error:
            if is_out_of_memory(error):
                raise
            what = f"images {tuple(probe.shape)} at precision {precision}"
            raise PluginError(f"the model can't be run on {what}: {type(error).__name__}: {error}") from error
        if not torch.equal(probe.cpu(), images[:_PROBE]):
            raise PluginError(
                "the model changes the images it is given, in place, so every later pass would see changed images",
                "write x = x - mean instead of x -= mean or x.sub_(mean)",
            )
        chosen, channels_last = _fastest_copy(module, plain, probe, reference, precision)
        if batch_size is None:
            batch_size, seconds = _fastest_batch(chosen, images, precision)
        else:
            batch_size, seconds = _fitting_batch(chosen, images, precision, batch_size)
        with isolated(0, "calibration"):
            difference = _largest_difference(chosen.logits(probe, precision), reference)
    return ScoringRecipe(batch_size, chosen.folded, channels_last, precision, difference, 1000 * seconds / batch_size)


def _check_float32(device: str, precision: str) -> None:
    with float32(precision):
        if precision == "32" and rounds_products(device):
            raise UserError(
                f"{device} rounds float32 to shorter mantissas (TF32) although torch's switches forbid it",
                "is NVIDIA_TF32_OVERRIDE set? unset it, or say --precision tf32",
            )


class _Copy:
    """A frozen copy of a module in eval mode on a device, in one memory layout."""

    def __init__(self, module: nn.Module, folded: bool, device: str) -> None:
        try:
            self.module = copy.deepcopy(module).eval().requires_grad_(False)
        except Exception as error:
            raise PluginError(f"the model can't be copied: {type(error).__name__}: {error}") from error
        self.folded = folded and fold_batch_norms(self.module) > 0
        self.module.to(device)
        self.device = torch.device(device)
        self._format = torch.contiguous_format

    def lay_out(self, channels_last: bool) -> None:
        """Set the memory format of the weights and of later images."""
        self._format = torch.channels_last if channels_last else torch.contiguous_format
        self.module.to(memory_format=self._format)

    @torch.inference_mode()
    def logits(self, images: torch.Tensor, precision: str) -> torch.Tensor:
        """Return the logits, float32 (N, K), of images (N, C, *spatial)."""
        with autocast(precision, self.device):
            logits: torch.Tensor = self.module(images.contiguous(memory_format=self._format))
        return logits.float()

    def exact_logits(self, images: torch.Tensor) -> torch.Tensor:
        """Return the logits in true float32, whatever the precision of the scores."""
        with float32("32"):
            return self.logits(images, "32")


def _fastest_copy(
    module: nn.Module, plain: _Copy, probe: torch.Tensor, reference: torch.Tensor, precision: str
) -> tuple[_Copy, bool]:
    """Return the folded copy if it gives the original's logits, else the plain one, in its fastest layout."""
    layouts = (True, False) if probe.ndim == 4 else (False,)
    for candidate in (*_folded_copy(module, probe.device), plain):
        equal = [layout for layout in layouts if _is_equal(candidate, layout, probe, reference)]
        best = dict.fromkeys(equal, math.inf)
        deadline = time.perf_counter() + _BUDGET
        for layout in equal * (_ROUNDS if len(equal) > 1 else 0):
            if math.isinf(best[layout]) or time.perf_counter() < deadline:
                candidate.lay_out(layout)
                best[layout] = min(best[layout], _seconds(candidate, probe, precision))
        if equal:
            channels_last = min(equal, key=lambda layout: best[layout] * (1 if layout else _MARGIN))
            candidate.lay_out(channels_last)
            return candidate, channels_last
    plain.lay_out(False)  # it does not even repeat its own logits: it draws noise somewhere, or changes as it runs
    return plain, False


def _folded_copy(module: nn.Module, device: torch.device) -> list[_Copy]:
    """Return the folded copy in a list, or an empty list if nothing can be folded."""
    try:
        folded = _Copy(module, True, str(device))
    except Exception as error:
        if is_out_of_memory(error):
            raise
        return []
    return [folded] if folded.folded else []


def _is_equal(candidate: _Copy, channels_last: bool, probe: torch.Tensor, reference: torch.Tensor) -> bool:
    """Return whether the candidate runs in this layout and gives the reference's logits."""
    try:
        candidate.lay_out(channels_last)
        with isolated(0, "calibration"):
            logits = candidate.exact_logits(probe)
    except Exception as error:
        if is_out_of_memory(error):
            raise
        return False
    tolerance = ABSOLUTE_TOLERANCE + RELATIVE_TOLERANCE * float(reference.abs().max())
    return logits.shape == reference.shape and _largest_difference(logits, reference) <= tolerance


def _largest_difference(logits: torch.Tensor, reference: torch.Tensor) -> float:
    return float((logits - reference).abs().max())


def _fastest_batch(candidate: _Copy, images: torch.Tensor, precision: str) -> tuple[int, float]:
    """Return the batch size with the least time per image, and the seconds of one batch (best of several passes)."""
    deadline = time.perf_counter() + _BUDGET
    best: dict[int, float] = {}

    def affordable(size: int) -> bool:
        return not best or time.perf_counter() + _PASSES[0] * size * _least(best) < deadline

    def timed(size: int) -> float:
        """Return the seconds of one batch, or infinity if it does not fit the memory but a smaller one did."""
        try:
            return _seconds(candidate, _tiled(images, size, candidate.device), precision)
        except Exception as error:
            if not best or not is_out_of_memory(error):
                raise
        give_back()  # outside of the except block, in which the frames of the failed call live on
        return math.inf

    for size in _SIZES_CPU if candidate.device.type == "cpu" else _SIZES_GPU:
        if not affordable(size) or (_hopeless(best, size // 2) and _hopeless(best, size // 4)):
            break
        took = timed(size)
        if math.isinf(took):
            break
        best[size] = took
    for size in [size for _ in range(_ROUNDS) for size in best]:
        if affordable(size) and not _hopeless(best, size):
            best[size] = min(best[size], timed(size))
    least = _least(best)
    chosen = min(size for size, seconds in best.items() if seconds / size <= _MARGIN * least)
    return chosen, best[chosen]


def _fitting_batch(candidate: _Copy, images: torch.Tensor, precision: str, wanted: int) -> tuple[int, float]:
    """Return the wanted batch size, halved until it fits the memory, and the seconds of one batch."""
    batches = Batches(wanted)

    def timed(start: int, stop: int) -> float:
        return _seconds(candidate, _tiled(images, stop - start, candidate.device), precision)

    rows, seconds = next(batches.results(wanted, timed))
    return rows.stop, seconds


def _least(best: dict[int, float]) -> float:
    return min(seconds / size for size, seconds in best.items())


def _hopeless(best: dict[int, float], size: int) -> bool:
    return size in best and best[size] / size > _HOPELESS * _least(best)


def _tiled(images: torch.Tensor, size: int, device: torch.device) -> torch.Tensor:
    return upload(images[torch.arange(size) % len(images)], device)


def _seconds(candidate: _Copy, images: torch.Tensor, precision: str) -> float:
    """Return the seconds of the shortest of several forward passes, each timed until the device is done."""
    timed = _seconds_on_cuda if candidate.device.type == "cuda" else _seconds_on_clock
    least, most = _PASSES
    seconds = [timed(candidate, images, precision) for _ in range(least)]
    while len(seconds) < most and sum(seconds[least:]) < _MOMENT:
        seconds.append(timed(candidate, images, precision))
    return min(seconds)


def _seconds_on_clock(candidate: _Copy, images: torch.Tensor, precision: str) -> float:
    started = time.perf_counter()
    candidate.logits(images, precision).cpu()  # copying waits for a device other than the CPU
    return time.perf_counter() - started


def _seconds_on_cuda(candidate: _Copy, images: torch.Tensor, precision: str) -> float:
    cuda: Any = torch.cuda
    start, end = cuda.Event(enable_timing=True), cuda.Event(enable_timing=True)
    with cuda.device(candidate.device):
        start.record()
        candidate.logits(images, precision)
        end.record()
        end.synchronize()
    return float(start.elapsed_time(end)) / 1000
