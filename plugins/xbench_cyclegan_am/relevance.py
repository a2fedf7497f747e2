"""What images changed toward each class say about the image they come from (Katzmann et al., section 2.6)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from xbench_cyclegan_am.options import Variant


def relevance(
    images: torch.Tensor, changed: Sequence[torch.Tensor], targets: torch.Tensor, variant: Variant = "difference"
) -> torch.Tensor:
    """Signed differences of intensity, for each image's target class c; channels summed.

    difference (equation 6) = toward + counterfactual:

        toward:          G_c(x) - x                            (equation 5)
        counterfactual:  x - mean over j != c of G_j(x)        (minus equation 5 of the other classes)

    Args:
        images: x, (N, C, *spatial).
        changed: G_k(x) of every class, K of (N, C, *spatial).
        targets: int64 (N,).
        variant: Which.

    Returns:
        (N, *spatial).
    """
    every = torch.stack(list(changed))  # (K, N, C, *spatial)
    place = torch.arange(len(images), device=images.device)
    own = every[targets, place]
    other = (targets != torch.arange(len(every), device=images.device)[:, None]).to(every.dtype) / (len(every) - 1)
    others = (other.view(*other.shape, *[1] * (images.ndim - 1)) * every).sum(0)
    first = images if variant == "counterfactual" else own
    second = images if variant == "toward" else others
    return (first - second).sum(1)


def transferred(
    images: torch.Tensor, toward: torch.Tensor, generators: Sequence[Callable[[torch.Tensor], torch.Tensor]]
) -> torch.Tensor:
    """G_k(x), k each image's own: each generator sees only the images that want it.

    Args:
        images: (N, C, *spatial).
        toward: int64 (N,).
        generators: One a class.

    Returns:
        (N, C, *spatial).
    """
    changed = images.clone()
    for k, generator in enumerate(generators):
        rows = (toward == k).nonzero().flatten()
        if len(rows):
            changed[rows] = generator(images[rows])
    return changed
