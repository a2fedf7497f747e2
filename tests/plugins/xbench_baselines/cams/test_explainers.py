"""The class activation family: closed forms, captum, pytorch-grad-cam."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from captum.attr import GuidedGradCam as CaptumGuidedGradCam
from captum.attr import LayerAttribution, LayerGradCam
from torch import nn
from torch.nn import functional as F

import xbench_baselines
from xbench import DatasetInfo, Explainer
from xbench.runtime.seeding import rng
from xbench.testing import parametrize_with_checks
from xbench.testing.networks import ConvNetwork
from xbench_baselines.cams.explainers import enlarged

SPECS = {spec.name: spec for spec in xbench_baselines.xbench_explainers()}
CAMS = ["cam", "gradcam", "gradcam-plus-plus", "guided-gradcam", "respond-cam", "layercam"]
RELU_STYLES = ["module", "functional", "inplace", "reused"]


def noise(*shape: int) -> torch.Tensor:
    return torch.from_numpy(rng(0, "images").random(shape, dtype=np.float32))


def make(name: str, **values: Any) -> Any:
    return SPECS[name].load()(SPECS[name].load_options()(**values))


def refused(
    explainer: Explainer, model: nn.Module, channels: int = 1, spatial: tuple[int, ...] = (32, 32)
) -> str | None:
    return explainer.supports(model, DatasetInfo("toy", ("a", "b", "c"), channels, spatial))


def network(channels: int = 1, outputs: int = 3, relu: str = "module", seed: int = 0, **options: Any) -> ConvNetwork:
    torch.manual_seed(seed)
    return ConvNetwork(channels, outputs, relu=relu, **options).eval()


def features_of(model: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """What a ConvNetwork pools."""
    with torch.no_grad():
        for convolution, norm in zip(model.convolutions, model.norms, strict=True):  # type: ignore[arg-type]
            images = norm(convolution(images)).relu()
    return images


@pytest.fixture
def coarse(explain: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    """The map before it is enlarged."""

    def run(
        explainer: Any, model: nn.Module, images: torch.Tensor, targets: Sequence[int] | torch.Tensor
    ) -> torch.Tensor:
        seen = {}
        combined = explainer.combined
        explainer.combined = lambda features, gradients: seen.setdefault("map", combined(features, gradients))
        explain(explainer, model, images, targets)
        return seen["map"]

    return run


# --- closed forms ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("relu", RELU_STYLES)
@pytest.mark.parametrize(("channels", "outputs"), [(1, 1), (3, 3)])
def test_cam_is_the_heads_weights_times_the_features(
    explain: Callable[..., torch.Tensor], relu: str, channels: int, outputs: int
) -> None:
    model, images = network(channels, outputs, relu), noise(4, channels, 18, 22)
    targets = [0, 1, 0, 1] if outputs == 1 else [0, 1, 2, 1]
    weight = torch.cat([-model.head.weight, model.head.weight]) if outputs == 1 else model.head.weight
    expected = torch.einsum("nk,nkhw->nhw", weight[targets].detach(), features_of(model, images))
    maps = explain(make("cam"), model, images, targets)
    torch.testing.assert_close(maps, enlarged(expected, (18, 22)), rtol=1e-5, atol=1e-6)
    assert refused(make("cam"), model, channels, (18, 22)) is None


def test_the_mean_of_cam_is_the_score_without_the_bias(coarse: Callable[..., torch.Tensor]) -> None:
    model, images, targets = network().double(), noise(3, 1, 16, 24).double(), torch.tensor([2, 0, 1])
    means = coarse(make("cam"), model, images, targets).flatten(1).mean(1)
    scores = model(images)[torch.arange(3), targets] - model.head.bias[targets]
    torch.testing.assert_close(means, scores.detach(), rtol=0, atol=1e-15)


def test_cam_cuts_off_negative_values_on_request(coarse: Callable[..., torch.Tensor]) -> None:
    model, images = network(), noise(2, 1, 16, 16)
    explainer = make("cam", relu=True)
    whole, cut = coarse(make("cam"), model, images, [0, 1]), coarse(explainer, model, images, [0, 1])
    assert (whole < 0).any()
    assert torch.equal(cut, whole.relu())
    assert not explainer.signed
    assert make("cam").signed


def test_gradcam_times_positions_is_cam(coarse: Callable[..., torch.Tensor]) -> None:
    model, images, targets = network(3).double(), noise(3, 3, 16, 24).double(), [2, 0, 1]
    signed = make("gradcam", relu=False)
    cam = coarse(make("cam"), model, images, targets)
    torch.testing.assert_close(coarse(signed, model, images, targets) * 4 * 6, cam, rtol=0, atol=1e-15)
    torch.testing.assert_close(coarse(make("gradcam"), model, images, targets) * 24, cam.relu(), rtol=0, atol=1e-15)
    assert signed.signed
    assert not make("gradcam").signed


@pytest.mark.parametrize("pool", ["max", "amax", "adaptive"])
def test_cam_with_global_max_pooling(
    coarse: Callable[..., torch.Tensor], chain: Callable[..., nn.Module], pool: str
) -> None:
    torch.manual_seed(0)
    pooling = {
        "max": lambda values: F.max_pool2d(values, values.shape[2:]).flatten(1),
        "amax": lambda values: values.amax((2, 3)),
        "adaptive": lambda values: F.adaptive_max_pool2d(values, 1).flatten(1),
    }[pool]
    model = chain([nn.Conv2d(1, 6, 3), nn.ReLU()], pooling, nn.Linear(6, 2)).eval()
    images = noise(2, 1, 9, 8)
    assert refused(make("cam"), model, spatial=(9, 8)) is None
    features = model.features(images).detach()
    expected = torch.einsum("nk,nkhw->nhw", model.head.weight.detach(), features)
    torch.testing.assert_close(coarse(make("cam"), model, images, [0, 1]), expected, rtol=1e-5, atol=1e-6)


def test_gradcam_plus_plus_of_one_position_is_its_closed_form() -> None:
    """a = 1 / (2 + f g)."""
    f, g = noise(3, 5, 1, 1), noise(3, 5, 1, 1) - 0.5
    expected = (f * g.relu() / (2 + f * g)).sum(1)
    torch.testing.assert_close(make("gradcam-plus-plus").combined(f, g), expected.relu())


def test_gradcam_plus_plus_is_the_papers_formula_whatever_the_scale() -> None:
    f, g = noise(2, 5, 4, 3).double(), noise(2, 5, 4, 3).double().flip(0) - 0.4
    for scale in (1.0, 1e-6):
        square, cube = (scale * g) ** 2, (scale * g) ** 3
        a = square / (2 * square + f.sum((2, 3), keepdim=True) * cube)
        weights = (a * (scale * g).relu()).sum((2, 3), keepdim=True)
        expected = (weights * f).sum(1).relu()
        torch.testing.assert_close(make("gradcam-plus-plus").combined(f, scale * g), expected)


def test_gradcam_plus_plus_is_finite_where_negative_features_make_it_singular() -> None:
    f, g = torch.full((1, 1, 2, 1), -1.0), torch.ones(1, 1, 2, 1)  # 2 + F g = 0
    assert not make("gradcam-plus-plus").combined(f, g).any()


def test_respond_cam_sums_to_the_score_of_a_head_that_is_linear_in_the_features(
    coarse: Callable[..., torch.Tensor], chain: Callable[..., nn.Module]
) -> None:
    torch.manual_seed(0)
    model = chain([nn.Conv2d(1, 6, 3, 2), nn.ReLU()], lambda values: values.flatten(1), nn.Linear(6 * 4 * 3, 3))
    model, images, targets = model.double().eval(), noise(3, 1, 9, 8).double(), torch.tensor([0, 2, 1])
    sums = coarse(make("respond-cam"), model, images, targets).flatten(1).sum(1)
    scores = model(images)[torch.arange(3), targets] - model.head.bias[targets]
    torch.testing.assert_close(sums, scores.detach(), rtol=0, atol=1e-14)


def test_respond_cam_leaves_out_channels_whose_sum_vanishes() -> None:
    f = torch.tensor([[[[1.0, -1.0]], [[2.0, 1.0]], [[0.0, 0.0]]]])
    g = torch.tensor([[[[3.0, 1.0]], [[1.0, -1.0]], [[5.0, 5.0]]]])
    expected = (2 - 1) / 3 * f[:, 1]
    torch.testing.assert_close(make("respond-cam").combined(f, g), expected)


def test_layercam_weighs_each_position() -> None:
    f = torch.tensor([[[[1.0, 2.0]], [[3.0, -4.0]]]])
    g = torch.tensor([[[[0.5, -1.0]], [[-1.0, 2.0]]]])
    assert torch.equal(make("layercam").combined(f, g), torch.tensor([[[0.5, 0.0]]]))


def test_maps_are_enlarged_between_the_centres_of_positions() -> None:
    (row,) = enlarged(torch.tensor([[0.0, 1.0]]), (4,))
    assert torch.equal(row, torch.tensor([0.0, 0.25, 0.75, 1.0]))
    flat = enlarged(torch.full((1, 2, 2, 2), 3.0), (4, 5, 6))
    torch.testing.assert_close(flat, torch.full((1, 4, 5, 6), 3.0))


# --- other implementations ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("relu", RELU_STYLES)
def test_gradcam_agrees_with_captum(explain: Callable[..., torch.Tensor], relu: str) -> None:
    images, targets = noise(4, 3, 22, 18), torch.tensor([0, 1, 2, 1])
    plain = network(3, batch_norm=True)
    layer = LayerGradCam(plain, plain.activations[2])
    expected = LayerAttribution.interpolate(
        layer.attribute(images.clone(), target=targets, relu_attributions=True), (22, 18), "bilinear"
    )[:, 0]
    maps = explain(make("gradcam"), network(3, relu=relu, batch_norm=True), images, targets)
    assert maps.any()
    torch.testing.assert_close(maps, expected.detach(), rtol=1e-5, atol=1e-5 * expected.max().item())


# captum says what it does to its own copy of the input and of the model.
@pytest.mark.filterwarnings("ignore:Input Tensor 0 did not already require gradients:UserWarning")
@pytest.mark.filterwarnings("ignore:Setting backward hooks on ReLU activations:UserWarning")
@pytest.mark.parametrize("relu", RELU_STYLES)
def test_guided_gradcam_agrees_with_captum(explain: Callable[..., torch.Tensor], relu: str) -> None:
    images, targets = noise(4, 3, 22, 18), torch.tensor([0, 1, 2, 1])
    plain = network(3, seed=9)
    captum = CaptumGuidedGradCam(plain, plain.activations[2])
    expected = captum.attribute(images.clone(), target=targets, interpolate_mode="bilinear").sum(1).detach()
    model = network(3, relu=relu, seed=9)
    maps = explain(make("guided-gradcam"), model, images, targets)
    torch.testing.assert_close(maps, expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))
    where = explain(make("gradcam"), model, images, targets) == 0
    assert where.any()
    assert not maps[where].any()


@pytest.mark.parametrize(
    ("name", "theirs"),
    [("gradcam-plus-plus", "GradCAMPlusPlus"), ("respond-cam", "XGradCAM"), ("layercam", "LayerCAM")],
)
def test_agreement_with_pytorch_grad_cam(
    explain: Callable[..., torch.Tensor], coarse: Callable[..., torch.Tensor], name: str, theirs: str
) -> None:
    """After its stretching to [0, 1]; with logits so large that its epsilons (1e-6, 1e-7) do not count."""
    reference = getattr(pytest.importorskip("pytorch_grad_cam"), theirs)
    targets_of = pytest.importorskip("pytorch_grad_cam.utils.model_targets").ClassifierOutputTarget
    images, targets, model = noise(3, 1, 24, 20), [0, 2, 1], network()
    model.head.weight.data *= 1e4
    ours = explain(make(name), model, images, targets)
    if name == "respond-cam":  # theirs cuts negative values off before it enlarges
        ours = enlarged(coarse(make(name), model, images, targets).relu(), (24, 20))
    with reference(model, [model.activations[2]]) as cam:
        expected = torch.from_numpy(cam(images.clone(), [targets_of(target) for target in targets]))
    least, largest = ours.amin((1, 2), keepdim=True), ours.amax((1, 2), keepdim=True)
    torch.testing.assert_close((ours - least) / (largest - least), expected, rtol=0, atol=1e-5)


# --- the contract ---------------------------------------------------------------------------------------------------


@parametrize_with_checks([SPECS[name] for name in CAMS])
def test_conformance(check: Callable[..., None]) -> None:
    check()
