"""DeepLIFT and DeepSHAP, which trace the difference between two scores back to the pixels."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from torch import nn

from xbench import Attribution, Batch, DatasetInfo, Explainer, Session, Split, undisturbed
from xbench.compute.gate import probe, refusal
from xbench.compute.passes import chunks, rows_of
from xbench_baselines.background import Background
from xbench_baselines.deeplift.multipliers import ANSWERED, Contrast, Record, rules
from xbench_baselines.deeplift.options import DeepLiftOptions, DeepShapOptions

_TOLERANCE = 0.01  # share of the difference to explain; a rule that does not fire leaves several per cent unexplained
_ROUNDING = 1e-5  # share of the scores; a smaller difference between two scores is rounding
_GROUP = 8  # least images that share the forward passes of the background, even if a CPU's cache holds fewer


class DeepLift(Explainer):
    """A = sum over channels of m (x - b), with DeepLIFT's multipliers m by the rescale rule (Shrikumar et al. 2017).

    At an elementwise function, m = (y - y') / (z - z'), from the activations of the image and of the baseline b. Linear
    operations pass m on like a gradient. Max pooling assigns y - y' to the position of the larger maximum. A product of
    two activations (squeeze-and-excitation) is split evenly between its factors.

    Completeness: sum A = S_c(x) - S_c(b). The map is signed. A pixel is positive where its difference from the baseline
    speaks for the class.

    Cost: 2 forward passes and 1 backward pass per image. A baseline of one shade is passed only once for all images.

    This is own code because captum's DeepLift loses completeness where max pooling follows a ReLU (by 24 to 220 % on
    VGG, ResNet and DenseNet), does not see functional ReLUs, and fails on a module that is called twice.
    """

    options: DeepLiftOptions

    def attribute(self, model: nn.Module, images: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Return the maps alone, (N, *spatial)."""
        return against_baseline(model, images, targets, self._baseline(images))[0]

    def attribution(self, model: nn.Module, batch: Batch, targets: torch.Tensor) -> Attribution:
        """Return the maps and their errors sum A - (S_c(x) - S_c(b)), which should be no more than rounding."""
        return Attribution(*against_baseline(model, batch.images, targets, self._baseline(batch.images)))

    def supports(self, model: nn.Module, info: DatasetInfo) -> str | None:
        """Return a reason for operations without a rule (attention, softmax, layer norms) or incomplete maps."""
        return _refusal(model, info)

    def _baseline(self, images: torch.Tensor) -> torch.Tensor:
        if self.options.baseline == "mean":
            return images.flatten(2).mean(2).view(*images.shape[:2], *[1] * (images.ndim - 2)).expand_as(images)
        return torch.full_like(images[:1], 0.0 if self.options.baseline == "black" else 1.0)


class DeepShap(Explainer):
    """A = mean over the background b_j of DeepLIFT's attribution of x against b_j (Lundberg and Lee 2017, section 4.2).

    The background consists of training images. Katzmann et al. do not say more about it. Here, 100 images are drawn
    once by default, and are the same for all maps. Completeness: sum A = S_c(x) - mean S_c(b_j). The rules and the
    signs are those of `DeepLift`.

    Cost for N images and J background images: N + J forward passes and N J backward passes. The multipliers of the pair
    (x, b_j) flow through the graph of b_j, which is recorded once for all images. They need the activations of x only
    at the non-linear operations. captum and shap run every pair, which takes 2 N J passes of each kind.

    This is own code because captum's DeepLiftShap has the faults of its DeepLift. shap's hooks let overlapping pools
    overwrite each other, and fail on in-place additions (ResNet). Both let the gradient pass through a product.
    """

    options: DeepShapOptions
    _background: torch.Tensor

    def fit(self, model: nn.Module, train: Split, validation: Split, info: DatasetInfo, session: Session) -> None:
        """Draw the background."""
        del model, validation, info
        Background.draw(train, self.options.background, session)

    def restore(self, folder: Path, model: nn.Module, info: DatasetInfo, device: str) -> None:
        """Read the background."""
        del model, info
        self._background = Background.load(folder, device)

    def attribute(self, model: nn.Module, images: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Return the maps alone, (N, *spatial)."""
        return against_background(model, images, targets, self._background.to(images))[0]

    def attribution(self, model: nn.Module, batch: Batch, targets: torch.Tensor) -> Attribution:
        """Return the maps and their errors sum A - (S_c(x) - mean S_c(b_j)), which should be no more than rounding."""
        return Attribution(*against_background(model, batch.images, targets, self._background.to(batch.images)))

    def supports(self, model: nn.Module, info: DatasetInfo) -> str | None:
        """Return a reason as `DeepLift` does. The maps are tried on another background, as there is none yet."""
        return _refusal(model, info)


def against_baseline(
    model: nn.Module, images: torch.Tensor, targets: torch.Tensor, baseline: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Compute DeepLIFT against one baseline per image.

    Args:
        model: Model in eval mode.
        images: Images, (N, C, *spatial).
        targets: Classes, int64 (N,).
        baseline: Baselines, (N, C, *spatial), or one for all images, (1, C, *spatial).

    Returns:
        Maps (N, *spatial), and their completeness errors (N,).
    """
    maps = images.new_empty((len(images), *images.shape[2:]))
    errors = images.new_empty(len(images))
    shared = len(baseline) == 1
    record = Record(model, baseline) if shared else None

    def work(start: int, stop: int) -> None:
        rows = slice(start, stop)
        own = record or Record(model, baseline[rows])
        contrast = Contrast(model, images[rows])
        onehot = _onehot(targets[rows], contrast.scores)
        multipliers = contrast.multipliers(own, slice(0, len(own.scores)), onehot)
        maps[rows] = (multipliers * (images[rows] - (baseline if shared else baseline[rows]))).sum(1)
        difference = ((contrast.scores.detach() - own.scores) * onehot).sum(1)
        errors[rows] = maps[rows].flatten(1).sum(1) - difference

    chunks(len(images), images, work)
    return maps, errors


def against_background(
    model: nn.Module, images: torch.Tensor, targets: torch.Tensor, background: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Compute the mean of DeepLIFT against each of J baselines, which are the same for all images.

    Args:
        model: Model in eval mode.
        images: Images, (N, C, *spatial).
        targets: Classes, int64 (N,).
        background: Baselines, (J, C, *spatial).

    Returns:
        Maps (N, *spatial), and their completeness errors (N,).
    """
    size = max(rows_of(images), _GROUP)
    groups = zip(torch.split(images, size), torch.split(targets, size), strict=True)
    parts = [_group_against_background(model, group, chosen, background) for group, chosen in groups]
    return torch.cat([maps for maps, _ in parts]), torch.cat([errors for _, errors in parts])


def _group_against_background(
    model: nn.Module, images: torch.Tensor, targets: torch.Tensor, background: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    # A chunk of the background records its graph once for the whole group, so of the images only the operands are kept.
    record = Record(model, images)
    onehot = _onehot(targets, record.scores)
    maps = images.new_zeros((len(images), *images.shape[2:]))
    differences = images.new_zeros(len(images))

    def work(start: int, stop: int) -> None:
        rows = background[start:stop]
        contrast = Contrast(model, rows)
        part = torch.empty_like(maps)
        for index in range(len(images)):
            multipliers = contrast.multipliers(record, slice(index, index + 1), onehot[index])
            part[index] = multipliers.mul_(images[index] - rows).sum((0, 1))
        # Added only at the end, because a chunk that does not fit the memory is run again in halves.
        maps.add_(part)
        differences.add_(((record.scores[:, None] - contrast.scores.detach()) * onehot[:, None]).sum((1, 2)))

    chunks(len(background), background, work)
    maps /= len(background)
    return maps, maps.flatten(1).sum(1) - differences / len(background)


def _onehot(targets: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.one_hot(targets, scores.shape[1]).to(scores)


def _refusal(model: nn.Module, info: DatasetInfo) -> str | None:
    """Return why DeepLIFT can't explain the model, or None: an operation has no rule, or maps of a probe are wrong."""
    images = probe(info, model)
    reason = refusal(model, images, rules(), ANSWERED)
    if reason:
        return reason
    background = torch.cat([torch.zeros_like(images[:1]), 1 - images[:1] / 2])
    targets = torch.arange(len(images), device=images.device) % len(info.classes)
    with undisturbed(model):
        maps, errors = against_background(model, images, targets, background)
        scale = float(Record(model, torch.cat([images, background])).scores.abs().max())
    error = float(errors.abs().max())
    explained = float((maps.flatten(1).sum(1) - errors).abs().max())
    if math.isfinite(error) and error <= max(_TOLERANCE * explained, _ROUNDING * scale):
        return None
    share = f"{100 * error / max(explained, 1e-12):.3g} % of the difference of the scores"
    return f"its maps would not be complete: {share} is missing or too much, so a rule does not fire in this model"
