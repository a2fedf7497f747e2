"""Iterative saliency maps: salient regions are inpainted, and the model explains the new image again."""

from __future__ import annotations

import numpy as np
import torch
from scipy.ndimage import binary_dilation
from skimage.restoration import inpaint_biharmonic
from torch import nn

from xbench import DatasetInfo, Explainer, class_scores
from xbench_baselines.gradients.options import IterativeSaliencyOptions


class IterativeSaliency(Explainer):
    """A = sum_t gamma^t A_t over t = 0..T-1, where x_{t+1} is x_t with its most salient regions inpainted.

    A_t is |dS_c/dx| at x_t (of the sum over channels), scaled to [0, 1] image by image. It is unsigned, and S_c is the
    score of the target. Iteration continues as long as the model finds the image abnormal, to reveal lesions that the
    first one outshines. An image that is not abnormal at first has the map A_0.

    Gonzalez-Gonzalo et al. 2018 (SPIE 10574, "Improving weakly-supervised lesion localization with iterative saliency
    map refinement"). The regions are the `share` of pixels of largest saliency, widened by `dilation` pixels. They
    are filled by scikit-image's biharmonic inpainting. There is no reference library to compare with.
    """

    signed = False
    options: IterativeSaliencyOptions

    def supports(self, model: nn.Module, info: DatasetInfo) -> str | None:  # noqa: ARG002
        """Return a reason for a dataset without the abnormal class."""
        if self.options.abnormal < len(info.classes):
            return None
        return f"option abnormal={self.options.abnormal}: the classes of {info.name} are 0 to {len(info.classes) - 1}"

    def attribute(self, model: nn.Module, images: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Return the maps, (N, *spatial), at least 0."""
        total = torch.zeros_like(images[:, 0])
        left = torch.arange(len(images), device=images.device)
        for step in range(self.options.iterations):
            saliency, abnormal = self._look(model, images, targets[left])
            kept = abnormal if step else torch.ones_like(abnormal)
            total[left[kept]] += self.options.gamma**step * saliency[kept]
            if step == self.options.iterations - 1 or not abnormal.any():
                break
            left, images = left[abnormal], self._inpainted(images[abnormal], saliency[abnormal])
        return total

    def _look(self, model: nn.Module, images: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return saliency in [0, 1], (n, *spatial), and whether the model finds the images abnormal, (n,)."""
        with torch.enable_grad():
            images = images.detach().requires_grad_()
            scores = class_scores(model(images))
            score = scores.gather(1, targets[:, None]).sum()
            found = torch.zeros_like(images)
            if score.requires_grad:
                found = torch.autograd.grad(score, images, allow_unused=True, materialize_grads=True)[0]
        magnitude = found.sum(1).abs()
        flat = magnitude.flatten(1)
        low, high = flat.amin(1, keepdim=True), flat.amax(1, keepdim=True)
        scaled = (flat - low) / (high - low).clamp(min=torch.finfo(flat.dtype).tiny)
        return scaled.view_as(magnitude), scores.detach().argmax(1) == self.options.abnormal

    def _inpainted(self, images: torch.Tensor, saliency: torch.Tensor) -> torch.Tensor:
        flat = saliency.flatten(1)
        count = max(1, round(self.options.share * flat.shape[1]))
        # A stable sort, because the order of ties must not depend on the device or the batch.
        top = flat.argsort(dim=1, descending=True, stable=True)[:, :count]
        regions = torch.zeros_like(flat, dtype=torch.bool).scatter_(1, top, True) & (flat > 0)
        pairs = zip(images.cpu().numpy(), regions.view_as(saliency).cpu().numpy(), strict=True)
        filled = np.stack([self._filled(image, region) for image, region in pairs])
        return torch.from_numpy(filled).to(images)

    def _filled(self, image: np.ndarray, region: np.ndarray) -> np.ndarray:
        """Return an image (C, *spatial) with a region (*spatial) inpainted, unless it is empty or the whole image."""
        if self.options.dilation:
            region = binary_dilation(region, iterations=self.options.dilation)
        if not region.any() or region.all():
            return image
        filled: np.ndarray = inpaint_biharmonic(image, region, channel_axis=0)
        return filled.astype(image.dtype)
