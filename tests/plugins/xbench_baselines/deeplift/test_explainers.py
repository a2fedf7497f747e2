"""DeepLIFT and DeepSHAP: closed forms, completeness to rounding, captum and shap where they are right."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from captum.attr import DeepLift as CaptumDeepLift
from captum.attr import DeepLiftShap as CaptumDeepLiftShap
from torch import nn

import xbench_baselines
from xbench import Attribution, Batch, DatasetInfo, Explainer, Session, Split, UserError
from xbench.contracts.options import parse_options
from xbench.runtime.seeding import rng, sample_seeds
from xbench.testing import parametrize_with_checks
from xbench.testing.networks import ConvNetwork, LinearNetwork
from xbench_baselines.deeplift.explainers import DeepLift, DeepShap, against_background, against_baseline
from xbench_baselines.deeplift.options import DeepLiftOptions, DeepShapOptions

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:captum", "ignore::DeprecationWarning:shap")

SPECS = [spec for spec in xbench_baselines.xbench_explainers() if spec.name in ("deeplift", "deepshap")]


def noise(*shape: int, name: str = "images") -> torch.Tensor:
    return torch.from_numpy(rng(0, name).random(shape, dtype=np.float32))


def background(*shape: int) -> torch.Tensor:
    return noise(*shape, name="background")


def explain(
    explainer: Explainer, model: nn.Module, images: torch.Tensor, targets: Sequence[int] | torch.Tensor
) -> torch.Tensor:
    return explain_fully(explainer, model, images, targets).maps


def explain_fully(
    explainer: Explainer, model: nn.Module, images: torch.Tensor, targets: Sequence[int] | torch.Tensor
) -> Attribution:
    ids = [f"sample-{index}" for index in range(len(images))]
    labels, masks = torch.zeros(len(images), dtype=torch.int64), torch.zeros(len(images), *images.shape[2:]).bool()
    seeds = torch.from_numpy(sample_seeds(0, ids))
    batch = Batch(images, labels, tuple(ids), tuple(ids), masks, labels.bool(), seeds)
    return explainer.explain_fully(model, batch, torch.as_tensor(targets), "under test")


def deepshap(pool: torch.Tensor, folder: Path) -> DeepShap:
    """Fitted on a training split that is the pool."""
    ids = [str(index) for index in range(len(pool))]
    train = Split.from_arrays(pool.numpy(), np.zeros(len(pool), dtype=int), ids, ids)
    made, info = DeepShap(DeepShapOptions()), info_of(pool)
    made.fit(nn.Identity(), train, train, info, Session(folder))
    made.restore(folder, nn.Identity(), info, "cpu")
    return made


def info_of(images: torch.Tensor, classes: int = 2) -> DatasetInfo:
    return DatasetInfo("toy", tuple("abcdef"[:classes]), images.shape[1], tuple(images.shape[2:]))


def scores(model: nn.Module, images: torch.Tensor, target: int) -> torch.Tensor:
    with torch.no_grad():
        return model(images)[:, target]


# --- networks -------------------------------------------------------------------------------------------------------


class Residual(nn.Module):
    """A stem with an overlapping pool, then additions in place, as in ResNet."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 6, 3, bias=False), nn.BatchNorm2d(6), nn.ReLU(True), nn.MaxPool2d(3, 2, 1)
        )
        self.block = nn.Sequential(nn.Conv2d(6, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 6, 1))
        self.relu, self.head = nn.ReLU(inplace=True), nn.Linear(6, 3)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        features = self.stem(images)
        for _ in range(2):
            shortcut = features
            features = self.block(features)
            features += shortcut
            features = self.relu(features)
        return self.head(features.mean((2, 3)))


class Gated(nn.Module):
    """Squeeze and excitation: a product of two activations, one of them a sigmoid, the other in place."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 6, 3), nn.SiLU(inplace=True))
        self.gate = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(6, 6, 1), nn.Sigmoid())
        self.head = nn.Linear(6, 3)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        features = self.features(images)
        features *= self.gate(features)
        return self.head(2 * features.mean((2, 3)))


def pooled(pool: nn.Module, size: int = 6, channels: int = 3) -> nn.Sequential:
    features = nn.Sequential(nn.Conv2d(channels, 5, 3, padding=1), nn.ReLU(), pool)
    return nn.Sequential(features, nn.Flatten(), nn.Linear(5 * size, 3))


NETWORKS = {
    "convolutions": lambda: ConvNetwork(3, 3, batch_norm=True),
    "pool": lambda: pooled(nn.MaxPool2d(2), 6 * 6),
    "overlapping-pool": lambda: pooled(nn.MaxPool2d(3, 2, 1), 6 * 6),
    "dilated-pool": lambda: pooled(nn.MaxPool2d(3, 1, 1, dilation=2, ceil_mode=True), 10 * 10),
    "global-pool": lambda: pooled(nn.AdaptiveMaxPool2d(1), 1),
    "residual": Residual,
    "gated": Gated,
    "leaky": lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.PReLU(4), nn.ELU(), nn.Flatten(), nn.Linear(400, 3)),
    "clamped": lambda: nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU6(True), nn.Hardswish(), nn.Flatten(), nn.Linear(400, 3)
    ),
}
TIMM = ("resnet18", "seresnet18", "efficientnet_b0", "mobilenetv3_small_050", "densenet121")


def seeded(build: Callable[[], nn.Module]) -> nn.Module:
    torch.manual_seed(0)
    return build().eval().requires_grad_(False)


def double(name: str) -> nn.Module:
    if name not in TIMM:
        return seeded(NETWORKS[name]).double()
    model = seeded(lambda: timm.create_model(name, num_classes=3)).double()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # take the next batch's statistics, lest an untrained network fades out
    model.train()(torch.rand(8, 3, 48, 48, dtype=torch.float64))
    return model.eval()


# --- axioms ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*NETWORKS, *TIMM])
def test_complete_to_rounding(name: str) -> None:
    model, side = double(name), 32 if name in TIMM else 12
    images, pool = noise(2, 3, side, side).double(), background(3, 3, side, side).double()
    targets = torch.tensor([2, 0])
    difference = model(images).gather(1, targets[:, None])[:, 0] - model(pool)[:, targets].mean(0)
    maps, errors = against_background(model, images, targets, pool)
    assert (maps.sum((1, 2)) - difference).abs().max() < 1e-10 * difference.abs().max()
    torch.testing.assert_close(errors, maps.sum((1, 2)) - difference, rtol=0, atol=1e-12)
    difference = (model(images) - model(pool[:2])).gather(1, targets[:, None])[:, 0]
    maps, errors = against_baseline(model, images, targets, pool[:2])
    assert (maps.sum((1, 2)) - difference).abs().max() < 1e-10 * difference.abs().max()
    torch.testing.assert_close(errors, maps.sum((1, 2)) - difference, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", ["overlapping-pool", "residual", "gated"])
def test_deepshap_is_the_mean_of_deeplift(name: str) -> None:
    model, targets = double(name), torch.tensor([1, 2])
    images, pool = noise(2, 3, 12, 12).double(), background(4, 3, 12, 12).double()
    singles = [against_baseline(model, images, targets, baseline[None])[0] for baseline in pool]
    maps, _ = against_background(model, images, targets, pool)
    torch.testing.assert_close(maps, torch.stack(singles).mean(0), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", ["overlapping-pool", "residual", "gated"])
def test_an_image_against_itself_is_zero(name: str, tmp_path: Path) -> None:
    images = noise(1, 3, 12, 12)
    assert not explain(deepshap(images, tmp_path), seeded(NETWORKS[name]), images, [1]).any()


def test_volumes_are_complete() -> None:
    model = nn.Sequential(nn.Conv3d(1, 3, 3), nn.ReLU(), nn.MaxPool3d(3, 2, 1), nn.Flatten(), nn.Linear(81, 2))
    model, images, pool = seeded(lambda: model).double(), noise(2, 1, 8, 8, 8).double(), background(3, 1, 8, 8, 8)  # type: ignore[assignment]
    maps, errors = against_background(model, images, torch.tensor([0, 1]), pool.double())
    assert maps.shape == (2, 8, 8, 8)
    assert errors.abs().max() < 1e-14
    assert DeepLift(DeepLiftOptions()).supports(model.float(), info_of(images)) is None


@pytest.mark.parametrize("relu", ["functional", "inplace", "reused"])
def test_every_style_of_relu_gives_the_same_map(relu: str, tmp_path: Path) -> None:
    plain, other = (seeded(lambda how=how: ConvNetwork(3, 3, relu=how, batch_norm=True)) for how in ("module", relu))  # type: ignore[misc]
    images, explainer = noise(2, 3, 12, 10), deepshap(background(4, 3, 12, 10), tmp_path)
    expected = explain(explainer, plain, images, [0, 2])
    torch.testing.assert_close(explain(explainer, other, images, [0, 2]), expected, rtol=0, atol=0)


# --- closed forms ---------------------------------------------------------------------------------------------------


def test_linear_model(tmp_path: Path) -> None:
    model, images, pool = LinearNetwork(2, (5, 4), outputs=3), noise(2, 2, 5, 4), background(7, 2, 5, 4)
    weight = model.linear.weight.detach().view(3, 2, 5, 4)[[2, 0]]
    maps = explain(deepshap(pool, tmp_path), model, images, [2, 0])
    torch.testing.assert_close(maps, (weight * (images - pool.mean(0))).sum(1), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("baseline", ["black", "white", "mean"])
def test_baselines(baseline: str) -> None:
    model, images = LinearNetwork(2, (5, 4), outputs=3), noise(2, 2, 5, 4)
    value = {"black": 0, "white": 1, "mean": images.mean((2, 3), keepdim=True)}[baseline]
    weight = model.linear.weight.detach().view(3, 2, 5, 4)[[2, 0]]
    explainer = DeepLift(DeepLiftOptions(baseline=baseline))
    found = explain_fully(explainer, model, images, [2, 0])
    torch.testing.assert_close(found.maps, (weight * (images - value)).sum(1))
    assert found.completeness_error.abs().max() < 1e-6
    labels = torch.tensor([2, 0])
    assert torch.equal(explainer.attribute(model, images, labels), found.maps)


def test_one_logit_has_a_sign_per_class(tmp_path: Path) -> None:
    model, images = seeded(lambda: ConvNetwork(1, 1)), noise(1, 1, 10, 10).repeat(2, 1, 1, 1)
    for explainer in (DeepLift(DeepLiftOptions()), deepshap(background(3, 1, 10, 10), tmp_path)):
        against, towards = explain(explainer, model, images, [0, 1])
        assert towards.any()
        torch.testing.assert_close(against, -towards, rtol=1e-5, atol=1e-8)


# --- other libraries ------------------------------------------------------------------------------------------------


def test_agrees_with_captum_without_max_pooling(tmp_path: Path) -> None:
    model, images, pool = (
        seeded(lambda: ConvNetwork(3, 3, batch_norm=True)),
        noise(3, 3, 12, 10),
        background(5, 3, 12, 10),
    )
    targets = torch.tensor([0, 2, 1])
    expected = CaptumDeepLiftShap(model).attribute(images, pool, target=targets).sum(1)
    maps = explain(deepshap(pool, tmp_path), model, images, targets)
    assert (maps - expected).abs().max() < 1e-5 * expected.abs().max()
    expected = CaptumDeepLift(model).attribute(images, torch.ones_like(images), target=targets).sum(1)
    maps = explain(DeepLift(DeepLiftOptions(baseline="white")), model, images, targets)
    assert (maps - expected).abs().max() < 1e-5 * expected.abs().max()


def test_agrees_with_shap_on_pools_that_do_not_overlap(tmp_path: Path) -> None:
    shap = pytest.importorskip("shap")
    model, images, pool = seeded(NETWORKS["pool"]), noise(2, 3, 12, 12), background(4, 3, 12, 12)
    values = torch.from_numpy(shap.DeepExplainer(model, pool).shap_values(images))  # (N, C, H, W, K)
    expected = torch.stack([values[0, ..., 2], values[1, ..., 0]]).sum(1).float()
    maps = explain(deepshap(pool, tmp_path), seeded(NETWORKS["pool"]), images, [2, 0])
    assert (maps - expected).abs().max() < 1e-5 * expected.abs().max()


def test_captum_is_incomplete_where_relu_is_followed_by_max_pooling() -> None:
    """Why the rules are our own; when this fails, captum has been mended."""
    model, image, pool = double("pool"), noise(1, 3, 12, 12).double(), background(4, 3, 12, 12).double()
    difference = scores(model, image, 1)[0] - scores(model, pool, 1).mean()
    captum = CaptumDeepLiftShap(model).attribute(image, pool, target=1).sum()
    assert abs(captum - difference) > 0.01 * abs(difference)


# --- the passes -----------------------------------------------------------------------------------------------------


class Counted(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model, self.rows = model, 0

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.rows += len(images)
        return self.model(images)


def test_forward_passes_are_images_plus_background(tmp_path: Path) -> None:
    model, images = Counted(seeded(Residual)), noise(4, 3, 12, 12)
    explain(deepshap(background(7, 3, 12, 12), tmp_path), model, images, [0, 1, 2, 0])
    assert model.rows == 4 + 7


@pytest.mark.parametrize("name", ["residual", "gated"])
def test_small_passes_give_the_same_maps(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, images = seeded(NETWORKS[name]), noise(5, 3, 12, 12)
    explainers = [DeepLift(DeepLiftOptions(baseline="mean")), deepshap(background(7, 3, 12, 12), tmp_path)]
    whole = [explain(explainer, model, images, [0, 1, 2, 0, 1]) for explainer in explainers]
    monkeypatch.setattr("xbench.compute.passes._ROWS_CPU", 3)
    monkeypatch.setattr("xbench_baselines.deeplift.explainers._GROUP", 2)
    for explainer, expected in zip(explainers, whole, strict=True):
        found = explain_fully(explainer, model, images, [0, 1, 2, 0, 1])
        torch.testing.assert_close(found.maps, expected, rtol=1e-4, atol=1e-7)
        assert found.completeness_error.abs().max() < 1e-6


# --- the plugin -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*NETWORKS, "resnet18"])
def test_supports(name: str) -> None:
    model = seeded(NETWORKS.get(name, lambda: timm.create_model(name, num_classes=3)))
    for explainer in (DeepLift(DeepLiftOptions()), DeepShap(DeepShapOptions())):
        assert explainer.supports(model, info_of(noise(1, 3, 12, 12), 3)) is None


def test_wrong_options() -> None:
    with pytest.raises(UserError, match="background"):
        parse_options(DeepShapOptions, {"background": 0}, "explainer deepshap")
    with pytest.raises(UserError, match="baseline"):
        parse_options(DeepLiftOptions, {"baseline": "grey"}, "explainer deeplift")


@parametrize_with_checks(SPECS)
def test_conformance(check: Callable[..., None]) -> None:
    check()
