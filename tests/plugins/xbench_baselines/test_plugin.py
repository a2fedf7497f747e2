"""Controls and the plain gradient: closed forms, captum, scipy, and the conformance checks."""

import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from captum.attr import Saliency
from scipy import ndimage
from scipy.stats import kstest
from torch import nn

import xbench_baselines
from xbench import Batch, DatasetInfo, Explainer, Options
from xbench.runtime.seeding import rng, sample_seeds
from xbench.testing import parametrize_with_checks
from xbench.testing.networks import ConvNetwork, LinearNetwork
from xbench_baselines.controls.explainers import Blurred, Centre, Constant, Edges, Inverted, Mask, Random
from xbench_baselines.controls.options import BlurredOptions, CentreOptions
from xbench_baselines.gradients.gradient import Gradient
from xbench_baselines.gradients.options import GradientOptions

INFO = DatasetInfo("toy", ("a", "b"), 1, (8, 8), has_masks=True)


def batch_of(
    images: torch.Tensor | np.ndarray,
    masks: torch.Tensor | None = None,
    has_mask: torch.Tensor | None = None,
    ids: Sequence[str] | None = None,
) -> Batch:
    n, spatial = len(images), images.shape[2:]
    ids = ids or [f"sample-{index}" for index in range(n)]
    return Batch(
        images=torch.as_tensor(images, dtype=torch.float32),
        labels=torch.zeros(n, dtype=torch.int64),
        ids=tuple(ids),
        groups=tuple(ids),
        masks=torch.zeros((n, *spatial), dtype=torch.bool) if masks is None else masks,
        has_mask=torch.full((n,), masks is not None) if has_mask is None else has_mask,
        seeds=torch.from_numpy(sample_seeds(0, ids)),
    )


def noise(*shape: int) -> np.ndarray:
    return rng(0, "images").random(shape, dtype=np.float32)


def explain(
    explainer: Explainer,
    images: torch.Tensor | np.ndarray | Batch,
    targets: Sequence[int] | torch.Tensor | None = None,
    model: nn.Module | None = None,
) -> torch.Tensor:
    batch = images if isinstance(images, Batch) else batch_of(images)
    classes = torch.zeros(len(batch), dtype=torch.int64) if targets is None else torch.as_tensor(targets)
    return explainer.explain(model or nn.Identity(), batch, classes, "under test")


# --- gradient -------------------------------------------------------------------------------------------------------


def test_gradient_of_a_linear_model_is_its_weights() -> None:
    model = LinearNetwork(2, (5, 4), outputs=3)
    maps = explain(Gradient(GradientOptions()), noise(3, 2, 5, 4), [2, 0, 1], model)
    expected = model.linear.weight.detach()[[2, 0, 1]].view(3, 2, 5, 4).sum(1)
    torch.testing.assert_close(maps, expected, rtol=0, atol=1e-7)


def test_gradient_of_one_logit_has_a_sign_per_class() -> None:
    model = LinearNetwork(1, (5, 4), outputs=1)
    weight = model.linear.weight.detach().view(5, 4)
    maps = explain(Gradient(GradientOptions()), noise(2, 1, 5, 4), [1, 0], model)
    torch.testing.assert_close(maps, torch.stack([weight, -weight]), rtol=0, atol=0)


@pytest.mark.parametrize("relu", ["module", "functional", "inplace", "reused"])
def test_gradient_agrees_with_captum(relu: str) -> None:
    torch.manual_seed(0)
    model = ConvNetwork(3, 3, relu=relu, batch_norm=True).eval()
    images, targets = torch.from_numpy(noise(4, 3, 12, 10)), torch.tensor([0, 1, 2, 1])
    expected = Saliency(model).attribute(images.clone().requires_grad_(), target=targets, abs=False).sum(1)
    torch.testing.assert_close(
        explain(Gradient(GradientOptions()), images, targets, model), expected, rtol=1e-6, atol=1e-6
    )


def test_gradient_agrees_with_finite_differences() -> None:
    torch.manual_seed(0)
    model = ConvNetwork(1, 2).eval().double()
    image, step = torch.rand(1, 1, 8, 8, dtype=torch.float64), 1e-6
    gradient = Gradient(GradientOptions()).attribute(model, image, torch.tensor([1]))[0]
    shifts = step * torch.eye(64, dtype=torch.float64).view(64, 1, 8, 8)
    with torch.no_grad():
        differences = (model(image + shifts) - model(image - shifts))[:, 1] / (2 * step)
    torch.testing.assert_close(gradient.flatten(), differences, rtol=1e-3, atol=1e-8)


class Blind(nn.Module):
    """Logits that do not depend on the image; `attached`: through a parameter, so that autograd has a graph to walk."""

    def __init__(self, attached: bool) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.tensor([[0.3, 0.1]]))
        self.attached = attached

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        zeros = 0 * images.flatten(1).sum(1, keepdim=True) if self.attached else torch.zeros(len(images), 1)
        return zeros + self.bias


@pytest.mark.parametrize("attached", [True, False])
def test_gradient_of_a_constant_model_is_zero(attached: bool) -> None:
    images = noise(3, 1, 6, 6)
    assert not explain(Gradient(GradientOptions()), images, model=Blind(attached)).any()
    assert (
        not Gradient(GradientOptions())
        .attribute(Blind(attached), torch.from_numpy(images), torch.zeros(3).long())
        .any()
    )


# --- controls -------------------------------------------------------------------------------------------------------


def test_random_maps_are_uniform_and_independent() -> None:
    maps = explain(Random(Options()), noise(40, 1, 50, 50)).flatten(1).double()
    assert kstest(maps.flatten().numpy(), "uniform").pvalue > 1e-3
    assert maps.mean().item() == pytest.approx(0.5, abs=4 / np.sqrt(12 * maps.numel()))
    correlations = np.corrcoef(maps.numpy())[np.triu_indices(40, 1)]
    assert abs(correlations).max() < 5 / np.sqrt(2500)


def test_random_maps_follow_the_sample_not_the_batch() -> None:
    images = noise(4, 1, 7, 7)
    whole = explain(Random(Options()), batch_of(images, ids=["a", "b", "c", "d"]))
    assert torch.equal(explain(Random(Options()), batch_of(images[:1], ids=["c"])), whole[2:3])
    assert not torch.equal(whole[0], whole[1])


def test_constant_is_one_value_everywhere() -> None:
    assert not explain(Constant(Options()), noise(2, 3, 5, 6)).any()


@pytest.mark.parametrize("spatial", [(9, 13), (8, 6), (4, 5, 6)])
def test_centre_is_a_gaussian_around_the_middle(spatial: tuple[int, ...]) -> None:
    (prior,) = explain(Centre(CentreOptions(width=0.3)), noise(1, 2, *spatial)).numpy()
    grid = np.meshgrid(*(np.arange(size) for size in spatial), indexing="ij")
    squares = [((axis - (size - 1) / 2) / (0.3 * size)) ** 2 for axis, size in zip(grid, spatial, strict=True)]
    np.testing.assert_allclose(prior, np.exp(-sum(squares) / 2), rtol=1e-5)
    np.testing.assert_array_equal(prior, np.flip(prior))


def test_edges_lie_on_a_step_and_nowhere_else() -> None:
    images = np.zeros((1, 2, 6, 8), dtype=np.float32)
    images[:, 0, :, 4:] = 1  # a step of height 1 in the first of two channels
    (edges,) = explain(Edges(Options()), images)
    assert (edges[:, 3:5] == 4 / 2).all()  # Sobel weighs a unit step 1 + 2 + 1
    assert not edges[:, :3].any()
    assert not edges[:, 5:].any()


@pytest.mark.parametrize("spatial", [(9, 7), (5, 6, 7)])
def test_edges_agree_with_scipy(spatial: tuple[int, ...]) -> None:
    images = noise(2, 3, *spatial)
    expected = [
        np.mean(
            [
                ndimage.generic_gradient_magnitude(channel.astype(float), ndimage.sobel, mode="nearest")
                for channel in image
            ],
            0,
        )
        for image in images
    ]
    np.testing.assert_allclose(explain(Edges(Options()), images).numpy(), expected, rtol=1e-5)


def test_mask_is_the_experts_outline() -> None:
    masks = torch.zeros(2, 5, 5, dtype=torch.bool)
    masks[0, 1:3, 2:4] = True
    maps = explain(Mask(Options()), batch_of(noise(2, 1, 5, 5), masks, torch.tensor([True, False])))
    assert torch.equal(maps[0], masks[0].float())
    assert not maps[1].any()


def test_mask_refuses_a_dataset_without_masks() -> None:
    assert Mask(Options()).supports(nn.Identity(), INFO) is None
    without = DatasetInfo("bare", ("a", "b"), 1, (8, 8))
    assert "bare has no expert masks" in Mask(Options()).supports(nn.Identity(), without)


def test_inverted_reverses_the_order() -> None:
    maps = torch.from_numpy(noise(2, 5, 5))
    assert torch.equal(
        Inverted(Options()).transform(maps).flatten(1).argsort(), maps.flatten(1).argsort(descending=True)
    )


@pytest.mark.parametrize("spatial", [(12, 9), (5, 6, 7)])
def test_blurred_agrees_with_scipy_and_keeps_the_mean(spatial: tuple[int, ...]) -> None:
    maps = torch.from_numpy(noise(3, *spatial))
    blurred = Blurred(BlurredOptions(sigma=2)).transform(maps)
    expected = ndimage.gaussian_filter(maps.numpy().astype(float), (0, *[2] * len(spatial)))
    np.testing.assert_allclose(blurred.numpy(), expected, atol=1e-6)
    torch.testing.assert_close(blurred.flatten(1).mean(1), maps.flatten(1).mean(1), rtol=1e-5, atol=0)
    assert (blurred.flatten(1).std(1) < maps.flatten(1).std(1)).all()


# --- the plugin -----------------------------------------------------------------------------------------------------


def test_controls_are_marked_and_join() -> None:
    specs = {spec.name: spec for spec in xbench_baselines.xbench_explainers()}
    controls = {"random", "constant", "centre", "edges", "mask", "inverted", "blurred"}
    assert {name for name, spec in specs.items() if spec.control} == controls
    assert {name for name, spec in specs.items() if spec.joins == "run"} == controls - {"inverted", "blurred"} | {
        "gradient"
    }
    assert {name for name, spec in specs.items() if spec.joins == "explainer"} == {"inverted", "blurred"}
    assert all(spec.argument == "explainer" for spec in specs.values() if spec.joins == "explainer")


def test_the_plugin_imports_no_torch() -> None:
    code = """if True:
        import sys, xbench_baselines
        [spec.load_options() for spec in xbench_baselines.xbench_explainers()]
        sys.exit("torch" in sys.modules)
    """
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@parametrize_with_checks(spec for spec in xbench_baselines.xbench_explainers() if spec.control)
def test_the_controls_conform(check: Callable[..., None]) -> None:
    check()


def test_the_tests_of_every_family_check_conformance() -> None:
    families = "".join(path.read_text() for path in Path(__file__).parent.glob("*/test_*.py"))
    for spec in xbench_baselines.xbench_explainers():
        assert spec.control or f'"{spec.name}"' in families, spec.name
    assert families.count("parametrize_with_checks(") >= 5
