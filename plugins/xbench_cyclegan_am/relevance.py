"""Relevance from the images that were changed toward each class (Katzmann et al., section 2.6)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from xbench_cyclegan_am.options import Variant


def relevance(
    images: torch.Tensor, changed: Sequence[torch.Tensor], targets: torch.Tensor, variant: Variant = "difference"
) -> torch.Tensor:
    """Return signed differences of intensity for each image's target class c, summed over channels.

    difference (equation 6) = toward + counterfactual:

        toward:          G_c(x) - x                            (equation 5)
        counterfactual:  x - mean over j != c of G_j(x)        (minus equation 5 of the other classes)

    Args:
        images: x, (N, C, *spatial).
        changed: G_k(x) of every class, K tensors (N, C, *spatial).
        targets: The class of each image, int64 (N,).
        variant: "difference", "toward" or "counterfactual".

    Returns:
        (N, *spatial).
    """
    by_class = torch.stack(list(changed))  # (K, N, C, *spatial)
    own = by_class[targets, torch.arange(len(images), device=images.device)]
    classes = torch.arange(len(by_class), device=images.device)
    other = (targets != classes[:, None]).to(by_class.dtype) / (len(by_class) - 1)
    others = (other.view(*other.shape, *[1] * (images.ndim - 1)) * by_class).sum(0)
    first = images if variant == "counterfactual" else own
    second = images if variant == "toward" else others
    return (first - second).sum(1)


def transferred(
    images: torch.Tensor, toward: torch.Tensor, generators: Sequence[Callable[[torch.Tensor], torch.Tensor]]
) -> torch.Tensor:
    """Return G_k(x) for each image's own k. Each generator sees only its images.

    Args:
        images: (N, C, *spatial).
        toward: The class k of each image, int64 (N,).
        generators: One generator per class.

    Returns:
        (N, C, *spatial).
    """
    changed = images.clone()
    for k, generator in enumerate(generators):
        rows = (toward == k).nonzero().flatten()
        if len(rows):
            changed[rows] = generator(images[rows])
    return changed
