"""The contract of an explainer: one map per image, positive where the evidence for the target lies."""

from __future__ import annotations

import math
from abc import ABC
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from xbench.contracts.options import Options
from xbench.contracts.samples import Attribution
from xbench.errors import PluginError, UserError
from xbench.runtime.blame import blamed
from xbench.runtime.randomness import isolated
from xbench.runtime.seeding import derive

if TYPE_CHECKING:
    from pathlib import Path

    import torch
    from torch import nn

    from xbench.contracts.dataset import DatasetInfo, Split
    from xbench.contracts.feature import ImageFeature
    from xbench.contracts.samples import Batch
    from xbench.contracts.session import Session


class Explainer(ABC):
    """An explainer plugin. Authors write one method, `attribute`; the others have defaults.

    A complete explainer:

        class Gradient(Explainer):
            def attribute(self, model, images, targets):
                images = images.requires_grad_()
                scores = class_scores(model(images))
                score = scores.gather(1, targets[:, None]).sum()
                return torch.autograd.grad(score, images)[0].sum(1)

    Attributes:
        signed: Whether negative values mean evidence against the target. An unsigned map equals its absolute values.
        self_explaining: Whether the explainer brings a classifier of its own, so that `subject=self` makes sense.
        feature: The image feature that the explainer wants in `batch.feature`, or None.

    Args:
        options: Validated options.
        argument: The part of a reference after the name, or an empty string.
    """

    signed: bool = True
    self_explaining: bool = False
    feature: ImageFeature | None = None

    def __init__(self, options: Options, argument: str = "") -> None:
        self.options = options
        self.argument = argument

    # --- what authors write -------------------------------------------------------------------------------------------

    def attribute(self, model: nn.Module, images: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Return the maps of a batch.

        Args:
            model: Classifier in eval mode, with frozen parameters. Remove the hooks that you set (the harness removes
                those that are left).
            images: float32 (N, C, *spatial), in [0, 1]. They are a private copy.
            targets: The class to explain for each image, int64 (N,).

        Returns:
            Maps, float (N, *spatial).
        """
        raise NotImplementedError

    def attribute_batch(self, model: nn.Module, batch: Batch, targets: torch.Tensor) -> torch.Tensor:
        """Return the maps of a batch, for explainers that also need the seeds, the `feature` or the expert's masks."""
        return self.attribute(model, batch.images, targets)

    def attribution(self, model: nn.Module, batch: Batch, targets: torch.Tensor) -> Attribution:
        """Return the maps, and for explainers that promise a sum of each map, how much each misses it."""
        return Attribution(self.attribute_batch(model, batch, targets))

    def supports(self, model: nn.Module, info: DatasetInfo) -> str | None:  # noqa: ARG002
        """Return None, or the reason why this explainer can't explain `model`.

        The harness asks with the untrained model before anything runs, and again with the trained model before it is
        explained. Rule-based explainers prove here that their rules take effect (`xbench.compute.gate`).
        """
        return None

    def fit(self, model: nn.Module, train: Split, validation: Split, info: DatasetInfo, session: Session) -> None:
        """Learn from the training split and write the state into `session.folder`; only for trained explainers."""
        raise NotImplementedError

    def restore(self, folder: Path, model: nn.Module, info: DatasetInfo, device: str) -> None:
        """Read back the state that `fit` wrote, for use on `device`; only for trained explainers."""
        raise NotImplementedError

    def classifier(self) -> nn.Module:
        """Return the explainer's own classifier, images -> logits; only for self-explaining ones, after `restore`."""
        raise NotImplementedError

    def transfer(self, model: nn.Module, images: torch.Tensor, toward: torch.Tensor) -> torch.Tensor:
        """Return the images (N, C, *spatial) changed toward the classes `toward` (N,); only for counterfactuals."""
        raise NotImplementedError

    def masked_logits(self, images: torch.Tensor, maps: torch.Tensor) -> torch.Tensor:
        """Return the logits of the explainer's own classifier, which reads the images through maps.

        Only for explainers that have such a classifier. Called after `restore`.

        Args:
            images: float32 (N, C, *spatial), in [0, 1].
            maps: float32 (N, *spatial). The caller chooses whose maps they are, which shows whether the mask itself
                carries the answer.

        Returns:
            Logits (N, K).
        """
        raise NotImplementedError

    # --- what the harness asks ----------------------------------------------------------------------------------------

    @property
    def trained(self) -> bool:
        """Whether this explainer has a training phase."""
        return type(self).fit is not Explainer.fit

    @property
    def transfers(self) -> bool:
        """Whether this explainer makes counterfactual images."""
        return type(self).transfer is not Explainer.transfer

    @property
    def reads_through_maps(self) -> bool:
        """Whether this explainer has a classifier of its own that reads images through maps."""
        return type(self).masked_logits is not Explainer.masked_logits

    def explain(self, model: nn.Module, batch: Batch, targets: torch.Tensor, name: str, seed: int = 0) -> torch.Tensor:
        """Return the maps of `explain_fully`, float32 (N, *spatial)."""
        return self.explain_fully(model, batch, targets, name, seed).maps

    def explain_fully(
        self, model: nn.Module, batch: Batch, targets: torch.Tensor, name: str, seed: int = 0
    ) -> Attribution:
        """Return the attribution of a batch, and leave the model and torch's global generators as they were.

        Calls `attribution` in eval mode with frozen parameters.

        Args:
            model: Classifier. It is left exactly as it was.
            batch: N images.
            targets: The class to explain for each image, int64 (N,).
            name: Name of the explainer in errors.
            seed: Seed of torch's global generators for this call. Draws for one image come from `batch.seeds`.

        Returns:
            Maps, float32 (N, *spatial), detached and finite, and their errors, detached.

        Raises:
            PluginError: The explainer raised, or returned maps of a wrong shape or with NaN or infinity.
        """
        import dataclasses

        private = self.ready(dataclasses.replace(batch, images=batch.images.detach().clone()))
        with blamed(name), undisturbed(model), isolated(derive(seed, name)):
            found = self.attribution(model, private, targets)
        error = found.completeness_error
        return Attribution(_checked(found.maps, batch, name), None if error is None else error.detach())

    def counterfactuals(
        self, model: nn.Module, images: torch.Tensor, toward: torch.Tensor, name: str, seed: int = 0
    ) -> torch.Tensor:
        """Return counterfactual images, and leave the model and torch's global generators as they were.

        Args:
            model: Classifier. It is left exactly as it was.
            images: float32 (N, C, *spatial).
            toward: The class that each image is changed toward, int64 (N,).
            name: Name of the explainer in errors.
            seed: Seed of torch's global generators for this call.

        Returns:
            Images of the shape and dtype of `images`, detached and finite.

        Raises:
            PluginError: The explainer raised, or returned images of another shape or with NaN or infinity.
        """
        import torch

        with blamed(name), undisturbed(model), isolated(derive(seed, name, "transfer")):
            moved = self.transfer(model, images.detach().clone(), toward)
        if not isinstance(moved, torch.Tensor) or moved.shape != images.shape:
            given = tuple(moved.shape) if isinstance(moved, torch.Tensor) else type(moved).__name__
            raise PluginError(f"{name} gave counterfactual images of shape {given}, expected {tuple(images.shape)}")
        moved = moved.detach().to(images)
        if not bool(moved.isfinite().all()):
            raise PluginError(f"{name} gave counterfactual images with NaN or infinity")
        return moved

    def ready(self, batch: Batch) -> Batch:
        """Return the batch with the feature that this explainer wants, computed now if the harness did not bring it."""
        return self.feature.join(batch) if self.feature is not None and batch.feature is None else batch


class MapTransform(Explainer):
    """An explainer that changes the finished maps of another one (`inverted:gradient`).

    The argument is a reference to the inner explainer, whose maps are computed once and shared. Authors write
    `transform` or `transform_batch`.
    """

    def transform(self, maps: torch.Tensor) -> torch.Tensor:
        """Return new maps made from the inner explainer's: float32 (N, *spatial) -> float32 (N, *spatial)."""
        raise NotImplementedError

    def transform_batch(self, maps: torch.Tensor, batch: Batch) -> torch.Tensor:  # noqa: ARG002
        """Return new maps, for transforms that also read the images or their `feature`."""
        return self.transform(maps)

    def checked_transform(self, maps: torch.Tensor, batch: Batch, name: str) -> torch.Tensor:
        """Return the transformed maps, checked in the same way as in `explain`.

        Raises:
            PluginError: The transform raised, or returned maps of a wrong shape or with NaN or infinity.
        """
        with blamed(name):
            changed = self.transform_batch(maps, self.ready(batch))
        return _checked(changed, batch, name)


def _checked(maps: torch.Tensor, batch: Batch, name: str) -> torch.Tensor:
    import torch

    expected = (len(batch), *batch.images.shape[2:])
    if not isinstance(maps, torch.Tensor):
        raise PluginError(f"{name} gave a {type(maps).__name__}, not a tensor")
    if tuple(maps.shape) != expected:
        raise PluginError(f"{name} gave maps of shape {tuple(maps.shape)}, expected {expected}")
    maps = maps.detach().to(torch.float32)
    # A finite sum settles most batches with one number. It may overflow where no value does, so look closer then.
    if not math.isfinite(float(maps.sum())):
        finite = torch.isfinite(maps).flatten(1).all(1)
        if not bool(finite.all()):
            bad = batch.ids[int((~finite).nonzero()[0])]
            raise PluginError(f"{name} gave NaN or infinity in the map of image {bad}")
    return maps


@contextmanager
def undisturbed(model: nn.Module) -> Iterator[None]:
    """Put the model in eval mode with frozen parameters, and undo this and all changes to hooks and gradients after."""
    modes = [(module, module.training) for module in model.modules()]
    parameters = [(parameter, parameter.requires_grad, parameter.grad) for parameter in model.parameters()]
    hooks = [pair for module in model.modules() for pair in _hook_tables(module)]
    model.eval()
    model.requires_grad_(False)
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode
        for parameter, requires_grad, grad in parameters:
            parameter.requires_grad_(requires_grad)
            parameter.grad = grad
        for table, before in hooks:
            for key in [key for key in table if key not in before]:
                del table[key]


def _hook_tables(module: nn.Module) -> list[tuple[dict[int, object], set[int]]]:
    names = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return [(table, set(table)) for table in (getattr(module, name) for name in names)]


def check_target(target: str, classes: int) -> str | int:
    """Parse a target rule: "predicted", "true", or a class index.

    Raises:
        UserError: `target` is none of these.
    """
    if target in ("predicted", "true"):
        return target
    if target.isdigit() and int(target) < classes:
        return int(target)
    raise UserError(
        f"target {target!r} is wrong", f"allowed: predicted, true, or a class index from 0 to {classes - 1}"
    )
