"""The gradient, its product with the image, and its means over noise: closed forms, captum, a plain loop."""

import itertools
from collections.abc import Callable

import numpy as np
import pytest
import torch
from captum.attr import InputXGradient
from torch import nn

import xbench_baselines
from xbench import Batch, DatasetInfo, Explainer, Options
from xbench.runtime.seeding import rng
from xbench.testing import parametrize_with_checks
from xbench.testing.networks import ConvNetwork, LinearNetwork
from xbench_baselines.gradients.backpropagation import Deconvolution, GuidedBackpropagation
from xbench_baselines.gradients.gradient import Gradient, InputTimesGradient
from xbench_baselines.gradients.options import BackpropagationOptions, GradientOptions, NoiseOptions, SmoothGradOptions
from xbench_baselines.gradients.smoothing import ImageNoise, SmoothGrad, SmoothGradSquared, VarGrad

SPECS = {spec.name: spec for spec in xbench_baselines.xbench_explainers()}
INFO = DatasetInfo("toy", ("a", "b"), 1, (12, 10))
CONFORMING = ["gradient", "input-x-gradient", "smoothgrad", "smoothgrad-squared", "vargrad"]


def noise(*shape: int) -> torch.Tensor:
    return torch.from_numpy(rng(0, "images").random(shape, dtype=np.float32))


def close(found: torch.Tensor, expected: torch.Tensor, tolerance: float = 1e-5) -> None:
    """Equal to `tolerance` of the largest value, which must not be zero."""
    assert expected.abs().max() > 0
    torch.testing.assert_close(found, expected, rtol=0, atol=tolerance * float(expected.abs().max()))


# --- gradient and input x gradient ----------------------------------------------------------------------------------


def test_input_x_gradient_of_a_linear_model_is_weight_times_image(explain: Callable[..., torch.Tensor]) -> None:
    model, images = LinearNetwork(2, (5, 4), outputs=3), noise(3, 2, 5, 4)
    expected = (images * model.linear.weight.detach()[[2, 0, 1]].view(3, 2, 5, 4)).sum(1)
    close(explain(InputTimesGradient(GradientOptions()), model, images, [2, 0, 1]), expected, 1e-6)


def test_input_x_gradient_agrees_with_captum(
    explain: Callable[..., torch.Tensor], styled_network: Callable[..., ConvNetwork]
) -> None:
    model, images, targets = styled_network("functional"), noise(4, 3, 12, 10), torch.tensor([0, 1, 2, 1])
    expected = InputXGradient(model).attribute(images.clone().requires_grad_(), target=targets).sum(1).detach()
    close(explain(InputTimesGradient(GradientOptions()), model, images, targets), expected)


def test_input_x_gradient_of_a_network_without_biases_sums_to_the_score(explain: Callable[..., torch.Tensor]) -> None:
    torch.manual_seed(0)
    convolutions = nn.Conv2d(2, 8, 3, bias=False), nn.ReLU(), nn.Conv2d(8, 8, 3, bias=False), nn.ReLU()
    model = nn.Sequential(*convolutions, nn.Flatten(), nn.Linear(8 * 4 * 4, 3, bias=False)).eval()
    images, targets = noise(4, 2, 8, 8), torch.tensor([0, 1, 2, 0])
    maps = explain(InputTimesGradient(GradientOptions()), model, images, targets)
    scores = model(images).gather(1, targets[:, None])[:, 0].detach()
    torch.testing.assert_close(maps.sum((1, 2)), scores, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (Gradient, GradientOptions),
        (InputTimesGradient, GradientOptions),
        (Deconvolution, BackpropagationOptions),
        (GuidedBackpropagation, BackpropagationOptions),
        (SmoothGrad, SmoothGradOptions),
    ],
)
def test_score_neuron_explains_the_one_neuron_for_both_classes(
    explain: Callable[..., torch.Tensor],
    styled_network: Callable[..., ConvNetwork],
    kind: type[Explainer],
    options: Callable[..., Options],
) -> None:
    model, images = styled_network(channels=1, outputs=1), noise(2, 1, 12, 10)
    by_class, by_neuron = kind(options()), kind(options(score="neuron"))
    of_one = explain(by_class, model, images, [1, 1])
    assert torch.equal(explain(by_neuron, model, images, [0, 0]), of_one)
    assert torch.equal(explain(by_neuron, model, images, [1, 1]), of_one)
    assert by_neuron.supports(model, INFO) is None
    refused = by_neuron.supports(styled_network(channels=1, outputs=2), INFO)
    assert "one output neuron" in refused
    assert "2" in refused
    assert by_class.supports(styled_network(channels=1, outputs=2), INFO) is None


@pytest.mark.parametrize("kind", [Gradient, InputTimesGradient, SmoothGrad])
def test_the_maps_of_one_neurons_classes_are_each_others_negative(
    explain: Callable[..., torch.Tensor], styled_network: Callable[..., ConvNetwork], kind: type[Explainer]
) -> None:
    model, images = styled_network(channels=1, outputs=1), noise(2, 1, 12, 10)
    explainer = kind(SmoothGradOptions())
    maps = explain(explainer, model, images, [1, 1])
    assert maps.any()
    assert torch.equal(explain(explainer, model, images, [0, 0]), -maps)


# --- smoothing ------------------------------------------------------------------------------------------------------


class Cubic(nn.Module):
    """One logit, sum of x^3: the gradient 3 x^2 has a mean, a square and a variance under noise in closed form."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return (images**3).flatten(1).sum(1, keepdim=True)


def noisy_gradients(model: nn.Module, batch: Batch, targets: torch.Tensor, samples: int, sigma: float) -> torch.Tensor:
    """An independent loop over the same noise: (samples, N, C, *spatial)."""
    draws, found = ImageNoise(batch, samples, sigma, "smoothgrad"), []
    for number in range(samples):
        which = torch.arange(len(batch))
        points = draws.on(batch.images, which, torch.full_like(which, number)).requires_grad_()
        (gradient,) = torch.autograd.grad(model(points).gather(1, targets[:, None]).sum(), points)
        found.append(gradient)
    return torch.stack(found)


def test_smoothing_agrees_with_a_loop_over_the_same_noise(
    batch_of: Callable[..., Batch], styled_network: Callable[..., ConvNetwork]
) -> None:
    model, targets, options = styled_network("inplace"), torch.tensor([0, 1, 2]), {"samples": 5, "sigma": 0.3}
    batch = batch_of(noise(3, 3, 12, 10))
    found = noisy_gradients(model, batch, targets, **options)  # type: ignore[arg-type]
    expected = {
        SmoothGrad: found.mean(0),
        SmoothGradSquared: found.square().mean(0),
        VarGrad: found.var(0, correction=0),
    }
    for kind, maps in expected.items():
        close(kind(SmoothGradOptions(**options)).explain(model, batch, targets, "under test"), maps.sum(1))


def test_noise_has_the_strength_of_each_images_range(batch_of: Callable[..., Batch]) -> None:
    images = torch.zeros(2, 1, 60, 60)
    images[0, 0, 0, 0], images[1, 0, 0, 0] = 1, 0.2
    batch, number = batch_of(images), torch.tensor([0, 0])
    draws = ImageNoise(batch, 3, 0.15, "test")
    for which, deviation in ((0, 0.15), (1, 0.03)):
        (added,) = draws.on(torch.zeros(1, 1, 60, 60), torch.tensor([which]), number[:1])[:, 0]
        assert float(added.std()) == pytest.approx(deviation, rel=5 / np.sqrt(2 * 3600))
        assert float(added.mean()) == pytest.approx(0, abs=5 * deviation / 60)
    both = [draws.on(torch.zeros(1, 1, 60, 60), torch.tensor([0]), torch.tensor([k])).flatten() for k in range(3)]
    for first, second in itertools.combinations(both, 2):
        assert abs(np.corrcoef(first, second)[0, 1]) < 5 / 60


def test_smoothing_of_a_cubic_has_a_closed_form(explain: Callable[..., torch.Tensor]) -> None:
    """g = 3 (x + e)^2: mean 3 (x^2 + s^2), variance 9 (4 x^2 s^2 + 2 s^4)."""
    image, samples = torch.tensor([[[[0.0, 0.5, 1.0, 0.25]]]]), 4000
    options, deviation = NoiseOptions(samples=samples, sigma=0.1), 0.1
    mean = 3 * (image**2 + deviation**2)
    variance = 9 * (4 * image**2 * deviation**2 + 2 * deviation**4)
    error = 5 * (variance / samples).sqrt()
    smooth = explain(SmoothGrad(SmoothGradOptions(samples=samples, sigma=0.1)), Cubic(), image, [1])
    assert ((smooth - mean[0]).abs() < error[0]).all()
    squared = explain(SmoothGradSquared(options), Cubic(), image, [1])
    spread = explain(VarGrad(options), Cubic(), image, [0])
    torch.testing.assert_close(spread, variance[0], rtol=5 * np.sqrt(8 / samples) * 2, atol=0)
    torch.testing.assert_close(spread, squared - smooth**2, rtol=1e-3, atol=1e-6)


def test_smoothing_of_a_linear_model_is_exact(explain: Callable[..., torch.Tensor]) -> None:
    model, images = LinearNetwork(2, (5, 4), outputs=1), noise(2, 2, 5, 4)
    weight = model.linear.weight.detach().view(2, 5, 4)
    smooth = explain(SmoothGrad(SmoothGradOptions()), model, images, [1, 0])
    close(smooth, torch.stack([weight.sum(0), -weight.sum(0)]), 1e-6)
    squared = explain(SmoothGradSquared(NoiseOptions()), model, images, [1, 0])
    close(squared, weight.square().sum(0).expand(2, 5, 4), 1e-6)
    assert not explain(VarGrad(NoiseOptions()), model, images, [1, 0]).any()


def test_without_noise_smoothgrad_is_the_gradient(
    explain: Callable[..., torch.Tensor], styled_network: Callable[..., ConvNetwork]
) -> None:
    model, images, targets = styled_network(), noise(3, 3, 12, 10), torch.tensor([0, 1, 2])
    gradient = explain(Gradient(GradientOptions()), model, images, targets)
    close(explain(SmoothGrad(SmoothGradOptions(sigma=0)), model, images, targets), gradient)
    assert explain(VarGrad(NoiseOptions(sigma=0)), model, images, targets).max() < 1e-10 * gradient.abs().max() ** 2


def test_a_flat_image_gets_no_noise(
    explain: Callable[..., torch.Tensor], styled_network: Callable[..., ConvNetwork]
) -> None:
    model = styled_network(channels=1, outputs=2)
    images = torch.full((1, 1, 12, 10), 0.4)
    gradient = explain(Gradient(GradientOptions()), model, images, [1])
    close(explain(SmoothGrad(SmoothGradOptions()), model, images, [1]), gradient)


def test_memory_of_smoothing_is_flat_in_the_samples(explain: Callable[..., torch.Tensor]) -> None:
    """No pass holds more rows for more samples."""

    class Counting(LinearNetwork):
        rows = 0

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            Counting.rows = max(Counting.rows, len(images))
            return super().forward(images)

    model, held = Counting(1, (64, 64), 2), []
    for samples in (100, 400):
        Counting.rows = 0
        explain(SmoothGrad(SmoothGradOptions(samples=samples)), model, noise(2, 1, 64, 64), [0, 1])
        held.append(Counting.rows)
    assert held[0] == held[1] <= 64


# --- the contract ---------------------------------------------------------------------------------------------------


@parametrize_with_checks([SPECS[name] for name in CONFORMING])
def test_conformance(check: Callable[..., None]) -> None:
    check()
