"""Where a classifier's features are destroyed: module names of the families in Gu et al., and of others."""

from collections.abc import Callable

import pytest
import timm
import torch
from torch import nn

from xbench import UserError
from xbench_vinet.stages import Stage, find_stages

STAGE_END = {
    "resnet18": {"act1": 2, "layer1": 4, "layer2": 8, "layer3": 16, "layer4": 32},
    "seresnet50": {"act1": 2, "layer1": 4, "layer2": 8, "layer3": 16, "layer4": 32},
    "legacy_seresnet50": {"layer0": 2, "layer1": 4, "layer2": 8, "layer3": 16, "layer4": 32},
    "densenet121": {
        "features.norm0": 2,
        "features.denseblock1": 4,
        "features.denseblock2": 8,
        "features.denseblock3": 16,
        "features.norm5": 32,
    },
    "vgg16": {"features.8": 2, "features.15": 4, "features.22": 8, "features.29": 16, "features.30": 32},
    "vgg19_bn": {"features.12": 2, "features.25": 4, "features.38": 8, "features.51": 16, "features.52": 32},
    "efficientnet_b0": {"blocks.0": 2, "blocks.1": 4, "blocks.2": 8, "blocks.4": 16, "blocks.6": 32},
    "convnext_tiny": {"stages.0": 4, "stages.1": 8, "stages.2": 16, "stages.3": 32},
}
_RESNET = {"conv1": 2, "maxpool": 4, "layer2": 8, "layer3": 16, "layer4": 32}
AFTER_DOWNSAMPLING = {
    "resnet18": _RESNET,
    "seresnet50": _RESNET,
    # Its squeeze-and-excitation gates pool globally in the middle of every block.
    "legacy_seresnet50": {"layer0": 2, "pool0": 4, "layer2": 8, "layer3": 16, "layer4": 32},
    "densenet121": {
        "features.conv0": 2,
        "features.pool0": 4,
        "features.transition1": 8,
        "features.transition2": 16,
        "features.transition3": 32,
    },
    "vgg16": {"features.4": 2, "features.9": 4, "features.16": 8, "features.23": 16, "features.30": 32},
    "vgg19_bn": {"features.6": 2, "features.13": 4, "features.26": 8, "features.39": 16, "features.52": 32},
    "efficientnet_b0": {"conv_stem": 2, "blocks.1": 4, "blocks.2": 8, "blocks.3": 16, "blocks.5": 32},
    "convnext_tiny": {"stem": 4, "stages.1": 8, "stages.2": 16, "stages.3": 32},
}


@pytest.fixture(scope="module", params=sorted(STAGE_END))
def family(request: pytest.FixtureRequest) -> tuple[str, nn.Module]:
    # On the meta device nothing is computed and no weights are drawn: only shapes are asked for.
    with torch.device("meta"):
        return request.param, timm.create_model(request.param, pretrained=False, in_chans=1, num_classes=2)


@pytest.mark.parametrize(
    ("placement", "expected"), [("stage_end", STAGE_END), ("after_downsampling", AFTER_DOWNSAMPLING)]
)
def test_stages_of_each_family(
    family: tuple[str, nn.Module], placement: str, expected: dict[str, dict[str, int]]
) -> None:
    name, classifier = family
    found = find_stages(classifier, (1, 128, 128), placement, None)
    assert {stage.module: stage.reduction for stage in found} == expected[name]
    assert not any(stage.channels_last for stage in found)
    shallow = find_stages(classifier, (1, 128, 128), placement, 4)
    assert [stage.module for stage in shallow] == [
        module for module, reduction in expected[name].items() if reduction <= 4
    ]


def test_each_stage_gives_what_it_declares(family: tuple[str, nn.Module]) -> None:
    _, classifier = family
    stages = {*find_stages(classifier, (1, 128, 128), "stage_end", None)}
    stages |= {*find_stages(classifier, (1, 128, 128), "after_downsampling", None)}
    shapes = {}

    def record(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
            shapes[name] = output.shape[2:]

        return hook

    handles = [classifier.get_submodule(stage.module).register_forward_hook(record(stage.module)) for stage in stages]
    classifier(torch.zeros(1, 1, 128, 128, device="meta"))
    for handle in handles:
        handle.remove()
    assert shapes == {stage.module: (128 // stage.reduction,) * 2 for stage in stages}


def test_channels_last_outputs_are_recognised() -> None:
    with torch.device("meta"):
        classifier = timm.create_model("swin_tiny_patch4_window7_224", pretrained=False, in_chans=1, num_classes=2)
    found = find_stages(classifier, (1, 224, 224), "stage_end", 8)
    assert found == (Stage("layers.0", 4, channels_last=True), Stage("layers.1", 8, channels_last=True))


class Residual(nn.Module):
    """A block whose two branches both halve the image; then a global pooling."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 4, 3)  # no padding: two pixels smaller, but no down-sampling
        self.block = Sum(nn.Conv2d(4, 4, 3, 2, 1), nn.Conv2d(4, 4, 1, 2))
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(self.block(self.stem(images)))


class Sum(nn.Module):
    def __init__(self, a: nn.Module, b: nn.Module) -> None:
        super().__init__()
        self.a, self.b = a, b

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.a(images) + self.b(images)


def test_a_residual_block_is_taken_whole() -> None:
    assert find_stages(Residual(), (1, 34, 34), "after_downsampling", None) == (Stage("block", 2),)


def test_a_plain_network_declares_no_stages() -> None:
    with pytest.raises(UserError, match=r"declares no .*stages.*placement=after_downsampling"):
        find_stages(Residual(), (1, 34, 34), "stage_end", None)


def test_a_classifier_that_cannot_take_the_images_is_named() -> None:
    with pytest.raises(UserError, match="Sequential can't take images of 1 x 8 x 8"):
        find_stages(nn.Sequential(nn.Flatten(), nn.Linear(10, 2)), (1, 8, 8), "after_downsampling", None)


def test_the_classifier_is_left_as_it_was() -> None:
    classifier = nn.Sequential(nn.Conv2d(1, 2, 3, 2, 1), nn.BatchNorm2d(2), nn.Dropout())
    classifier[2].eval()
    before = {key: value.clone() for key, value in classifier.state_dict().items()}
    find_stages(classifier, (1, 8, 8), "after_downsampling", None)
    assert [module.training for module in classifier] == [True, True, False]
    assert all(torch.equal(value, before[key]) for key, value in classifier.state_dict().items())
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in classifier.modules())
