"""Iterative saliency: lesions that come to light one after the other, and a plain loop over one image."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from scipy.ndimage import binary_dilation
from skimage.restoration import inpaint_biharmonic
from torch import nn

import xbench_baselines
from xbench import DatasetInfo
from xbench.runtime.seeding import rng
from xbench.testing import parametrize_with_checks
from xbench.testing.networks import ConvNetwork
from xbench_baselines.gradients.gradient import Gradient
from xbench_baselines.gradients.iterative import IterativeSaliency
from xbench_baselines.gradients.options import GradientOptions, IterativeSaliencyOptions

INFO = DatasetInfo("toy", ("a", "b"), 1, (12, 10))
LESIONS = ((slice(4, 7), slice(4, 7)), (slice(16, 19), slice(14, 17)))


def noise(*shape: int) -> torch.Tensor:
    return torch.from_numpy(rng(0, "images").random(shape, dtype=np.float32))


def close(found: torch.Tensor, expected: torch.Tensor, tolerance: float = 1e-5) -> None:
    """Equal to `tolerance` of the largest value, which must not be zero."""
    assert expected.abs().max() > 0
    torch.testing.assert_close(found, expected, rtol=0, atol=tolerance * float(expected.abs().max()))


class Lesions(nn.Module):
    """Abnormal (class 1) while any of two spots is bright. The first outshines: only the brighter has a gradient."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        brightness = torch.stack([images[:, 0, rows, columns].mean((1, 2)) for rows, columns in LESIONS], 1)
        worst = (brightness * torch.tensor([1.0, 0.9])).amax(1, keepdim=True)
        return 10 * (worst - 0.5)


def with_lesions(*spots: tuple[slice, slice]) -> torch.Tensor:
    images = torch.full((1, 1, 24, 20), 0.1)
    for rows, columns in spots:
        images[0, 0, rows, columns] = 1
    return images


def iterative(**options: Any) -> IterativeSaliency:
    return IterativeSaliency(IterativeSaliencyOptions(share=9 / 480, **options))


def test_the_second_lesion_comes_to_light_in_the_second_iteration(explain: Callable[..., torch.Tensor]) -> None:
    first, second = torch.zeros(24, 20), torch.zeros(24, 20)
    first[LESIONS[0]], second[LESIONS[1]] = 1, 1
    images = with_lesions(*LESIONS)
    for iterations, expected in ((1, first), (2, first + 0.7 * second), (20, first + 0.7 * second)):
        maps = explain(iterative(iterations=iterations, gamma=0.7), Lesions(), images, [1])
        torch.testing.assert_close(maps[0], expected)


def test_images_that_are_not_abnormal_have_the_scaled_gradient(
    explain: Callable[..., torch.Tensor], styled_network: Callable[..., ConvNetwork]
) -> None:
    model, images, targets = styled_network(), noise(4, 3, 12, 10), torch.tensor([0, 1, 2, 1])
    gradient = explain(Gradient(GradientOptions()), model, images, targets).abs().flatten(1)
    low, high = gradient.amin(1, keepdim=True), gradient.amax(1, keepdim=True)
    expected = ((gradient - low) / (high - low)).view(4, 12, 10)
    absent = next(c for c in range(3) if c not in model(images).argmax(1))
    close(explain(IterativeSaliency(IterativeSaliencyOptions(abnormal=absent)), model, images, targets), expected)
    present = int(model(images)[0].argmax())
    once = IterativeSaliency(IterativeSaliencyOptions(abnormal=present, iterations=1))
    close(explain(once, model, images, targets), expected)


def test_iterations_agree_with_a_loop_over_one_image(
    explain: Callable[..., torch.Tensor], styled_network: Callable[..., ConvNetwork]
) -> None:
    model, image, options = (
        styled_network(),
        noise(1, 3, 20, 22),
        IterativeSaliencyOptions(abnormal=0, iterations=4, share=0.02),
    )
    with torch.no_grad():
        model.head.bias[0] += 10  # abnormal whatever happens
    expected, current = torch.zeros(20, 22), image
    for step in range(4):
        saliency = explain(Gradient(GradientOptions()), model, current, [0])[0].abs()
        saliency = (saliency - saliency.min()) / (saliency.max() - saliency.min())
        expected += 0.9**step * saliency
        region = saliency >= saliency.flatten().topk(round(0.02 * 440)).values[-1]
        region = binary_dilation(region.numpy(), iterations=2)
        filled = inpaint_biharmonic(current[0].permute(1, 2, 0).numpy(), region, channel_axis=-1)
        current = torch.from_numpy(filled).permute(2, 0, 1)[None].float()
    maps = explain(IterativeSaliency(options), model, image, [0])
    close(maps[0], expected, 1e-4)


def test_only_abnormal_images_are_passed_on_and_each_goes_its_own_way(explain: Callable[..., torch.Tensor]) -> None:
    images = torch.cat([with_lesions(*LESIONS), with_lesions(), with_lesions(LESIONS[1]), with_lesions(*LESIONS)])
    passed = []

    class Watched(Lesions):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            passed.append(len(images))
            return super().forward(images)

    maps = explain(iterative(), Watched(), images, [1, 1, 1, 1])
    assert passed == [4, 3, 2]
    alone = torch.cat([explain(iterative(), Lesions(), images[k : k + 1], [1]) for k in range(4)])
    torch.testing.assert_close(maps, alone)


def test_iterative_saliency_survives_what_it_cannot_inpaint(
    explain: Callable[..., torch.Tensor], styled_network: Callable[..., ConvNetwork]
) -> None:
    constant = nn.Sequential(nn.Flatten(), nn.Linear(100, 2))
    with torch.no_grad():
        constant[1].weight.zero_()
        constant[1].bias.copy_(torch.tensor([0.0, 1.0]))
    assert not explain(IterativeSaliency(IterativeSaliencyOptions()), constant, noise(2, 1, 10, 10), [0, 1]).any()
    everything = IterativeSaliency(IterativeSaliencyOptions(share=0.9, dilation=5, iterations=3))
    assert torch.isfinite(explain(everything, styled_network(channels=1, outputs=2), noise(2, 1, 10, 10), [0, 1])).all()


def test_iterative_saliency_refuses_a_class_that_does_not_exist() -> None:
    reason = IterativeSaliency(IterativeSaliencyOptions(abnormal=2)).supports(Lesions(), INFO)
    assert "abnormal=2" in reason
    assert "0 to 1" in reason


@parametrize_with_checks(
    (spec for spec in xbench_baselines.xbench_explainers() if spec.name == "iterative-saliency"), iterations=3
)
def test_conformance_of_iterative_saliency(check: Callable[..., None]) -> None:
    check()
