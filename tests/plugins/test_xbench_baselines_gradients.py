"""Gradients, guided backpropagation and deconvolution, smoothing, iterative saliency: closed forms, captum, axioms."""

import itertools

import numpy as np
import pytest
import torch
from captum.attr import Deconvolution as CaptumDeconvolution
from captum.attr import GuidedBackprop as CaptumGuided
from captum.attr import InputXGradient, Saliency
from scipy.ndimage import binary_dilation
from skimage.restoration import inpaint_biharmonic
from torch import nn
from torch.nn import functional as F

from xbench import Batch, DatasetInfo, ExplainerSpec
from xbench.operations import Rules
from xbench.seeding import rng, sample_seeds
from xbench.testing import parametrize_with_checks
from xbench.testing.networks import ConvNetwork, LinearNetwork
from xbench_baselines.backpropagation import Deconvolution, GuidedBackpropagation
from xbench_baselines.gradients import Gradient, InputTimesGradient
from xbench_baselines.iterative import IterativeSaliency
from xbench_baselines.options.gradients import (
    BackpropagationOptions,
    GradientOptions,
    IterativeSaliencyOptions,
    NoiseOptions,
    SmoothGradOptions,
)
from xbench_baselines.smoothing import ImageNoise, SmoothGrad, SmoothGradSquared, VarGrad

INFO = DatasetInfo("toy", ("a", "b"), 1, (12, 10))
COLOUR = DatasetInfo("toy", ("a", "b", "c"), 3, (16, 16))
STYLES = ("module", "functional", "inplace", "reused")
NAMED = {"deconvolution": (Deconvolution, CaptumDeconvolution), "guided": (GuidedBackpropagation, CaptumGuided)}


def batch_of(images, ids=None):
    images = torch.as_tensor(images, dtype=torch.float32)
    count, ids = len(images), ids or [f"sample-{index}" for index in range(len(images))]
    return Batch(
        images=images,
        labels=torch.zeros(count, dtype=torch.int64),
        ids=tuple(ids),
        groups=tuple(ids),
        masks=torch.zeros((count, *images.shape[2:]), dtype=torch.bool),
        has_mask=torch.zeros(count, dtype=torch.bool),
        seeds=torch.from_numpy(sample_seeds(0, ids)),
    )


def noise(*shape):
    return torch.from_numpy(rng(0, "images").random(shape, dtype=np.float32))


def explain(explainer, model, images, targets, ids=None):
    return explainer.explain(model, batch_of(images, ids), torch.as_tensor(targets), "under test")


def network(relu="module", channels=3, outputs=3):
    """The same weights whatever the style, batch norms with statistics and scales of their own."""
    torch.manual_seed(0)
    model = ConvNetwork(channels, outputs, relu=relu, batch_norm=True)
    for norm in model.norms:
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        nn.init.uniform_(norm.bias, -0.3, 0.3)
        nn.init.uniform_(norm.running_mean, -0.1, 0.1)
    return model.eval()


def close(found, expected, tolerance=1e-5):
    """Equal to `tolerance` of the largest value, which must not be zero."""
    assert expected.abs().max() > 0
    torch.testing.assert_close(found, expected, rtol=0, atol=tolerance * float(expected.abs().max()))


# --- gradient and input x gradient ----------------------------------------------------------------------------------


def test_input_x_gradient_of_a_linear_model_is_weight_times_image():
    model, images = LinearNetwork(2, (5, 4), outputs=3), noise(3, 2, 5, 4)
    expected = (images * model.linear.weight.detach()[[2, 0, 1]].view(3, 2, 5, 4)).sum(1)
    close(explain(InputTimesGradient(GradientOptions()), model, images, [2, 0, 1]), expected, 1e-6)


def test_input_x_gradient_agrees_with_captum():
    model, images, targets = network("functional"), noise(4, 3, 12, 10), torch.tensor([0, 1, 2, 1])
    expected = InputXGradient(model).attribute(images.clone().requires_grad_(), target=targets).sum(1).detach()
    close(explain(InputTimesGradient(GradientOptions()), model, images, targets), expected)


def test_input_x_gradient_of_a_network_without_biases_sums_to_the_score():
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
def test_score_neuron_explains_the_one_neuron_for_both_classes(kind, options):
    model, images = network(channels=1, outputs=1), noise(2, 1, 12, 10)
    by_class, by_neuron = kind(options()), kind(options(score="neuron"))
    of_one = explain(by_class, model, images, [1, 1])
    assert torch.equal(explain(by_neuron, model, images, [0, 0]), of_one)
    assert torch.equal(explain(by_neuron, model, images, [1, 1]), of_one)
    assert by_neuron.supports(model, INFO) is None
    refused = by_neuron.supports(network(channels=1, outputs=2), INFO)
    assert "one output neuron" in refused
    assert "2" in refused
    assert by_class.supports(network(channels=1, outputs=2), INFO) is None


@pytest.mark.parametrize("kind", [Gradient, InputTimesGradient, SmoothGrad])
def test_the_maps_of_one_neurons_classes_are_each_others_negative(kind):
    model, images = network(channels=1, outputs=1), noise(2, 1, 12, 10)
    explainer = kind(SmoothGradOptions())
    maps = explain(explainer, model, images, [1, 1])
    assert maps.any()
    assert torch.equal(explain(explainer, model, images, [0, 0]), -maps)


# --- deconvolution and guided backpropagation -----------------------------------------------------------------------


class OneLayer(nn.Module):
    """y = v . relu(Wx), W and v given; `relu6` caps the units."""

    def __init__(self, weight, readout, relu=F.relu):
        super().__init__()
        self.weight, self.readout, self.relu = weight, readout, relu

    def forward(self, images):
        return self.relu(images.flatten(1) @ self.weight.T) @ self.readout.T


@pytest.mark.parametrize("relu", [F.relu, torch.Tensor.relu, F.relu_, nn.ReLU(), nn.ReLU(inplace=True)])
def test_one_layer_has_a_closed_form(relu):
    torch.manual_seed(0)
    weight, readout, images = torch.randn(7, 20), torch.randn(3, 7), noise(4, 1, 5, 4)
    model, targets = OneLayer(weight, readout, relu), torch.tensor([0, 1, 2, 2])
    positive = readout[targets].clamp(min=0)
    active = (images.flatten(1) @ weight.T > 0).float()
    assert 0 < active.mean() < 1
    close(explain(Deconvolution(BackpropagationOptions()), model, images, targets).flatten(1), positive @ weight, 1e-6)
    guided = explain(GuidedBackpropagation(BackpropagationOptions()), model, images, targets).flatten(1)
    close(guided, (positive * active) @ weight, 1e-6)


@pytest.mark.parametrize("relu", [F.relu6, nn.ReLU6(inplace=True), lambda x: F.hardtanh(x, 0.0, 6.0)])
def test_relu6_passes_nothing_beyond_its_cap(relu):
    torch.manual_seed(0)
    weight, readout, images = 6 * torch.randn(9, 20), torch.randn(2, 9), noise(4, 1, 5, 4)
    model, targets = OneLayer(weight, readout, relu), torch.tensor([0, 1, 0, 1])
    units = images.flatten(1) @ weight.T
    active = ((units > 0) & (units < 6)).float()
    assert (units > 6).any()
    expected = (readout[targets].clamp(min=0) * active) @ weight
    guided = GuidedBackpropagation(BackpropagationOptions())
    close(explain(guided, model, images, targets).flatten(1), expected, 1e-6)
    assert guided.supports(model, DatasetInfo("toy", ("a", "b"), 1, (5, 4))) is None


@pytest.mark.parametrize("name", NAMED)
@pytest.mark.parametrize("relu", STYLES)
@pytest.mark.filterwarnings("ignore:Setting backward hooks")
def test_every_style_gives_what_captum_gives_for_modules(name, relu):
    kind, reference = NAMED[name]
    images, targets = noise(4, 3, 16, 16), torch.tensor([0, 1, 2, 1])
    expected = reference(network("module")).attribute(images.clone().requires_grad_(), target=targets).sum(1)
    explainer = kind(BackpropagationOptions())
    assert explainer.supports(network(relu), COLOUR) is None
    close(explain(explainer, network(relu), images, targets), expected)


@pytest.mark.parametrize("name", NAMED)
@pytest.mark.filterwarnings("ignore:Setting backward hooks")
def test_captum_gives_the_plain_gradient_of_a_functional_network(name):
    """Why captum is not used: a rule that never fires, without a word."""
    kind, reference = NAMED[name]
    model, images, targets = network("functional"), noise(4, 3, 16, 16), torch.tensor([0, 1, 2, 1])
    theirs = reference(model).attribute(images.clone().requires_grad_(), target=targets).sum(1)
    plain = Saliency(model).attribute(images.clone().requires_grad_(), target=targets, abs=False).sum(1)
    close(theirs, plain, 1e-6)
    ours = explain(kind(BackpropagationOptions()), model, images, targets)
    assert (ours - plain).abs().max() > 0.1 * plain.abs().max()


class Squeezed(nn.Module):
    """Max pooling, squeeze and excitation, a skip connection; `gate` is what the excitation ends in."""

    def __init__(self, gate=torch.sigmoid):
        super().__init__()
        self.stem, self.inner = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.squeeze, self.excite, self.head = nn.Linear(8, 4), nn.Linear(4, 8), nn.Linear(8, 3)
        self.gate = gate

    def forward(self, images):
        features = F.max_pool2d(F.relu(self.stem(images)), 3, stride=2, padding=1)
        weight = self.gate(self.excite(F.relu(self.squeeze(features.mean((2, 3))))))
        features = F.relu_(features + self.inner(features) * weight[:, :, None, None])
        return self.head(F.adaptive_max_pool2d(features, 1).flatten(1))


@pytest.mark.parametrize("name", NAMED)
def test_gates_and_max_pooling_pass_the_gradient_as_it_is(name):
    torch.manual_seed(0)
    kind, _ = NAMED[name]
    model, images, targets = Squeezed().eval(), noise(2, 3, 16, 16), torch.tensor([0, 2])
    explainer = kind(BackpropagationOptions())
    assert explainer.supports(model, COLOUR) is None
    # By hand: the rule as surrogates whose plain gradient is the rule's.
    images.requires_grad_()
    features = [model.stem(images)]
    clamped = {"guided": lambda g, z: g.clamp(min=0) * (z > 0), "deconvolution": lambda g, z: g.clamp(min=0)}[name]

    def ruled(features):
        rectified = features.relu()
        if name == "deconvolution":  # the value of relu, the derivative of the identity
            rectified = features + (rectified - features).detach()
        rectified.register_hook(lambda given: clamped(given, features))
        return rectified

    features = F.max_pool2d(ruled(features[0]), 3, stride=2, padding=1)
    weight = torch.sigmoid(model.excite(ruled(model.squeeze(features.mean((2, 3))))))
    features = ruled(features + model.inner(features) * weight[:, :, None, None])
    score = model.head(F.adaptive_max_pool2d(features, 1).flatten(1)).gather(1, targets[:, None]).sum()
    (expected,) = torch.autograd.grad(score, images)
    close(explain(explainer, model, images.detach(), targets), expected.sum(1))


@pytest.mark.parametrize("name", NAMED)
@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (LinearNetwork(3, (16, 16), 3), "it has no ReLU"),
        (nn.Sequential(nn.Conv2d(3, 4, 3), nn.GELU(), nn.Flatten(), nn.Linear(784, 3)), "it has no ReLU"),
        (Squeezed(torch.tanh), "no rule for tanh"),
        (nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.SiLU(), nn.Flatten(), nn.Linear(784, 3)), "no rule for SiLU"),
        (Squeezed(lambda features: features * torch.sigmoid(features)), "no rule for SiLU"),
        (nn.Sequential(nn.ReLU(), nn.Hardtanh(-1, 1), nn.Flatten(), nn.Linear(768, 3)), "no rule for a clamp"),
    ],
)
def test_other_models_are_refused_with_the_reason(name, model, reason):
    assert reason in NAMED[name][0](BackpropagationOptions()).supports(model, COLOUR)


@pytest.mark.parametrize("name", NAMED)
def test_a_rule_that_does_not_fire_is_found(name, monkeypatch):
    """Both lines of defence: the recorded graph, and hooks on autograd's own nodes."""
    explainer = NAMED[name][0](BackpropagationOptions())
    with monkeypatch.context() as patch:
        patch.setattr(
            Rules, "__torch_function__", lambda self, func, types, args=(), kwargs=None: func(*args, **kwargs or {})
        )
        assert "no rule for ReLU" in explainer.supports(network(), COLOUR)
        assert "hooks on the model's own ReLUs" in explainer._unproven(network(), noise(2, 3, 16, 16))


@pytest.mark.parametrize("training", [True, False])
def test_supports_leaves_the_model_as_it_was(training):
    model = network().train(training)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    for kind, _ in NAMED.values():
        assert kind(BackpropagationOptions(score="class")).supports(model, COLOUR) is None
    assert Gradient(GradientOptions(score="neuron")).supports(model, COLOUR)
    assert all(module.training == training for module in model.modules())
    assert all(parameter.requires_grad and parameter.grad is None for parameter in model.parameters())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


# --- smoothing ------------------------------------------------------------------------------------------------------


class Cubic(nn.Module):
    """One logit, sum of x^3: the gradient 3 x^2 has a mean, a square and a variance under noise in closed form."""

    def forward(self, images):
        return (images**3).flatten(1).sum(1, keepdim=True)


def noisy_gradients(model, batch, targets, samples, sigma):
    """An independent loop over the same noise: (samples, N, C, *spatial)."""
    draws, found = ImageNoise(batch, samples, sigma, "smoothgrad"), []
    for number in range(samples):
        which = torch.arange(len(batch))
        points = draws.on(batch.images, which, torch.full_like(which, number)).requires_grad_()
        (gradient,) = torch.autograd.grad(model(points).gather(1, targets[:, None]).sum(), points)
        found.append(gradient)
    return torch.stack(found)


def test_smoothing_agrees_with_a_loop_over_the_same_noise():
    model, targets, options = network("inplace"), torch.tensor([0, 1, 2]), {"samples": 5, "sigma": 0.3}
    batch = batch_of(noise(3, 3, 12, 10))
    found = noisy_gradients(model, batch, targets, **options)
    expected = {
        SmoothGrad: found.mean(0),
        SmoothGradSquared: found.square().mean(0),
        VarGrad: found.var(0, correction=0),
    }
    for kind, maps in expected.items():
        close(kind(SmoothGradOptions(**options)).explain(model, batch, targets, "under test"), maps.sum(1))


def test_noise_has_the_strength_of_each_images_range():
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


def test_smoothing_of_a_cubic_has_a_closed_form():
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


def test_smoothing_of_a_linear_model_is_exact():
    model, images = LinearNetwork(2, (5, 4), outputs=1), noise(2, 2, 5, 4)
    weight = model.linear.weight.detach().view(2, 5, 4)
    smooth = explain(SmoothGrad(SmoothGradOptions()), model, images, [1, 0])
    close(smooth, torch.stack([weight.sum(0), -weight.sum(0)]), 1e-6)
    squared = explain(SmoothGradSquared(NoiseOptions()), model, images, [1, 0])
    close(squared, weight.square().sum(0).expand(2, 5, 4), 1e-6)
    assert not explain(VarGrad(NoiseOptions()), model, images, [1, 0]).any()


def test_without_noise_smoothgrad_is_the_gradient():
    model, images, targets = network(), noise(3, 3, 12, 10), torch.tensor([0, 1, 2])
    gradient = explain(Gradient(GradientOptions()), model, images, targets)
    close(explain(SmoothGrad(SmoothGradOptions(sigma=0)), model, images, targets), gradient)
    assert explain(VarGrad(NoiseOptions(sigma=0)), model, images, targets).max() < 1e-10 * gradient.abs().max() ** 2


def test_a_flat_image_gets_no_noise():
    model = network(channels=1, outputs=2)
    images = torch.full((1, 1, 12, 10), 0.4)
    gradient = explain(Gradient(GradientOptions()), model, images, [1])
    close(explain(SmoothGrad(SmoothGradOptions()), model, images, [1]), gradient)


def test_memory_of_smoothing_is_flat_in_the_samples():
    """No pass holds more rows for more samples."""

    class Counting(LinearNetwork):
        rows = 0

        def forward(self, images):
            Counting.rows = max(Counting.rows, len(images))
            return super().forward(images)

    model, held = Counting(1, (64, 64), 2), []
    for samples in (100, 400):
        Counting.rows = 0
        explain(SmoothGrad(SmoothGradOptions(samples=samples)), model, noise(2, 1, 64, 64), [0, 1])
        held.append(Counting.rows)
    assert held[0] == held[1] <= 64


# --- iterative saliency ---------------------------------------------------------------------------------------------

LESIONS = ((slice(4, 7), slice(4, 7)), (slice(16, 19), slice(14, 17)))


class Lesions(nn.Module):
    """Abnormal (class 1) while any of two spots is bright. The first outshines: only the brighter has a gradient."""

    def forward(self, images):
        brightness = torch.stack([images[:, 0, rows, columns].mean((1, 2)) for rows, columns in LESIONS], 1)
        worst = (brightness * torch.tensor([1.0, 0.9])).amax(1, keepdim=True)
        return 10 * (worst - 0.5)


def with_lesions(*spots):
    images = torch.full((1, 1, 24, 20), 0.1)
    for rows, columns in spots:
        images[0, 0, rows, columns] = 1
    return images


def iterative(**options):
    return IterativeSaliency(IterativeSaliencyOptions(share=9 / 480, **options))


def test_the_second_lesion_comes_to_light_in_the_second_iteration():
    first, second = torch.zeros(24, 20), torch.zeros(24, 20)
    first[LESIONS[0]], second[LESIONS[1]] = 1, 1
    images = with_lesions(*LESIONS)
    for iterations, expected in ((1, first), (2, first + 0.7 * second), (20, first + 0.7 * second)):
        maps = explain(iterative(iterations=iterations, gamma=0.7), Lesions(), images, [1])
        torch.testing.assert_close(maps[0], expected)


def test_images_that_are_not_abnormal_have_the_scaled_gradient():
    model, images, targets = network(), noise(4, 3, 12, 10), torch.tensor([0, 1, 2, 1])
    gradient = explain(Gradient(GradientOptions()), model, images, targets).abs().flatten(1)
    low, high = gradient.amin(1, keepdim=True), gradient.amax(1, keepdim=True)
    expected = ((gradient - low) / (high - low)).view(4, 12, 10)
    absent = next(c for c in range(3) if c not in model(images).argmax(1))
    close(explain(IterativeSaliency(IterativeSaliencyOptions(abnormal=absent)), model, images, targets), expected)
    present = int(model(images)[0].argmax())
    once = IterativeSaliency(IterativeSaliencyOptions(abnormal=present, iterations=1))
    close(explain(once, model, images, targets), expected)


def test_iterations_agree_with_a_loop_over_one_image():
    model, image, options = (
        network(),
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


def test_only_abnormal_images_are_passed_on_and_each_goes_its_own_way():
    images = torch.cat([with_lesions(*LESIONS), with_lesions(), with_lesions(LESIONS[1]), with_lesions(*LESIONS)])
    passed = []

    class Watched(Lesions):
        def forward(self, images):
            passed.append(len(images))
            return super().forward(images)

    maps = explain(iterative(), Watched(), images, [1, 1, 1, 1])
    assert passed == [4, 3, 2]
    alone = torch.cat([explain(iterative(), Lesions(), images[k : k + 1], [1]) for k in range(4)])
    torch.testing.assert_close(maps, alone)


def test_iterative_saliency_survives_what_it_cannot_inpaint():
    constant = nn.Sequential(nn.Flatten(), nn.Linear(100, 2))
    with torch.no_grad():
        constant[1].weight.zero_()
        constant[1].bias.copy_(torch.tensor([0.0, 1.0]))
    assert not explain(IterativeSaliency(IterativeSaliencyOptions()), constant, noise(2, 1, 10, 10), [0, 1]).any()
    everything = IterativeSaliency(IterativeSaliencyOptions(share=0.9, dilation=5, iterations=3))
    assert torch.isfinite(explain(everything, network(channels=1, outputs=2), noise(2, 1, 10, 10), [0, 1])).all()


def test_iterative_saliency_refuses_a_class_that_does_not_exist():
    reason = IterativeSaliency(IterativeSaliencyOptions(abnormal=2)).supports(Lesions(), INFO)
    assert "abnormal=2" in reason
    assert "0 to 1" in reason


# --- the contract ---------------------------------------------------------------------------------------------------


def spec(name, factory, options):
    where = f"xbench_baselines.options.gradients:{options}"
    return ExplainerSpec(name, "under test", factory=f"xbench_baselines.{factory}", options=where)


@parametrize_with_checks(
    [
        spec("gradient", "gradients:Gradient", "GradientOptions"),
        spec("input-x-gradient", "gradients:InputTimesGradient", "GradientOptions"),
        spec("deconvolution", "backpropagation:Deconvolution", "BackpropagationOptions"),
        spec("guided-backpropagation", "backpropagation:GuidedBackpropagation", "BackpropagationOptions"),
        spec("smoothgrad", "smoothing:SmoothGrad", "SmoothGradOptions"),
        spec("smoothgrad-squared", "smoothing:SmoothGradSquared", "NoiseOptions"),
        spec("vargrad", "smoothing:VarGrad", "NoiseOptions"),
    ]
)
def test_conformance(check):
    check()


@parametrize_with_checks(
    [spec("iterative-saliency", "iterative:IterativeSaliency", "IterativeSaliencyOptions")], iterations=3
)
def test_conformance_of_iterative_saliency(check):
    check()
