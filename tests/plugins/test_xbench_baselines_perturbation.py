"""Explainers that change the image and look at the score: closed forms, captum, scikit-learn, shap, brute force."""

import dataclasses
import itertools
import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from captum._utils.models.linear_model import SkLearnRidge
from captum.attr import FeatureAblation as CaptumFeatureAblation
from captum.attr import Lime as CaptumLime
from captum.attr import Occlusion as CaptumOcclusion
from scipy import ndimage
from skimage.segmentation import slic
from sklearn.linear_model import Ridge
from torch import nn
from torch.nn import functional as F

import xbench_baselines
from xbench import Batch, DatasetInfo
from xbench.seeding import rng, sample_seeds
from xbench.testing import parametrize_with_checks
from xbench.testing.networks import LinearNetwork
from xbench_baselines.occlusion import Occlusion
from xbench_baselines.options.perturbation import (
    FeatureAblationOptions,
    KernelShapOptions,
    LimeOptions,
    OcclusionOptions,
    RiseOptions,
)
from xbench_baselines.rise import RandomMasks, Rise
from xbench_baselines.superpixels import Superpixels
from xbench_baselines.surrogates import FeatureAblation, KernelShap, Lime

CPU = torch.device("cpu")


def batch_of(images, superpixels=None):
    ids = tuple(f"sample-{index}" for index in range(len(images)))
    return Batch(
        images=torch.as_tensor(images, dtype=torch.float32),
        labels=torch.zeros(len(images), dtype=torch.int64),
        ids=ids,
        groups=ids,
        masks=torch.zeros((len(images), *images.shape[2:]), dtype=torch.bool),
        has_mask=torch.zeros(len(images), dtype=torch.bool),
        seeds=torch.from_numpy(sample_seeds(0, ids)),
        feature=None if superpixels is None else torch.as_tensor(superpixels, dtype=torch.int32),
    )


def noise(*shape):
    return rng(0, "images").random(shape, dtype=np.float32)


def smooth(*shape):
    """Images with structure to cut up."""
    return np.stack([[ndimage.gaussian_filter(channel, 2) * 4 for channel in image] for image in noise(*shape)])


def tiles(spatial, side):
    """Square superpixels: int (*spatial)."""
    rows, columns = (np.arange(size) // side for size in spatial)
    return rows[:, None] * (columns[-1] + 1) + columns


def explain(explainer, batch, targets, model):
    batch = batch if isinstance(batch, Batch) else batch_of(batch)
    return explainer.explain(model, batch, torch.as_tensor(targets), "under test")


def weights_of(model, targets, shape):
    """dS_c/dx of a linear model: (N, C, *spatial)."""
    weight = model.linear.weight.detach()
    weight = torch.cat([-weight, weight]) if len(weight) == 1 else weight
    return weight[torch.as_tensor(targets)].view(len(targets), *shape)


def conv(channels=1, outputs=2):
    """A network that looks at where things are: the drops are not lost in the rounding of the scores."""
    torch.manual_seed(0)
    return nn.Sequential(
        *(nn.Conv2d(channels, 8, 3, stride=2), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU()),
        *(nn.AdaptiveMaxPool2d(3), nn.Flatten(), nn.Linear(72, outputs)),
    ).eval()


def close(made, expected, tolerance=1e-5):
    expected = torch.as_tensor(expected, dtype=torch.float64)
    scale = max(float(expected.abs().max()), 1e-30)
    torch.testing.assert_close(made.double(), expected, rtol=0, atol=tolerance * scale)


# --- occlusion ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("channels", "outputs", "targets"), [(1, 1, [0, 1, 1]), (3, 3, [2, 0, 1])])
def test_occlusion_of_single_pixels_is_input_times_weight(channels, outputs, targets):
    model, images = LinearNetwork(channels, (7, 6), outputs), noise(3, channels, 7, 6)
    maps = explain(Occlusion(OcclusionOptions(window=1)), images, targets, model)
    close(maps, (weights_of(model, targets, (channels, 7, 6)) * torch.from_numpy(images)).sum(1), 3e-5)


def test_occlusion_by_disjoint_windows_gives_every_pixel_the_sum_of_its_block():
    model, images = LinearNetwork(2, (8, 12), 2), noise(2, 2, 8, 12)
    maps = explain(Occlusion(OcclusionOptions(window=4, stride=4)), images, [1, 0], model)
    products = (weights_of(model, [1, 0], (2, 8, 12)) * torch.from_numpy(images)).sum(1)
    blocks = products.view(2, 2, 4, 3, 4).sum((2, 4))
    close(maps, blocks.repeat_interleave(4, 1).repeat_interleave(4, 2), 3e-5)


@pytest.mark.parametrize(
    ("spatial", "window", "stride"), [((16, 16), 4, 2), ((17, 13), 5, 3), ((9, 14), 4, 4), ((6, 7, 8), 3, 2)]
)
@pytest.mark.parametrize("fill", ["zero", "mean"])
def test_occlusion_agrees_with_captum(spatial, window, stride, fill):
    torch.manual_seed(0)
    model = conv(3, 3) if len(spatial) == 2 else LinearNetwork(3, spatial, 3)
    images, targets = torch.from_numpy(noise(3, 3, *spatial)), torch.tensor([2, 0, 1])
    baselines = images.flatten(2).mean(2).view(3, 3, *(1,) * len(spatial)).expand_as(images) if fill == "mean" else 0
    expected = CaptumOcclusion(model).attribute(
        images,
        sliding_window_shapes=(3, *(window,) * len(spatial)),
        strides=(3, *(stride,) * len(spatial)),
        baselines=baselines,
        target=targets,
    )
    options = OcclusionOptions(window=window, stride=stride, fill=fill)
    close(explain(Occlusion(options), images, targets, model), expected[:, 0].detach())


def test_occlusion_reaches_every_pixel():
    class Corner(nn.Module):
        def forward(self, images):
            return images[:, 0, -1, -1:]

    images = np.ones((1, 1, 11, 10), dtype=np.float32)
    (drops,) = explain(Occlusion(OcclusionOptions(window=4, stride=3)), images, [1], Corner())
    assert drops[-1, -1] == 1  # all its windows hide it
    assert drops[-2, -1] == 0.5  # one of its two windows does
    assert not drops[:-2].any()


def test_occlusion_has_a_window_for_the_size_of_the_image():
    explainer = Occlusion(OcclusionOptions())
    assert explainer._window_and_stride((64, 64)) == (8, 4)
    assert explainer._window_and_stride((300, 224)) == (15, 7)
    assert explainer._window_and_stride((1, 1)) == (1, 1)


def test_occlusion_refuses_windows_that_cannot_be_laid():
    info = DatasetInfo("toy", ("a", "b"), 1, (20, 16))
    assert Occlusion(OcclusionOptions(window=16)).supports(nn.Identity(), info) is None
    assert "17 pixels does not fit" in Occlusion(OcclusionOptions(window=17)).supports(nn.Identity(), info)
    assert "stride of 5" in Occlusion(OcclusionOptions(window=4, stride=5)).supports(nn.Identity(), info)


# --- superpixels ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(1, 64, 64), (3, 33, 27), (4, 20, 31), (1, 4, 4), (2, 12, 14, 10)])
@pytest.mark.parametrize("kind", ["constant", "noise", "smooth"])
def test_superpixels_are_numbered_without_gaps(shape, kind):
    image = {"constant": np.full(shape, 0.5, np.float32), "noise": noise(*shape), "smooth": smooth(1, *shape)[0]}[kind]
    labels = Superpixels().computed(image)
    assert labels.dtype == np.int32
    assert labels.shape == shape[1:]
    present = np.unique(labels)
    np.testing.assert_array_equal(present, np.arange(len(present)))
    assert min(50, labels.size) / 4 <= len(present) <= 2 * 50


def test_superpixels_are_those_of_scikit_image():
    image = smooth(1, 1, 48, 40)[0]
    expected = slic(image[0], n_segments=50, compactness=0.1, channel_axis=None, start_label=0)
    assert expected.max() > 12
    np.testing.assert_array_equal(Superpixels().compute(image), expected)
    for label in range(expected.max() + 1):
        assert ndimage.label(expected == label)[1] == 1


def test_superpixels_of_noise_do_not_melt_into_one():
    image = noise(1, 64, 64)
    assert slic(image[0], n_segments=50, compactness=0.1, channel_axis=None).max() == 1
    assert Superpixels().compute(image).max() + 1 >= 13


def test_superpixels_are_the_same_from_every_thread():
    images = list(smooth(8, 1, 40, 40))
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(Superpixels().compute, images))
    for image, labels in zip(images, together, strict=True):
        np.testing.assert_array_equal(labels, Superpixels().compute(image))


def test_superpixels_are_shared():
    options = {"n_segments": 30, "compactness": 0.2}
    made = [
        FeatureAblation(FeatureAblationOptions(**options, fill="zero")).feature,
        Lime(LimeOptions(**options, samples=10)).feature,
        KernelShap(KernelShapOptions(**options)).feature,
    ]
    assert len({(feature.name, str(feature.parameters), feature.dtype) for feature in made}) == 1
    assert Lime(LimeOptions()).feature.parameters != made[0].parameters


@pytest.mark.parametrize("explainer", [FeatureAblation(FeatureAblationOptions()), Lime(LimeOptions())])
def test_superpixels_need_two_or_three_axes(explainer):
    assert explainer.supports(nn.Identity(), DatasetInfo("toy", ("a", "b"), 1, (20, 16, 18))) is None
    assert "2 or 3 axes, not 1" in explainer.supports(nn.Identity(), DatasetInfo("toy", ("a", "b"), 1, (20,)))


# --- what they share ------------------------------------------------------------------------------------------------


def switched(images, superpixels, fill):
    """The image that shows nothing, one superpixel after the other in numpy."""
    off = np.zeros_like(images)
    for n, labels in enumerate(superpixels):
        for label in np.unique(labels) if fill == "mean" else []:
            off[n][:, labels == label] = images[n][:, labels == label].mean(1, keepdims=True)
    return off


def values_of(model, image, off, labels, coalitions, target):
    """v of coalitions, the slow way: float64 (R,)."""
    perturbed = np.stack([np.where(coalition[labels], image, off) for coalition in coalitions])
    with torch.no_grad():
        return model(torch.from_numpy(perturbed))[:, target].double().numpy()


def sums_over(products, labels):
    """Per pixel, the sum over its superpixel."""
    return np.stack([np.bincount(one.ravel(), row.ravel())[one] for one, row in zip(labels, products, strict=True)])


def linear_case(channels=2, outputs=3, targets=(2, 0)):
    """A linear model, images, superpixels of other numbers for each, and what each is worth: sum of w (x - off)."""
    torch.manual_seed(0)
    model, images = LinearNetwork(channels, (16, 12), outputs), noise(2, channels, 16, 12)
    labels = np.stack([tiles((16, 12), 4), tiles((16, 12), 3)])
    weight = weights_of(model, list(targets), (channels, 16, 12)).numpy().astype(float)
    worth = {fill: sums_over((weight * (images - switched(images, labels, fill))).sum(1), labels) for fill in FILLS}
    return model, batch_of(images, labels), list(targets), worth


FILLS = ("mean", "zero")
LINEAR = [(2, 3, (2, 0)), (1, 1, (0, 1))]


@pytest.mark.parametrize("case", LINEAR)
@pytest.mark.parametrize("fill", FILLS)
def test_feature_ablation_of_a_linear_model(case, fill):
    model, batch, targets, worth = linear_case(*case)
    maps = explain(FeatureAblation(FeatureAblationOptions(fill=fill)), batch, targets, model)
    close(maps, worth[fill], 3e-5)


@pytest.mark.parametrize("case", LINEAR)
@pytest.mark.parametrize("fill", FILLS)
def test_lime_of_a_linear_model(case, fill):
    model, batch, targets, worth = linear_case(*case)
    maps = explain(Lime(LimeOptions(fill=fill, samples=300, alpha=1e-9)), batch, targets, model)
    close(maps, worth[fill], 1e-4)
    maps = explain(Lime(LimeOptions(fill=fill, samples=5000)), batch, targets, model)
    close(maps, worth[fill], 0.01)  # what the ridge shrinks


@pytest.mark.parametrize("case", LINEAR)
@pytest.mark.parametrize("fill", FILLS)
def test_kernelshap_of_a_linear_model(case, fill):
    model, batch, targets, worth = linear_case(*case)
    maps = explain(KernelShap(KernelShapOptions(fill=fill, samples=300)), batch, targets, model)
    close(maps, worth[fill], 1e-4)


@pytest.mark.parametrize(
    "explainer", [FeatureAblation(FeatureAblationOptions()), Lime(LimeOptions(samples=99, alpha=1e-9))]
)
def test_a_superpixel_of_one_intensity_is_worth_nothing(explainer):
    labels = np.stack([tiles((12, 12), 4)])
    images = labels[:, None].astype(np.float32) / 9
    images[0, 0, :4, :4] += noise(4, 4)
    (worth,) = explain(explainer, batch_of(images, labels), [1], LinearNetwork(1, (12, 12), 2))
    assert abs(worth[0, 0]) > 1e-3
    assert abs(worth[labels[0] > 0]).max() < 1e-5 * abs(worth[0, 0]) + 1e-6


# --- against other implementations -----------------------------------------------------------------------------------


def conv_case(side=8, channels=3):
    images = noise(2, channels, 24, 24)
    labels = np.stack([tiles((24, 24), side), slic(smooth(1, 1, 24, 24)[0, 0], 20, channel_axis=None, start_label=0)])
    return conv(channels, 3), images, labels, [2, 1]


@pytest.mark.parametrize("fill", FILLS)
def test_feature_ablation_agrees_with_captum(fill):
    model, images, labels, targets = conv_case()
    maps = explain(FeatureAblation(FeatureAblationOptions(fill=fill)), batch_of(images, labels), targets, model)
    off = torch.from_numpy(switched(images, labels, fill))
    for n, target in enumerate(targets):
        mask = torch.from_numpy(labels[n])[None, None]
        image, baseline = torch.from_numpy(images[n : n + 1]), off[n : n + 1]
        expected = CaptumFeatureAblation(model).attribute(image, baseline, target=target, feature_mask=mask)
        close(maps[n], expected[0, 0].detach(), 1e-4)  # the drops are a thousandth of the scores


def lime_case(fill, n_samples=1500):
    """Maps, and for each image its coalitions and their weights by the definition."""
    model, images, labels, targets = conv_case()
    explainer, batch = Lime(LimeOptions(fill=fill, samples=n_samples)), batch_of(images, labels)
    maps = explain(explainer, batch, targets, model)
    drawn = [
        torch.cat(list(explainer.coalitions(batch.seeds[n : n + 1], labels[n].max() + 1))) for n in range(len(images))
    ]
    cosines = [F.cosine_similarity(on.double(), torch.ones_like(on).double()) for on in drawn]
    return model, images, labels, targets, maps, drawn, [(-((1 - cosine) ** 2) / 0.125).exp() for cosine in cosines]


@pytest.mark.parametrize("fill", FILLS)
def test_lime_agrees_with_ridge_regression_of_scikit_learn(fill):
    model, images, labels, targets, maps, drawn, weights = lime_case(fill)
    off = switched(images, labels, fill)
    for n, target in enumerate(targets):
        assert drawn[n].shape == (1500, labels[n].max() + 1)
        values = values_of(model, images[n], off[n], labels[n], drawn[n].numpy(), target)
        fitted = Ridge(alpha=1).fit(drawn[n].numpy(), values, sample_weight=weights[n].numpy())
        close(maps[n], fitted.coef_[labels[n]])


def test_lime_agrees_with_captum_on_the_same_draws():
    model, images, labels, targets, maps, drawn, weights = lime_case("mean", 200)
    off = torch.from_numpy(switched(images, labels, "mean"))
    for n, target in enumerate(targets):

        def draws(_, n=n, **kwargs):
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


def test_lime_draws_for_the_image_not_for_the_batch():
    explainer, seeds = Lime(LimeOptions(samples=2000)), torch.tensor([3, 4])
    (first, rest), (other, _) = (list(explainer.coalitions(seeds[index : index + 1], 30)) for index in range(2))
    assert len(first) + len(rest) == 2000
    assert first.double().mean().item() == pytest.approx(0.5, abs=4 * 0.5 / math.sqrt(first.numel()))
    for unlike in (other[: len(rest)], rest):
        assert (first[: len(rest)] == unlike).double().mean().item() == pytest.approx(0.5, abs=0.02)
    (fewer,) = Lime(LimeOptions(samples=50)).coalitions(seeds[:1], 30)
    assert torch.equal(fewer, first[:50])


def shapley_values(values, players):
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
def test_kernelshap_of_few_superpixels_is_exact(side):
    model, images, _, targets = conv_case()
    labels = np.stack([tiles((24, 24), side), tiles((24, 24), 12)])
    maps = explain(KernelShap(KernelShapOptions(fill="zero")), batch_of(images, labels), targets, model)
    off = switched(images, labels, "zero")
    for n, target in enumerate(targets):
        players = labels[n].max() + 1
        coalitions = np.array(list(itertools.product([False, True], repeat=players)))
        values = values_of(model, images[n], off[n], labels[n], coalitions, target)
        game = {frozenset(np.flatnonzero(on)): value for on, value in zip(coalitions, values, strict=True)}
        close(maps[n], shapley_values(game, players)[labels[n]])


def test_kernelshap_agrees_with_shap():
    shap = pytest.importorskip("shap")
    model, images, labels, targets = conv_case(side=8)
    (made, _) = explain(KernelShap(KernelShapOptions(fill="zero")), batch_of(images, labels), targets, model)
    off = switched(images, labels, "zero")[0]

    def values(coalitions):
        return values_of(model, images[0], off, labels[0], coalitions > 0, targets[0])

    expected = shap.KernelExplainer(values, np.zeros((1, 9))).shap_values(
        np.ones((1, 9)), nsamples=1000, l1_reg=0, silent=True
    )
    close(made, expected[0][labels[0]], 1e-4)


@pytest.mark.parametrize("n_samples", [4, 60, 300])
def test_kernelshap_adds_up_to_the_score(n_samples):
    model, images, labels, targets = conv_case(side=6)
    batch = batch_of(images, labels)
    maps = explain(KernelShap(KernelShapOptions(samples=n_samples)), batch, targets, model)
    off = torch.from_numpy(switched(images, labels, "mean"))
    with torch.no_grad():
        difference = (model(batch.images) - model(off))[[0, 1], targets]
    for n in range(2):
        where = [int((labels[n] == label).argmax()) for label in range(labels[n].max() + 1)]
        added = maps[n].flatten()[where].double().sum().item()
        assert added == pytest.approx(difference[n].item(), abs=1e-6)


def test_kernelshap_of_many_superpixels_nears_the_exact_values():
    model, images, _, targets = conv_case()
    batch = batch_of(images[:1], tiles((24, 24), 8)[None])
    values = [
        explain(KernelShap(KernelShapOptions(samples=samples, fill="zero")), batch, targets[:1], model)
        for samples in (508, 509, 510)
    ]
    exact = values[-1]
    batches = [dataclasses.replace(batch, seeds=torch.tensor([seed])) for seed in range(40)]
    errors = {}
    for samples in (50, 400):
        explainer = KernelShap(KernelShapOptions(samples=samples, fill="zero"))
        differences = torch.stack([explain(explainer, one, targets[:1], model) - exact for one in batches]).flatten(1)
        errors[samples] = differences.square().mean().sqrt()
        bias = differences.mean(0).abs().max()
        assert bias < 4 * differences.std(0).max() / math.sqrt(len(batches))
    assert not torch.equal(values[0], exact)
    assert errors[400] < errors[50] / 2  # 1 / sqrt(8), and some room
    assert errors[400] < 0.05 * exact.std()


def test_kernelshap_draws_by_the_shapley_kernel():
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


def test_one_superpixel_carries_the_whole_difference():
    model, images, _, targets = conv_case()
    batch = batch_of(images, np.zeros((2, 24, 24)))
    with torch.no_grad():
        drop = (model(batch.images) - model(0 * batch.images))[[0, 1], targets]
    for explainer in (
        FeatureAblation(FeatureAblationOptions(fill="zero")),
        KernelShap(KernelShapOptions(fill="zero")),
    ):
        close(explain(explainer, batch, targets, model), drop[:, None, None].expand(2, 24, 24))


# --- rise -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("spatial", "cells"), [((20, 20), 7), ((33, 18), 5), ((6, 5), 7), ((9, 8, 10), 3)])
def test_rise_masks_are_enlarged_grids_cut_out_at_a_shift(spatial, cells):
    masks = RandomMasks(spatial, cells, 0.4, CPU)
    grids, shifts = masks.draws(5, 25)
    sides = [math.ceil(size / cells) for size in spatial]
    mode = "bilinear" if len(spatial) == 2 else "trilinear"
    enlarged = F.interpolate(
        grids[:, None], [(cells + 1) * side for side in sides], mode=mode, align_corners=False
    ).squeeze(1)
    for mask, large, shift in zip(masks(5, 25), enlarged, shifts, strict=True):
        assert all(0 <= step < side for step, side in zip(shift, sides, strict=True))
        cut = tuple(slice(step, step + size) for step, size in zip(shift, spatial, strict=True))
        close(mask, large[cut], 1e-6)


def test_rise_masks_are_random_and_always_the_same():
    masks = RandomMasks((14, 14), 7, 0.3, CPU)
    grids, shifts = masks.draws(0, 4000)
    assert grids.mean().item() == pytest.approx(0.3, abs=4 * math.sqrt(0.21 / grids.numel()))
    assert np.bincount(shifts.flatten()) / shifts.numel() == pytest.approx([0.5, 0.5], abs=0.025)
    between = np.corrcoef(grids[:, 0, 0], grids[:, 0, 1])[0, 1]
    assert abs(between) < 4 / math.sqrt(len(grids))
    assert torch.equal(masks(100, 164), RandomMasks((14, 14), 7, 0.3, CPU)(90, 170)[10:74])


def mean_kernel(size, cells):
    """Mean over the shifts of sum over cells of B(p, cell) B(q, cell), B the linear interpolation: (size, size)."""
    side = math.ceil(size / cells)
    units = F.interpolate(torch.eye(cells)[:, None], (cells + 1) * side, mode="linear", align_corners=False)[:, 0]
    cuts = torch.stack([units[:, shift : shift + size] for shift in range(side)]).double()
    return torch.einsum("scp,scq->pq", cuts, cuts) / side


@pytest.mark.parametrize(("outputs", "targets"), [(1, [0, 1]), (3, [2, 1])])
@pytest.mark.parametrize("centred", [True, False])
def test_rise_of_a_linear_model_nears_its_expectation(outputs, targets, centred):
    torch.manual_seed(0)
    model, images = LinearNetwork(2, (12, 10), outputs), noise(2, 2, 12, 10)
    options = RiseOptions(masks=20000, cells=3, probability=0.4, centred=centred)
    maps = explain(Rise(options), images, targets, model)
    products = (weights_of(model, targets, (2, 12, 10)) * torch.from_numpy(images)).sum(1).double()
    # Cov(m(p), m(q)) = probability (1 - probability) sum over cells B(p) B(q); axes are independent.
    expected = 0.6 * torch.einsum("pq,nqr,rs->nps", mean_kernel(12, 3), products, mean_kernel(10, 3))
    if not centred:
        bias = model.linear.bias.detach()
        bias = (torch.cat([-bias, bias]) if outputs == 1 else bias)[targets]
        expected += (0.4 * products.sum((1, 2)) + bias)[:, None, None]
    close(maps, expected, 0.03)


def test_rise_of_a_constant_model_is_zero():
    class Constant(nn.Module):
        def forward(self, images):
            return torch.full((len(images), 1), 5.0)

    maps = explain(Rise(RiseOptions(masks=100)), noise(2, 1, 16, 16), [0, 1], Constant())
    assert maps.abs().max() < 1e-12
    uneven = explain(Rise(RiseOptions(masks=100, centred=False)), noise(2, 1, 16, 16), [1, 1], Constant())
    assert uneven.std() > 0.1  # which is why the mean is subtracted


def test_rise_of_one_logit_has_a_sign_per_class():
    image = noise(1, 1, 16, 16).repeat(2, 0)
    first, second = explain(Rise(RiseOptions(masks=100)), image, [0, 1], conv(1, 1))
    close(first, -second)


# --- cost and conformance -------------------------------------------------------------------------------------------

PASSES = [0]


class Counted(nn.Module):
    """A linear model that counts the images it sees; its copies count together."""

    def __init__(self):
        super().__init__()
        self.network = LinearNetwork(1, (16, 16), 2)

    def forward(self, images):
        PASSES[0] += len(images)
        return self.network(images)


@pytest.mark.parametrize(
    ("explainer", "expected"),
    [
        (Occlusion(OcclusionOptions(window=4, stride=2)), 2 * (7 * 7 + 1)),
        (FeatureAblation(FeatureAblationOptions()), (16 + 1) + (4 + 1)),
        (Lime(LimeOptions(samples=70)), 2 * 70),
        (KernelShap(KernelShapOptions(samples=70)), 2 * 2 + 70 + (2**4 - 2)),
        (Rise(RiseOptions(masks=70)), 2 * 70),
    ],
    ids=lambda value: type(value).__name__,
)
def test_passes_are_no_more_than_needed(explainer, expected):
    batch = batch_of(noise(2, 1, 16, 16), np.stack([tiles((16, 16), 4), tiles((16, 16), 8)]))
    PASSES[0] = 0
    explain(explainer, batch, [0, 1], Counted())
    probing = 2 * len(batch)  # the model and a copy of it are compared on the batch
    assert expected <= PASSES[0] <= expected + probing


def specs(*names):
    return [spec for spec in xbench_baselines.xbench_explainers() if spec.name in names]


@parametrize_with_checks(specs("occlusion", "feature-ablation"))
def test_conformance(check):
    check()


@parametrize_with_checks(specs("lime", "kernelshap"), samples=120)
def test_conformance_of_surrogates(check):
    check()


@parametrize_with_checks(specs("rise"), masks=120)
def test_conformance_of_rise(check):
    check()


def test_conformance_reaches_every_explainer():
    assert len(specs("occlusion", "feature-ablation", "lime", "kernelshap", "rise")) == 5
