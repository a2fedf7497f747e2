"""The class activation family and VisualBackProp: closed forms, captum, pytorch-grad-cam, and who is refused why."""

import numpy as np
import pytest
import timm
import torch
from captum.attr import GuidedGradCam as CaptumGuidedGradCam
from captum.attr import LayerAttribution, LayerGradCam
from torch import nn
from torch.nn import functional as F

from xbench import Batch, DatasetInfo, ExplainerSpec, PluginError, UserError
from xbench.gate import operations_behind
from xbench.seeding import rng, sample_seeds
from xbench.testing import parametrize_with_checks
from xbench.testing.networks import ConvNetwork, LinearNetwork
from xbench_baselines.cams import Cam, GradCam, GradCamPlusPlus, GuidedGradCam, LayerCam, RespondCam, enlarged
from xbench_baselines.features import traced
from xbench_baselines.options.cams import CamOptions, GradCamOptions, LayerOptions
from xbench_baselines.visual_backprop import VisualBackProp

RELU_STYLES = ["module", "functional", "inplace", "reused"]
MAKE = {
    "cam": lambda **options: Cam(CamOptions(**options)),
    "gradcam": lambda **options: GradCam(GradCamOptions(**options)),
    "gradcam-plus-plus": lambda **options: GradCamPlusPlus(LayerOptions(**options)),
    "guided-gradcam": lambda **options: GuidedGradCam(LayerOptions(**options)),
    "respond-cam": lambda **options: RespondCam(LayerOptions(**options)),
    "layercam": lambda **options: LayerCam(LayerOptions(**options)),
    "visualbackprop": lambda: VisualBackProp(LayerOptions()),
}


def noise(*shape):
    return torch.from_numpy(rng(0, "images").random(shape, dtype=np.float32))


def explain(explainer, model, images, targets):
    ids = [f"sample-{index}" for index in range(len(images))]
    masks = torch.zeros((len(images), *images.shape[2:]), dtype=torch.bool)
    seeds = torch.from_numpy(sample_seeds(0, ids))
    labels = torch.zeros(len(images), dtype=torch.int64)
    batch = Batch(images, labels, tuple(ids), tuple(ids), masks, masks.flatten(1).any(1), seeds)
    return explainer.explain(model, batch, torch.as_tensor(targets), "under test")


def refused(explainer, model, channels=1, spatial=(32, 32)):
    return explainer.supports(model, DatasetInfo("toy", ("a", "b", "c"), channels, spatial))


def network(channels=1, outputs=3, relu="module", seed=0, **options):
    torch.manual_seed(seed)
    return ConvNetwork(channels, outputs, relu=relu, **options).eval()


def features_of(model, images):
    """What a ConvNetwork pools."""
    with torch.no_grad():
        for convolution, norm in zip(model.convolutions, model.norms, strict=True):
            images = norm(convolution(images)).relu()
    return images


# --- closed forms ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("relu", RELU_STYLES)
@pytest.mark.parametrize(("channels", "outputs"), [(1, 1), (3, 3)])
def test_cam_is_the_heads_weights_times_the_features(relu, channels, outputs):
    model, images = network(channels, outputs, relu), noise(4, channels, 18, 22)
    targets = [0, 1, 0, 1] if outputs == 1 else [0, 1, 2, 1]
    weight = torch.cat([-model.head.weight, model.head.weight]) if outputs == 1 else model.head.weight
    expected = torch.einsum("nk,nkhw->nhw", weight[targets].detach(), features_of(model, images))
    maps = explain(MAKE["cam"](), model, images, targets)
    torch.testing.assert_close(maps, enlarged(expected, (18, 22)), rtol=1e-5, atol=1e-6)
    assert refused(MAKE["cam"](), model, channels, (18, 22)) is None


def coarse(explainer, model, images, targets):
    """The map before it is enlarged."""
    seen = {}
    combined = explainer.combined
    explainer.combined = lambda features, gradients: seen.setdefault("map", combined(features, gradients))
    explain(explainer, model, images, targets)
    return seen["map"]


def test_the_mean_of_cam_is_the_score_without_the_bias():
    model, images, targets = network().double(), noise(3, 1, 16, 24).double(), torch.tensor([2, 0, 1])
    means = coarse(MAKE["cam"](), model, images, targets).flatten(1).mean(1)
    scores = model(images)[torch.arange(3), targets] - model.head.bias[targets]
    torch.testing.assert_close(means, scores.detach(), rtol=0, atol=1e-15)


def test_cam_cuts_off_negative_values_on_request():
    model, images = network(), noise(2, 1, 16, 16)
    explainer = MAKE["cam"](relu=True)
    whole, cut = coarse(MAKE["cam"](), model, images, [0, 1]), coarse(explainer, model, images, [0, 1])
    assert (whole < 0).any()
    assert torch.equal(cut, whole.relu())
    assert not explainer.signed
    assert MAKE["cam"]().signed


def test_gradcam_times_positions_is_cam():
    model, images, targets = network(3).double(), noise(3, 3, 16, 24).double(), [2, 0, 1]
    signed = MAKE["gradcam"](relu=False)
    cam = coarse(MAKE["cam"](), model, images, targets)
    torch.testing.assert_close(coarse(signed, model, images, targets) * 4 * 6, cam, rtol=0, atol=1e-15)
    torch.testing.assert_close(coarse(MAKE["gradcam"](), model, images, targets) * 24, cam.relu(), rtol=0, atol=1e-15)
    assert signed.signed
    assert not MAKE["gradcam"]().signed


@pytest.mark.parametrize("pool", ["max", "amax", "adaptive"])
def test_cam_with_global_max_pooling(pool):
    torch.manual_seed(0)
    pooling = {
        "max": lambda values: F.max_pool2d(values, values.shape[2:]).flatten(1),
        "amax": lambda values: values.amax((2, 3)),
        "adaptive": lambda values: F.adaptive_max_pool2d(values, 1).flatten(1),
    }[pool]
    model = Chain([nn.Conv2d(1, 6, 3), nn.ReLU()], pooling, nn.Linear(6, 2)).eval()
    images = noise(2, 1, 9, 8)
    assert refused(MAKE["cam"](), model, spatial=(9, 8)) is None
    features = model.features(images).detach()
    expected = torch.einsum("nk,nkhw->nhw", model.head.weight.detach(), features)
    torch.testing.assert_close(coarse(MAKE["cam"](), model, images, [0, 1]), expected, rtol=1e-5, atol=1e-6)


def test_gradcam_plus_plus_of_one_position_is_its_closed_form():
    """a = 1 / (2 + f g)."""
    f, g = noise(3, 5, 1, 1), noise(3, 5, 1, 1) - 0.5
    expected = (f * g.relu() / (2 + f * g)).sum(1)
    torch.testing.assert_close(MAKE["gradcam-plus-plus"]().combined(f, g), expected.relu())


def test_gradcam_plus_plus_is_the_papers_formula_whatever_the_scale():
    f, g = noise(2, 5, 4, 3).double(), noise(2, 5, 4, 3).double().flip(0) - 0.4
    for scale in (1.0, 1e-6):
        square, cube = (scale * g) ** 2, (scale * g) ** 3
        a = square / (2 * square + f.sum((2, 3), keepdim=True) * cube)
        weights = (a * (scale * g).relu()).sum((2, 3), keepdim=True)
        expected = (weights * f).sum(1).relu()
        torch.testing.assert_close(MAKE["gradcam-plus-plus"]().combined(f, scale * g), expected)


def test_gradcam_plus_plus_is_finite_where_negative_features_make_it_singular():
    f, g = torch.full((1, 1, 2, 1), -1.0), torch.ones(1, 1, 2, 1)  # 2 + F g = 0
    assert not MAKE["gradcam-plus-plus"]().combined(f, g).any()


def test_respond_cam_sums_to_the_score_of_a_head_that_is_linear_in_the_features():
    torch.manual_seed(0)
    model = Chain([nn.Conv2d(1, 6, 3, 2), nn.ReLU()], lambda values: values.flatten(1), nn.Linear(6 * 4 * 3, 3))
    model, images, targets = model.double().eval(), noise(3, 1, 9, 8).double(), torch.tensor([0, 2, 1])
    sums = coarse(MAKE["respond-cam"](), model, images, targets).flatten(1).sum(1)
    scores = model(images)[torch.arange(3), targets] - model.head.bias[targets]
    torch.testing.assert_close(sums, scores.detach(), rtol=0, atol=1e-14)


def test_respond_cam_leaves_out_channels_whose_sum_vanishes():
    f = torch.tensor([[[[1.0, -1.0]], [[2.0, 1.0]], [[0.0, 0.0]]]])
    g = torch.tensor([[[[3.0, 1.0]], [[1.0, -1.0]], [[5.0, 5.0]]]])
    expected = (2 - 1) / 3 * f[:, 1]
    torch.testing.assert_close(MAKE["respond-cam"]().combined(f, g), expected)


def test_layercam_weighs_each_position():
    f = torch.tensor([[[[1.0, 2.0]], [[3.0, -4.0]]]])
    g = torch.tensor([[[[0.5, -1.0]], [[-1.0, 2.0]]]])
    assert torch.equal(MAKE["layercam"]().combined(f, g), torch.tensor([[[0.5, 0.0]]]))


def test_maps_are_enlarged_between_the_centres_of_positions():
    (row,) = enlarged(torch.tensor([[0.0, 1.0]]), (4,))
    assert torch.equal(row, torch.tensor([0.0, 0.25, 0.75, 1.0]))
    flat = enlarged(torch.full((1, 2, 2, 2), 3.0), (4, 5, 6))
    torch.testing.assert_close(flat, torch.full((1, 4, 5, 6), 3.0))


# --- other implementations ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("relu", RELU_STYLES)
def test_gradcam_agrees_with_captum(relu):
    images, targets = noise(4, 3, 22, 18), torch.tensor([0, 1, 2, 1])
    plain = network(3, batch_norm=True)
    layer = LayerGradCam(plain, plain.activations[2])
    expected = LayerAttribution.interpolate(
        layer.attribute(images.clone(), target=targets, relu_attributions=True), (22, 18), "bilinear"
    )[:, 0]
    maps = explain(MAKE["gradcam"](), network(3, relu=relu, batch_norm=True), images, targets)
    assert maps.any()
    torch.testing.assert_close(maps, expected.detach(), rtol=1e-5, atol=1e-5 * expected.max().item())


@pytest.mark.parametrize("relu", RELU_STYLES)
def test_guided_gradcam_agrees_with_captum(relu):
    images, targets = noise(4, 3, 22, 18), torch.tensor([0, 1, 2, 1])
    plain = network(3, seed=9)
    captum = CaptumGuidedGradCam(plain, plain.activations[2])
    expected = captum.attribute(images.clone(), target=targets, interpolate_mode="bilinear").sum(1).detach()
    model = network(3, relu=relu, seed=9)
    maps = explain(MAKE["guided-gradcam"](), model, images, targets)
    torch.testing.assert_close(maps, expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))
    where = explain(MAKE["gradcam"](), model, images, targets) == 0
    assert where.any()
    assert not maps[where].any()


@pytest.mark.parametrize(
    ("name", "theirs"),
    [("gradcam-plus-plus", "GradCAMPlusPlus"), ("respond-cam", "XGradCAM"), ("layercam", "LayerCAM")],
)
def test_agreement_with_pytorch_grad_cam(name, theirs):
    """After its stretching to [0, 1]; with logits so large that its epsilons (1e-6, 1e-7) do not count."""
    reference = getattr(pytest.importorskip("pytorch_grad_cam"), theirs)
    targets_of = pytest.importorskip("pytorch_grad_cam.utils.model_targets").ClassifierOutputTarget
    images, targets, model = noise(3, 1, 24, 20), [0, 2, 1], network()
    model.head.weight.data *= 1e4
    ours = explain(MAKE[name](), model, images, targets)
    if name == "respond-cam":  # theirs cuts negative values off before it enlarges
        ours = enlarged(coarse(MAKE[name](), model, images, targets).relu(), (24, 20))
    with reference(model, [model.activations[2]]) as cam:
        expected = torch.from_numpy(cam(images.clone(), [targets_of(target) for target in targets]))
    least, largest = ours.amin((1, 2), keepdim=True), ours.amax((1, 2), keepdim=True)
    torch.testing.assert_close((ours - least) / (largest - least), expected, rtol=0, atol=1e-5)


# --- which feature map ----------------------------------------------------------------------------------------------


class Chain(nn.Module):
    """Features, something between, a head."""

    def __init__(self, features, between, head):
        super().__init__()
        self.features = nn.Sequential(*features)
        self.between = between
        self.head = head

    def forward(self, images):
        return self.head(self.between(self.features(images)))


def pooled(values):
    return values.flatten(2).mean(2)


class Branches(nn.Module):
    """Two branches that are put together, then pooled; with `beside`, one of them reaches the head alone."""

    def __init__(self, beside=False):
        super().__init__()
        self.stem, self.left, self.right = nn.Conv2d(1, 4, 3), nn.Conv2d(4, 3, 1), nn.Conv2d(4, 2, 1)
        self.head = nn.Linear(5, 3)
        self.beside = beside

    def forward(self, images):
        stem = self.stem(images).relu()
        left, right = self.left(stem).relu(), torch.sigmoid(self.right(stem))
        if self.beside:
            return self.head(torch.cat([left.mean((2, 3)), right.amax((2, 3))], 1))
        return self.head(torch.cat([left, right], 1).mean((2, 3)))


class ChannelsLast(nn.Module):
    """A block in channels-last layout with a shortcut, like ConvNeXt's; every side and the channels are 8."""

    def __init__(self):
        super().__init__()
        self.stem, self.depthwise = nn.Conv2d(1, 8, 2, 2), nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.norm, self.dense, self.head = nn.LayerNorm(8), nn.Linear(8, 8), nn.Linear(8, 3)

    def forward(self, images):
        start = self.norm(self.stem(images).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        inner = F.gelu(self.dense(self.depthwise(start).permute(0, 2, 3, 1)))
        return self.head((start + inner.permute(0, 3, 1, 2)).mean((2, 3)))


class Tokens(nn.Module):
    """A patch embedding, then a mixer of tokens or attention."""

    def __init__(self, attention):
        super().__init__()
        self.embedding, self.mix, self.head = nn.Conv2d(1, 8, 4, 4), nn.Linear(64, 64), nn.Linear(8, 3)
        self.attention = attention

    def forward(self, images):
        tokens = self.embedding(images).flatten(2).transpose(1, 2)
        if self.attention:
            tokens = tokens + (tokens @ tokens.mT).softmax(-1) @ tokens
        else:
            tokens = tokens + F.gelu(self.mix(tokens.mT)).mT
        return self.head(tokens.mean(1))


def test_the_feature_map_is_where_branches_have_met():
    structure = traced(Branches().eval(), noise(2, 1, 10, 10))
    assert structure.feature().kind == "concatenate"
    assert traced(Branches(beside=True).eval(), noise(2, 1, 10, 10)).feature().kind == "relu"


def test_branches_that_reach_the_head_alone_are_explained_where_they_part():
    assert refused(MAKE["cam"](), Branches()) is None
    reason = refused(MAKE["cam"](), Branches(beside=True))
    assert "not linear" in reason
    assert "ReLU" in reason
    model, images = Branches(beside=True).eval(), noise(2, 1, 10, 10)
    stem = model.stem(images).relu().detach().requires_grad_()
    left, right = model.left(stem).relu(), torch.sigmoid(model.right(stem))
    score = model.head(torch.cat([left.mean((2, 3)), right.amax((2, 3))], 1))[:, 1].sum()
    alpha = torch.autograd.grad(score, stem)[0].mean((2, 3), keepdim=True)
    expected = (alpha * stem).sum(1).relu().detach()
    torch.testing.assert_close(coarse(MAKE["gradcam"](), model, images, [1, 1]), expected)


def test_channels_last_blocks_are_not_mistaken_for_features():
    model, images = ChannelsLast().eval(), noise(2, 1, 16, 16)
    structure = traced(model, images)
    assert structure.feature().kind == "add"
    assert refused(MAKE["cam"](), model, spatial=(16, 16)) is None


@pytest.mark.parametrize(("attention", "what"), [(True, "attention over tokens"), (False, "gelu over tokens")])
@pytest.mark.parametrize("name", MAKE)
def test_transformers_are_refused(name, attention, what):
    assert what in refused(MAKE[name](), Tokens(attention))


@pytest.mark.parametrize("name", MAKE)
def test_models_without_feature_maps_are_refused(name):
    assert "no feature map" in refused(MAKE[name](), LinearNetwork(1, (32, 32), 3))
    with pytest.raises(UserError, match="no feature map"):
        explain(MAKE[name](), LinearNetwork(1, (6, 6), 3), noise(1, 1, 6, 6), [0])


@pytest.mark.parametrize(
    ("features", "between", "reason"),
    [
        ([], lambda values: values.flatten(1)[:, :6], "weighs every position"),
        ([], lambda values: F.max_pool2d(values, 2).mean((2, 3)), None),  # the pooled map is linear in the head
        ([], lambda values: pooled(values) + values.amax((2, 3)), "neither by the global average nor"),
        ([], lambda values: pooled(values).relu(), "not linear in the pooled feature maps: ReLU"),
        ([nn.AvgPool2d(2)], pooled, None),
        ([nn.BatchNorm2d(6)], pooled, None),
    ],
)
def test_cam_proves_that_the_head_is_linear_in_the_pooled_maps(features, between, reason):
    model = Chain([nn.Conv2d(1, 6, 3), nn.ReLU(), *features], between, nn.Linear(6, 3))
    found = refused(MAKE["cam"](), model, spatial=(10, 10))
    assert found is None if reason is None else reason in found


class Rewriting(nn.Module):
    """Works in place on its feature map: by an operation that rules make out of place, or by one they do not know."""

    def __init__(self, how):
        super().__init__()
        self.convolution, self.head, self.how = nn.Conv2d(1, 4, 3), nn.Linear(4, 3), how

    def forward(self, images):
        values = self.convolution(images).relu()
        if self.how == "known":
            values *= 2.0
        elif self.how == "index":
            values[:, :, 0] = 0
        else:
            values.mul_(2.0)  # its result is thrown away
        return self.head(values.mean((2, 3)))


def test_what_works_in_place_on_the_feature_map_is_followed_or_refused():
    assert refused(MAKE["gradcam"](), Rewriting("known")) is None
    assert "in place" in refused(MAKE["gradcam"](), Rewriting("index"))
    assert "in place unseen" in refused(MAKE["gradcam"](), Rewriting("discarded"))
    assert "in place unseen" in refused(MAKE["visualbackprop"](), Rewriting("discarded"))


# --- option layer ---------------------------------------------------------------------------------------------------


def test_a_layer_can_be_named():
    images, targets, model = noise(3, 1, 20, 16), torch.tensor([0, 2, 1]), network()
    layer = LayerGradCam(model, model.activations[1])
    expected = LayerAttribution.interpolate(
        layer.attribute(images.clone(), target=targets, relu_attributions=True), (20, 16), "bilinear"
    )[:, 0].detach()
    explainer = MAKE["gradcam"](layer="activations.1")
    assert refused(explainer, model) is None
    maps = explain(explainer, model, images, targets)
    torch.testing.assert_close(maps, expected, rtol=1e-5, atol=1e-5 * expected.max().item())
    assert not any(module._forward_hooks for module in model.modules())
    assert "not linear" in refused(MAKE["cam"](layer="activations.1"), model)


def test_a_layer_that_is_not_there_is_named_with_its_neighbours():
    with pytest.raises(UserError, match=r"layer='activation\.1'.*activations\.1"):
        refused(MAKE["gradcam"](layer="activation.1"), network())
    model = network()
    with pytest.raises(UserError, match="no such module"):
        explain(MAKE["gradcam"](layer="nonsense"), model, noise(1, 1, 8, 8), [0])
    assert not any(module._forward_hooks for module in model.modules())


def test_a_layer_without_feature_maps_is_refused():
    assert "layer head" in refused(MAKE["gradcam"](layer="head"), network())
    assert "channels not first" in refused(MAKE["gradcam"](layer="dense"), ChannelsLast(), spatial=(16, 16))


# --- VisualBackProp -------------------------------------------------------------------------------------------------


def test_visualbackprop_of_a_chain_follows_each_convolution():
    """Against the paper's steps written out: odd sizes, so that strides leave rows over."""
    model, images = network(), noise(3, 1, 17, 22)
    averages, values = [], images
    for convolution in model.convolutions:
        values = convolution(values).relu()
        averages.append(values.detach().mean(1, keepdim=True))
    mask = averages[2]
    steps = ((averages[1], 2, (9, 11)), (averages[0], 2, (17, 22)), (None, 1, (17, 22)))
    for below, stride, size in steps:
        grown = torch.autograd.functional.vjp(  # the transpose of the convolution, by autograd
            lambda values, stride=stride: F.conv2d(values, torch.ones(1, 1, 3, 3), stride=stride, padding=1),
            torch.zeros(3, 1, *size),
            mask,
        )[1]
        mask = grown if below is None else grown * below
    least, largest = mask.amin((1, 2, 3), keepdim=True), mask.amax((1, 2, 3), keepdim=True)
    maps = explain(MAKE["visualbackprop"](), model, images, [0, 1, 2])
    torch.testing.assert_close(maps, ((mask - least) / (largest - least))[:, 0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "geometry",
    [
        {"kernel_size": 5, "stride": 3, "padding": 1},
        {"kernel_size": (3, 2), "stride": (1, 2), "dilation": (2, 1)},
        {"kernel_size": 3, "padding": "same", "dilation": 2},
    ],
)
def test_visualbackprop_knows_every_geometry_of_a_convolution(geometry):
    torch.manual_seed(0)
    model = Chain([nn.Conv2d(1, 4, **geometry), nn.ReLU()], pooled, nn.Linear(4, 3)).eval()
    ones, images = nn.Conv2d(1, 1, **geometry, bias=False), noise(2, 1, 17, 16)
    nn.init.ones_(ones.weight)
    mean = model.features(images).mean(1, keepdim=True).detach()
    mask = torch.autograd.functional.vjp(ones, torch.zeros(2, 1, 17, 16), mean)[1][:, 0]
    expected = (mask - mask.amin((1, 2), keepdim=True)) / (mask.amax((1, 2)) - mask.amin((1, 2)))[:, None, None]
    torch.testing.assert_close(explain(MAKE["visualbackprop"](), model, images, [0, 1]), expected)


def test_visualbackprop_undoes_poolings_before_and_after_the_activation():
    torch.manual_seed(0)
    for order in ((nn.ReLU(), nn.MaxPool2d(2)), (nn.MaxPool2d(2), nn.ReLU())):
        model = Chain([nn.Conv2d(1, 4, 3), *order, nn.Conv2d(4, 6, 3), nn.ReLU()], pooled, nn.Linear(6, 3)).eval()
        images = noise(2, 1, 14, 16)
        with torch.no_grad():
            first = model.features[:3](images) if isinstance(order[0], nn.MaxPool2d) else model.features[:2](images)
            last = model.features(images).mean(1, keepdim=True)
        ones = torch.ones(1, 1, 3, 3)
        mask = F.interpolate(F.conv_transpose2d(last, ones), first.shape[2:]) * first.mean(1, keepdim=True)
        mask = F.conv_transpose2d(F.interpolate(mask, (12, 14)), ones)[:, 0]
        expected = (mask - mask.amin((1, 2), keepdim=True)) / (mask.amax((1, 2)) - mask.amin((1, 2)))[:, None, None]
        torch.testing.assert_close(explain(MAKE["visualbackprop"](), model, images, [0, 0]), expected)


def test_visualbackprop_of_a_residual_network_takes_one_map_a_resolution():
    torch.manual_seed(0)
    model = timm.create_model("resnet10t", num_classes=2, in_chans=1).eval()
    images = noise(2, 1, 64, 64)
    with torch.no_grad():
        features = model.forward_intermediates(images, intermediates_only=True)
        averages = [values.relu().mean(1, keepdim=True) for values in features]
        mask = averages[-1]
        for below in averages[-2::-1]:
            mask = F.conv_transpose2d(F.interpolate(mask, below.shape[2:]), torch.ones(1, 1, 3, 3), padding=1) * below
        mask = F.conv_transpose2d(F.interpolate(mask, (64, 64)), torch.ones(1, 1, 3, 3), padding=1)[:, 0]
    expected = (mask - mask.amin((1, 2), keepdim=True)) / (mask.amax((1, 2)) - mask.amin((1, 2)))[:, None, None]
    torch.testing.assert_close(explain(MAKE["visualbackprop"](), model, images, [0, 1]), expected, rtol=1e-4, atol=1e-5)


def test_visualbackprop_knows_no_class():
    images = noise(2, 1, 16, 16)
    maps = [explain(MAKE["visualbackprop"](), network(), images, [target] * 2) for target in range(3)]
    assert torch.equal(maps[0], maps[1])
    assert torch.equal(maps[0], maps[2])
    assert maps[0].amin() == 0
    assert (maps[0].amax((1, 2)) == 1).all()


def test_visualbackprop_of_nothing_is_zero():
    model = network()
    for convolution in model.convolutions:
        convolution.bias.data.zero_()
    assert not explain(MAKE["visualbackprop"](), model, torch.zeros(2, 1, 16, 16), [0, 1]).any()


# --- all of them ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MAKE)
def test_maps_do_not_depend_on_the_batch(name):
    model, images, targets = network(2, 3, "inplace", batch_norm=True), noise(5, 2, 20, 14), [0, 1, 2, 1, 0]
    whole = explain(MAKE[name](), model, images, targets)
    assert whole.flatten(1).any(1).sum() >= 3
    for index in range(5):
        alone = explain(MAKE[name](), model, images[index : index + 1], targets[index : index + 1])
        torch.testing.assert_close(alone[0], whole[index], rtol=1e-4, atol=1e-5 * float(whole.abs().max()))


@pytest.mark.parametrize("name", MAKE)
def test_volumes(name):
    torch.manual_seed(0)
    layers = [nn.Conv3d(1, 4, 3, 2, 1), nn.ReLU(inplace=True), nn.Conv3d(4, 6, 3, 2, 1), nn.BatchNorm3d(6), nn.ReLU()]
    model, images = Chain(layers, pooled, nn.Linear(6, 2)).eval(), noise(2, 1, 8, 10, 12)
    explainer = MAKE[name]()
    assert refused(explainer, model, spatial=(8, 10, 12)) is None
    maps = explain(explainer, model, images, [0, 1])
    assert maps.shape == (2, 8, 10, 12)
    assert maps.any()


def test_nothing_of_the_network_before_the_feature_map_is_recorded():
    """The backward pass ends at the features: the first convolution must not be in autograd's graph."""
    model, images = network(relu="inplace").requires_grad_(False), noise(2, 1, 16, 16)
    head = MAKE["gradcam"]()._head(model, images, torch.tensor([0, 1]))
    assert head.features.is_leaf
    assert not any("Conv" in name for name in operations_behind(head.logits))
    assert not images.requires_grad


def test_a_model_that_was_changed_is_looked_at_again():
    explainer, model, images = MAKE["cam"](), network(), noise(2, 1, 16, 16)
    explain(explainer, model, images, [0, 1])
    model.norms[2] = nn.BatchNorm2d(32).eval()
    model.activations[2] = nn.Sigmoid()
    model.norms[2].running_mean.fill_(0.1)
    fresh = explain(MAKE["cam"](), model, images, [0, 1])
    assert torch.equal(explain(explainer, model, images, [0, 1]), fresh)


def test_a_model_that_runs_other_operations_each_time_is_an_error():
    class Restless(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner, self.calls = network(), 0

        def forward(self, images):
            self.calls += 1
            for _ in range(self.calls):
                images = images + 0.0
            return self.inner(images)

    with pytest.raises((UserError, PluginError), match="other operations"):
        explain(MAKE["gradcam"](), Restless(), noise(1, 1, 8, 8), [0])


REFUSALS = {
    "resnet18": {},
    "densenet121": {},
    "vgg11": {"cam": "not linear in the pooled feature maps: ReLU"},
    "efficientnet_b0": {"guided-gradcam": "ReLU"},
    "convnext_atto": {"cam": "layer normalisation", "guided-gradcam": "ReLU"},
    "vit_tiny_patch16_224": dict.fromkeys(MAKE, "attention over tokens follows"),
    "inception_v3": {},
}


@pytest.mark.parametrize("architecture", REFUSALS)
def test_timm_classifiers(architecture):
    torch.manual_seed(0)
    side = 128 if architecture == "inception_v3" else 64
    smaller = {"vit_tiny_patch16_224": {"img_size": 64}, "vgg11": {"mlp_ratio": 1 / 64}}.get(architecture, {})
    model = timm.create_model(architecture, num_classes=3, in_chans=1, **smaller)
    for name, make in MAKE.items():
        explainer = make()
        reason = refused(explainer, model, spatial=(side, side))
        expected = REFUSALS[architecture].get(name)
        assert (reason is None) if expected is None else (expected in (reason or "")), (name, reason)
        if reason is None:
            maps = explain(explainer, model, noise(2, 1, side, side), [0, 1])
            assert maps.shape == (2, side, side)
    assert model.training


SPECS = [
    ExplainerSpec(
        name,
        "under test",
        factory=f"xbench_baselines.{module}:{kind}",
        options=f"xbench_baselines.options.cams:{options}" if options else "",
    )
    for name, module, kind, options in (
        ("cam", "cams", "Cam", "CamOptions"),
        ("gradcam", "cams", "GradCam", "GradCamOptions"),
        ("gradcam-plus-plus", "cams", "GradCamPlusPlus", "LayerOptions"),
        ("guided-gradcam", "cams", "GuidedGradCam", "LayerOptions"),
        ("respond-cam", "cams", "RespondCam", "LayerOptions"),
        ("layercam", "cams", "LayerCam", "LayerOptions"),
        ("visualbackprop", "visual_backprop", "VisualBackProp", ""),
    )
]


@parametrize_with_checks(SPECS)
def test_conformance(check):
    check()
