"""Feature ablation, LIME and KernelSHAP: linear models, captum, scikit-learn, shap, Shapley values by brute force."""

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from captum._utils.models.linear_model import SkLearnRidge
from captum.attr import FeatureAblation as CaptumFeatureAblation
from captum.attr import Lime as CaptumLime
from scipy import ndimage
from skimage.segmentation import slic
from sklearn.linear_model import Ridge
from torch import nn
from torch.nn import functional as F

import xbench_baselines
from xbench import Batch, ExplainerSpec
from xbench.runtime.seeding import rng
from xbench.testing import parametrize_with_checks
from xbench.testing.networks import LinearNetwork
from xbench_baselines.perturbation.options import FeatureAblationOptions, KernelShapOptions, LimeOptions
from xbench_baselines.perturbation.surrogates import FeatureAblation, KernelShap, Lime


def noise(*shape: int) -> np.ndarray:
    return rng(0, "images").random(shape, dtype=np.float32)


def smooth(*shape: int) -> np.ndarray:
    """Images with structure to cut up."""
    return np.stack([[ndimage.gaussian_filter(channel, 2) * 4 for channel in image] for image in noise(*shape)])


def tiles(spatial: tuple[int, ...], side: int) -> np.ndarray:
    """Square superpixels: int (*spatial)."""
    rows, columns = (np.arange(size) // side for size in spatial)
    return rows[:, None] * (columns[-1] + 1) + columns


def close(made: torch.Tensor, expected: np.ndarray | torch.Tensor, tolerance: float = 1e-5) -> None:
    expected = torch.as_tensor(expected, dtype=torch.float64)
    scale = max(float(expected.abs().max()), 1e-30)
    torch.testing.assert_close(made.double(), expected, rtol=0, atol=tolerance * scale)


def switched(images: np.ndarray, superpixels: np.ndarray, fill: str) -> np.ndarray:
    """The image that shows nothing, one superpixel after the other in numpy."""
    off = np.zeros_like(images)
    for n, labels in enumerate(superpixels):
        for label in np.unique(labels) if fill == "mean" else []:
            off[n][:, labels == label] = images[n][:, labels == label].mean(1, keepdims=True)
    return off


def values_of(
    model: nn.Module, image: np.ndarray, off: np.ndarray, labels: np.ndarray, coalitions: np.ndarray, target: int
) -> np.ndarray:
    """v of coalitions, the slow way: float64 (R,)."""
    perturbed = np.stack([np.where(coalition[labels], image, off) for coalition in coalitions])
    with torch.no_grad():
        return model(torch.from_numpy(perturbed))[:, target].double().numpy()


def sums_over(products: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Per pixel, the sum over its superpixel."""
    return np.stack([np.bincount(one.ravel(), row.ravel())[one] for one, row in zip(labels, products, strict=True)])


@pytest.fixture
def linear_case(
    batch_of: Callable[..., Batch], weights_of: Callable[..., torch.Tensor]
) -> Callable[..., tuple[LinearNetwork, Batch, list[int], dict[str, np.ndarray]]]:
    """A linear model, images, superpixels of other numbers for each, and what each is worth: sum of w (x - off)."""

    def build(channels: int = 2, outputs: int = 3, targets: tuple[int, ...] = (2, 0)) -> Any:
        torch.manual_seed(0)
        model, images = LinearNetwork(channels, (16, 12), outputs), noise(2, channels, 16, 12)
        labels = np.stack([tiles((16, 12), 4), tiles((16, 12), 3)])
        weight = weights_of(model, list(targets), (channels, 16, 12)).numpy().astype(float)
        worth = {fill: sums_over((weight * (images - switched(images, labels, fill))).sum(1), labels) for fill in FILLS}
        return model, batch_of(images, feature=labels), list(targets), worth

    return build


FILLS = ("mean", "zero")
LINEAR = [(2, 3, (2, 0)), (1, 1, (0, 1))]


@pytest.mark.parametrize("case", LINEAR)
@pytest.mark.parametrize("fill", FILLS)
def test_feature_ablation_of_a_linear_model(
    explain: Callable[..., torch.Tensor],
    linear_case: Callable[..., tuple[LinearNetwork, Batch, list[int], dict[str, np.ndarray]]],
    case: tuple[int, int, tuple[int, ...]],
    fill: str,
) -> None:
    model, batch, targets, worth = linear_case(*case)
    maps = explain(FeatureAblation(FeatureAblationOptions(fill=fill)), model, batch, targets)
    close(maps, worth[fill], 3e-5)


@pytest.mark.parametrize("case", LINEAR)
@pytest.mark.parametrize("fill", FILLS)
def test_lime_of_a_linear_model(
    explain: Callable[..., torch.Tensor],
    linear_case: Callable[..., tuple[LinearNetwork, Batch, list[int], dict[str, np.ndarray]]],
    case: tuple[int, int, tuple[int, ...]],
    fill: str,
) -> None:
    model, batch, targets, worth = linear_case(*case)
    maps = explain(Lime(LimeOptions(fill=fill, samples=300, alpha=1e-9)), model, batch, targets)
    close(maps, worth[fill], 1e-4)
    maps = explain(Lime(LimeOptions(fill=fill, samples=5000)), model, batch, targets)
    close(maps, worth[fill], 0.01)  # what the ridge shrinks


@pytest.mark.parametrize("case", LINEAR)
@pytest.mark.parametrize("fill", FILLS)
def test_kernelshap_of_a_linear_model(
    explain: Callable[..., torch.Tensor],
    linear_case: Callable[..., tuple[LinearNetwork, Batch, list[int], dict[str, np.ndarray]]],
    case: tuple[int, int, tuple[int, ...]],
    fill: str,
) -> None:
    model, batch, targets, worth = linear_case(*case)
    maps = explain(KernelShap(KernelShapOptions(fill=fill, samples=300)), model, batch, targets)
    close(maps, worth[fill], 1e-4)


@pytest.mark.parametrize(
    "explainer", [FeatureAblation(FeatureAblationOptions()), Lime(LimeOptions(samples=99, alpha=1e-9))]
)
def test_a_superpixel_of_one_intensity_is_worth_nothing(
    batch_of: Callable[..., Batch], explain: Callable[..., torch.Tensor], explainer: FeatureAblation | Lime
) -> None:
    labels = np.stack([tiles((12, 12), 4)])
    images = labels[:, None].astype(np.float32) / 9
    images[0, 0, :4, :4] += noise(4, 4)
    (worth,) = explain(explainer, LinearNetwork(1, (12, 12), 2), batch_of(images, feature=labels), [1])
    assert abs(worth[0, 0]) > 1e-3
    assert abs(worth[labels[0] > 0]).max() < 1e-5 * abs(worth[0, 0]) + 1e-6


# --- against other implementations -----------------------------------------------------------------------------------


@pytest.fixture
def conv_case(
    positional_network: Callable[..., nn.Module],
) -> Callable[..., tuple[nn.Module, np.ndarray, np.ndarray, list[int]]]:
    """A network, two images, the superpixels of each, targets."""

    def build(side: int = 8, channels: int = 3) -> Any:
        images, drawn = noise(2, channels, 24, 24), smooth(1, 1, 24, 24)[0, 0]
        labels = np.stack([tiles((24, 24), side), slic(drawn, 20, channel_axis=None, start_label=0)])
        return positional_network(channels, 3), images, labels, [2, 1]

    return build


@pytest.mark.parametrize("fill", FILLS)
def test_feature_ablation_agrees_with_captum(
    batch_of: Callable[..., Batch],
    explain: Callable[..., torch.Tensor],
    conv_case: Callable[..., tuple[nn.Module, np.ndarray, np.ndarray, list[int]]],
    fill: str,
) -> None:
    model, images, labels, targets = conv_case()
    maps = explain(FeatureAblation(FeatureAblationOptions(fill=fill)), model, batch_of(images, feature=labels), targets)
    off = torch.from_numpy(switched(images, labels, fill))
    for n, target in enumerate(targets):
        mask = torch.from_numpy(labels[n])[None, None]
        image, baseline = torch.from_numpy(images[n : n + 1]), off[n : n + 1]
        expected = CaptumFeatureAblation(model).attribute(image, baseline, target=target, feature_mask=mask)
        close(maps[n], expected[0, 0].detach(), 1e-4)  # the drops are a thousandth of the scores


@pytest.fixture
def lime_case(
    batch_of: Callable[..., Batch],
    explain: Callable[..., torch.Tensor],
    conv_case: Callable[..., tuple[nn.Module, np.ndarray, np.ndarray, list[int]]],
) -> Callable[..., Any]:
    """Maps, and for each image its coalitions and their weights by the definition."""

    def build(fill: str, n_samples: int = 1500) -> Any:
        model, images, labels, targets = conv_case()
        explainer, batch = Lime(LimeOptions(fill=fill, samples=n_samples)), batch_of(images, feature=labels)
        maps = explain(explainer, model, batch, targets)
        drawn = [
            torch.cat(list(explainer.coalitions(batch.seeds[n : n + 1], labels[n].max() + 1)))
            for n in range(len(images))
        ]
        cosines = [F.cosine_similarity(on.double(), torch.ones_like(on).double()) for on in drawn]
        return model, images, labels, targets, maps, drawn, [(-((1 - cosine) ** 2) / 0.125).exp() for cosine in cosines]

    return build


@pytest.mark.parametrize("fill", FILLS)
def test_lime_agrees_with_ridge_regression_of_scikit_learn(lime_case: Callable[..., Any], fill: str) -> None:
    model, images, labels, targets, maps, drawn, weights = lime_case(fill)
    off = switched(images, labels, fill)
    for n, target in enumerate(targets):
        assert drawn[n].shape == (1500, labels[n].max() + 1)
        values = values_of(model, images[n], off[n], labels[n], drawn[n].numpy(), target)
        fitted = Ridge(alpha=1).fit(drawn[n].numpy(), values, sample_weight=weights[n].numpy())
        close(maps[n], fitted.coef_[labels[n]])


def test_lime_agrees_with_captum_on_the_same_draws(lime_case: Callable[..., Any]) -> None:
    model, images, labels, targets, maps, drawn, weights = lime_case("mean", 200)
    off = torch.from_numpy(switched(images, labels, "mean"))
    for n, target in enumerate(targets):

        def draws(_: object, n: int = n, **kwargs: Any) -> Iterator[torch.Tensor]:
            yield from drawn[n][:, None].long()

        reference = CaptumLime(
            model,
            interpretable_model=SkLearnRidge(alpha=1.0),
            similarity_func=lambda image, changed, on, n=n, **kwargs: weights[n][(drawn[n] == on).all(1)][0],
            perturb_func=draws,
        )
        mask, image = torch.from_numpy(labels[n])[None, None], torch.from_numpy(images[n : n + 1])
        expected = reference.attribute(
            image, off[n : n + 1], target=target, feature_mask=mask, n_samples=200, perturbations_per_eval=50
        )
        close(maps[n], expected[0, 0], 1e-4)  # captum fits in float32


def test_lime_draws_for_the_image_not_for_the_batch() -> None:
    explainer, seeds = Lime(LimeOptions(samples=2000)), torch.tensor([3, 4])
    (first, rest), (other, _) = (list(explainer.coalitions(seeds[index : index + 1], 30)) for index in range(2))
    assert len(first) + len(rest) == 2000
    assert first.double().mean().item() == pytest.approx(0.5, abs=4 * 0.5 / math.sqrt(first.numel()))
    for unlike in (other[: len(rest)], rest):
        assert (first[: len(rest)] == unlike).double().mean().item() == pytest.approx(0.5, abs=0.02)
    (fewer,) = Lime(LimeOptions(samples=50)).coalitions(seeds[:1], 30)
    assert torch.equal(fewer, first[:50])


def shapley_values(values: dict[frozenset[Any], Any], players: int) -> np.ndarray:
    """By the definition, over all coalitions: `values` maps a frozenset of players to v."""
    worth = np.zeros(players)
    for player in range(players):
        others = [other for other in range(players) if other != player]
        for size in range(players):
            share = 1 / (players * math.comb(players - 1, size))
            for coalition in itertools.combinations(others, size):
                with_player, without = frozenset(coalition) | {player}, frozenset(coalition)
                worth[player] += share * (values[with_player] - values[without])
    return worth


@pytest.mark.parametrize("side", [24, 16, 12, 8])
def test_kernelshap_of_few_superpixels_is_exact(
    batch_of: Callable[..., Batch],
    explain: Callable[..., torch.Tensor],
    conv_case: Callable[..., tuple[nn.Module, np.ndarray, np.ndarray, list[int]]],
    side: int,
) -> None:
    model, images, _, targets = conv_case()
    labels = np.stack([tiles((24, 24), side), tiles((24, 24), 12)])
    maps = explain(KernelShap(KernelShapOptions(fill="zero")), model, batch_of(images, feature=labels), targets)
    off = switched(images, labels, "zero")
    for n, target in enumerate(targets):
        players = labels[n].max() + 1
        coalitions = np.array(list(itertools.product([False, True], repeat=players)))
        values = values_of(model, images[n], off[n], labels[n], coalitions, target)
        game = {frozenset(np.flatnonzero(on)): value for on, value in zip(coalitions, values, strict=True)}
        close(maps[n], shapley_values(game, players)[labels[n]])


def test_kernelshap_agrees_with_shap(
    batch_of: Callable[..., Batch],
    explain: Callable[..., torch.Tensor],
    conv_case: Callable[..., tuple[nn.Module, np.ndarray, np.ndarray, list[int]]],
) -> None:
    shap = pytest.importorskip("shap")
    model, images, labels, targets = conv_case(side=8)
    (made, _) = explain(KernelShap(KernelShapOptions(fill="zero")), model, batch_of(images, feature=labels), targets)
    off = switched(images, labels, "zero")[0]

    def values(coalitions: np.ndarray) -> np.ndarray:
        return values_of(model, images[0], off, labels[0], coalitions > 0, targets[0])

    expected = shap.KernelExplainer(values, np.zeros((1, 9))).shap_values(
        np.ones((1, 9)), nsamples=1000, l1_reg=0, silent=True
    )
    close(made, expected[0][labels[0]], 1e-4)


@pytest.mark.parametrize("n_samples", [4, 60, 300])
def test_kernelshap_adds_up_to_the_score(
    batch_of: Callable[..., Batch],
    explain: Callable[..., torch.Tensor],
    conv_case: Callable[..., tuple[nn.Module, np.ndarray, np.ndarray, list[int]]],
    n_samples: int,
) -> None:
    model, images, labels, targets = conv_case(side=6)
    batch = batch_of(images, feature=labels)
    maps = explain(KernelShap(KernelShapOptions(samples=n_samples)), model, batch, targets)
    off = torch.from_numpy(switched(images, labels, "mean"))
    with torch.no_grad():
        difference = (model(batch.images) - model(off))[[0, 1], targets]
    for n in range(2):
        where = [int((labels[n] == label).argmax()) for label in range(labels[n].max() + 1)]
        added = maps[n].flatten()[where].double().sum().item()
        assert added == pytest.approx(difference[n].item(), abs=1e-6)


def test_kernelshap_of_many_superpixels_nears_the_exact_values(
    batch_of: Callable[..., Batch],
    explain: Callable[..., torch.Tensor],
    conv_case: Callable[..., tuple[nn.Module, np.ndarray, np.ndarray, list[int]]],
) -> None:
    model, images, _, targets = conv_case()
    batch = batch_of(images[:1], feature=tiles((24, 24), 8)[None])
    values = [
        explain(KernelShap(KernelShapOptions(samples=samples, fill="zero")), model, batch, targets[:1])
        for samples in (508, 509, 510)
    ]
    exact = values[-1]
    batches = [dataclasses.replace(batch, seeds=torch.tensor([seed])) for seed in range(40)]
    errors = {}
    for samples in (50, 400):
        explainer = KernelShap(KernelShapOptions(samples=samples, fill="zero"))
        differences = torch.stack([explain(explainer, model, one, targets[:1]) - exact for one in batches]).flatten(1)
        errors[samples] = differences.square().mean().sqrt()
        bias = differences.mean(0).abs().max()
        assert bias < 4 * differences.std(0).max() / math.sqrt(len(batches))
    assert not torch.equal(values[0], exact)
    assert errors[400] < errors[50] / 2  # 1 / sqrt(8), and some room
    assert errors[400] < 0.05 * exact.std()


def test_kernelshap_draws_by_the_shapley_kernel() -> None:
    players, explainer = 12, KernelShap(KernelShapOptions(samples=4000))
    blocks = list(explainer.coalitions(torch.tensor([7]), players))
    drawn = torch.cat([on for on, _ in blocks])
    assert len(drawn) == 4000
    assert all((weight == 1).all() for _, weight in blocks)
    for on, _ in blocks:
        front, back = on.chunk(2)
        assert torch.equal(front, ~back)
    sizes = np.bincount(drawn.sum(1).numpy(), minlength=players + 1)
    kernel = np.array([1 / (size * (players - size)) for size in range(1, players)])
    np.testing.assert_allclose(sizes[1:-1], 4000 * kernel / kernel.sum(), atol=4)
    assert sizes[0] == sizes[-1] == 0
    pairs = len(drawn) // 2
    shown = torch.cat([on.chunk(2)[0] for on, _ in blocks]).double().mean(0)
    assert (shown - shown.mean()).abs().max() < 4 * 0.5 / math.sqrt(pairs)


def test_one_superpixel_carries_the_whole_difference(
    batch_of: Callable[..., Batch],
    explain: Callable[..., torch.Tensor],
    conv_case: Callable[..., tuple[nn.Module, np.ndarray, np.ndarray, list[int]]],
) -> None:
    model, images, _, targets = conv_case()
    batch = batch_of(images, feature=np.zeros((2, 24, 24)))
    with torch.no_grad():
        drop = (model(batch.images) - model(0 * batch.images))[[0, 1], targets]
    for explainer in (
        FeatureAblation(FeatureAblationOptions(fill="zero")),
        KernelShap(KernelShapOptions(fill="zero")),
    ):
        close(explain(explainer, model, batch, targets), drop[:, None, None].expand(2, 24, 24))


def specs(*names: str) -> list[ExplainerSpec]:
    return [spec for spec in xbench_baselines.xbench_explainers() if spec.name in names]


@parametrize_with_checks(specs("lime", "kernelshap"), samples=120)
def test_conformance_of_surrogates(check: Callable[..., None]) -> None:
    check()
