"""Axioms across families, through the registry: what a method claims holds, and what it does not claim is not asked."""

import copy
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from xbench import Batch, DatasetInfo, Session, Split
from xbench.registry.discovery import discover
from xbench.registry.references import choose
from xbench.runtime.seeding import sample_seeds
from xbench.testing.networks import ConvNetwork

INFO = DatasetInfo("toy", ("a", "b"), 1, (16, 16))
GRADIENT = ("gradient", "input-x-gradient", "smoothgrad", "smoothgrad-squared", "vargrad")
PATHS = ("integrated-gradients", "integrated-gradients-bw", "expected-gradients", "gradient-shap")
RULES = ("deconvolution", "guided-backpropagation", "lrp-epsilon", "lrp-gamma", "lrp-alpha-beta", "lrp-preset-a")
DIFFERENCES = ("deeplift", "deepshap")
PERTURBATION = ("occlusion", "feature-ablation", "lime", "kernelshap", "rise")
QUICK = {"samples": 40, "masks": 400, "background": 8, "pool": 30}


@pytest.fixture(scope="module")
def train() -> Split:
    images = np.random.default_rng(5).random((30, 1, 16, 16), dtype=np.float32)
    names = [str(index) for index in range(30)]
    return Split.from_arrays(images, np.arange(30) % 2, names, names)


@pytest.fixture
def maps(train: Split, tmp_path: Path) -> Callable[..., torch.Tensor]:
    def explain(reference: str, model: nn.Module, images: torch.Tensor, target: int = 1) -> torch.Tensor:
        choice = choose("explainer", reference, discover())
        fewer = {key: value for key, value in QUICK.items() if getattr(choice.options, key, 0) > value}
        explainer = choice.entry.spec.load()(choice.options.model_copy(update=fewer))
        model = model.eval().requires_grad_(False)
        assert explainer.supports(model, INFO) is None
        if explainer.trained:
            explainer.fit(model, train, train, INFO, Session(tmp_path))
            explainer.restore(tmp_path, model, INFO, "cpu")
        count = len(images)
        ids = tuple(str(index) for index in range(count))
        batch = Batch(
            images=images, labels=torch.zeros(count, dtype=torch.int64), ids=ids, groups=ids,
            masks=torch.zeros(count, 16, 16, dtype=torch.bool), has_mask=torch.zeros(count, dtype=torch.bool),
            seeds=torch.from_numpy(sample_seeds(0, ids)),
        )  # fmt: skip
        return explainer.explain(model, batch, torch.full((count,), target), reference)

    return explain


def _images(count: int = 2) -> torch.Tensor:
    return torch.rand((count, 1, 16, 16), generator=torch.Generator().manual_seed(1))


class RightHalf(nn.Module):
    """Looks at the right half only."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.relu, self.last = nn.Conv2d(1, 6, 4, stride=4), nn.ReLU(), nn.Linear(6 * 4 * 2, 2)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.last(self.relu(self.first(images[..., 8:])).flatten(1))


@pytest.mark.parametrize("name", [*GRADIENT, *PATHS, *RULES, *DIFFERENCES, "deep-taylor", "deep-taylor-innvestigate"])
def test_what_the_model_does_not_look_at_gets_nothing(maps: Callable[..., torch.Tensor], name: str) -> None:
    found = torch.cat([maps(name, RightHalf(), _images(), target) for target in (0, 1)])
    assert found[..., 8:].abs().sum() > 0
    assert found[..., :8].abs().max() == 0


class Saturated(nn.Module):
    """S_1 = 1 - ReLU(1 - x) of one pixel, flat from x = 1 on; S_0 = 0 (Sundararajan et al. 2017, section 2.1)."""

    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Linear(1, 2)
        self.last.weight.data = torch.tensor([[0.0], [-1.0]])
        self.last.bias.data = torch.tensor([0.0, 1.0])

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.last(torch.relu(1 - 2 * images[:, :, 3, 5]))


@pytest.mark.parametrize("name", ["integrated-gradients", "deeplift", "deepshap", "expected-gradients"])
def test_the_only_pixel_that_matters_gets_all_even_where_the_gradient_is_flat(
    maps: Callable[..., torch.Tensor], name: str
) -> None:
    images = torch.full((1, 1, 16, 16), 0.9)
    assert maps("gradient", Saturated(), images).abs().max() == 0
    found = maps(name, Saturated(), images)[0]
    assert found[3, 5] > 0.2
    assert found.abs().sum() == found[3, 5]


def _rescaled(network: nn.Module) -> nn.Module:
    """The same function: every ReLU layer's output three times as large, the next layer's weights a third."""
    other = copy.deepcopy(network)
    with torch.no_grad():
        for index, convolution in enumerate(other.convolutions):  # type: ignore[arg-type]
            convolution.weight *= 3 if index == 0 else 1
            convolution.bias *= 3
        other.head.weight /= 3
    return other


@pytest.mark.parametrize(
    "name", [*GRADIENT, *PATHS, *DIFFERENCES, *PERTURBATION, "lrp-epsilon", "gradcam", "cam", "respond-cam"]
)
def test_another_way_to_compute_the_same_function_makes_no_other_map(
    maps: Callable[..., torch.Tensor], name: str
) -> None:
    torch.manual_seed(3)
    network, images = ConvNetwork(1, 2), _images()
    other = _rescaled(network)
    torch.testing.assert_close(other(images), network(images))
    first, second = maps(name, network, images), maps(name, other, images)
    # The epsilon of LRP is added to denominators of whatever size.
    tolerance = 1e-3 if name == "lrp-epsilon" else 1e-4
    assert float((first - second).abs().max()) <= tolerance * float(first.abs().max())
    assert float(first.abs().max()) > 0


@pytest.mark.parametrize(
    "name", ["gradient", "input-x-gradient", "smoothgrad", *PATHS, *DIFFERENCES, "lrp-epsilon", *PERTURBATION, "cam"]
)
def test_evidence_for_one_class_of_a_single_logit_is_evidence_against_the_other(
    maps: Callable[..., torch.Tensor], name: str
) -> None:
    torch.manual_seed(4)
    network, images = ConvNetwork(1, 1), _images()
    first, second = maps(name, network, images, 0), maps(name, network, images, 1)
    assert float((first + second).abs().max()) <= 1e-4 * float(first.abs().max())
    assert float(first.abs().max()) > 0


@pytest.mark.parametrize("name", ["smoothgrad-squared", "vargrad", "visualbackprop"])
def test_maps_that_only_say_how_much_are_the_same_for_both_classes_of_a_single_logit(
    maps: Callable[..., torch.Tensor], name: str
) -> None:
    torch.manual_seed(4)
    network, images = ConvNetwork(1, 1), _images()
    torch.testing.assert_close(maps(name, network, images, 0), maps(name, network, images, 1))
    assert float(maps(name, network, images, 0).min()) >= 0
