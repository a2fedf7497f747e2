"""Importance networks: every architecture builds, fits any image size, and keeps the image's size."""

import itertools

import pytest
import torch
from segmentation_models_pytorch import MODEL_ARCHITECTURES_MAPPING

from xbench import UserError
from xbench.contracts.options import parse_options
from xbench_vinet.gridnet import GridNet
from xbench_vinet.importance import PaddedToFit, build_importance_network, too_small
from xbench_vinet.options import PRESETS, VINetOptions, resolve
from xbench_vinet.segnet import SegNet

ARCHITECTURES = [*sorted(MODEL_ARCHITECTURES_MAPPING), "segnet", "gridnet"]
ENCODERS = {"dpt": "tu-test_vit", "segnet": None, "gridnet": None}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_architecture_gives_a_map_of_the_images_size(architecture: str) -> None:
    spatial = (128, 130) if architecture == "pan" else (64, 70)
    encoder = ENCODERS.get(architecture, "tu-test_resnet")
    network = build_importance_network(architecture, encoder, 3, 0.25, spatial)
    assert network.training
    result = network(torch.rand(2, 3, *spatial))
    assert result.shape == (2, 1, *spatial)
    assert result.min() < result.max()
    assert result.requires_grad


def test_the_options_know_every_architecture() -> None:
    for architecture in ARCHITECTURES:
        assert VINetOptions(importance=architecture).importance == architecture
    with pytest.raises(UserError, match="option importance='unett' is wrong"):
        parse_options(VINetOptions, {"importance": "unett"}, "explainer vinet")


def test_pan_refuses_small_images() -> None:
    assert too_small("pan", (128, 128)) is None
    assert "at least 128 x 128" in too_small("pan", (128, 64))
    with pytest.raises(UserError, match="at least 128 x 128"):
        build_importance_network("pan", "resnet18", 1, 1.0, (64, 64))


@pytest.mark.parametrize(
    ("architecture", "encoder", "message"),
    [
        ("unet", "resnet-18", r"no encoder 'resnet-18' \(did you mean resnet18"),
        ("unet", "tu-no_such_network", "tu-no_such_network"),
        ("dpt", "resnet18", "DPT takes vision transformers"),
    ],
)
def test_wrong_encoders_are_named(architecture: str, encoder: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        build_importance_network(architecture, encoder, 1, 1.0, (64, 64))


def test_padding_is_cut_off_where_it_was_put() -> None:
    identity = PaddedToFit(torch.nn.Identity(), multiple=32, smallest=64)
    images = torch.rand(1, 1, 33, 70)
    assert torch.equal(identity(images), images)
    seen = []
    identity.network.register_forward_hook(lambda module, inputs, output: seen.append(output))
    identity(images)
    assert seen[0].shape == (1, 1, 64, 96)
    assert torch.equal(seen[0][0, 0, 0, 13:83], images[0, 0, 0])  # the border is replicated, 13 pixels on either side


@pytest.mark.parametrize("spatial", [(1, 1), (7, 9), (33, 20)])
def test_gridnet_takes_any_size(spatial: tuple[int, ...]) -> None:
    assert GridNet(2, width=0.1).eval()(torch.rand(2, 2, *spatial)).shape == (2, 1, *spatial)


def test_gridnet_has_the_published_layers() -> None:
    # 5 rows; 5 residual columns; 3 x 4 edges down and 3 x 4 up; each a batch norm and a 3x3 convolution with bias.
    rows = [32, 64, 96, 128, 196]

    def edge(a: float, b: float) -> float:
        return 2 * a + 9 * a * b + b

    expected = 5 * sum(edge(size, size) for size in rows)
    expected += 3 * sum(edge(a, b) + edge(b, a) for a, b in itertools.pairwise(rows))
    expected += 9 * 1 * 32 + 32 + 9 * 32 * 1 + 1
    assert sum(parameter.numel() for parameter in GridNet(1).parameters()) == expected


@pytest.mark.parametrize("spatial", [(32, 32), (45, 67)])
def test_segnet_takes_odd_sizes(spatial: tuple[int, ...]) -> None:
    assert SegNet(2, width=0.05).eval()(torch.rand(2, 2, *spatial)).shape == (2, 1, *spatial)


def test_segnet_is_vgg16_there_and_back() -> None:
    network = SegNet(3)
    convolutions = [module for module in network.modules() if isinstance(module, torch.nn.Conv2d)]
    widths = [64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512]
    widths += [512, 512, 512, 512, 512, 256, 256, 256, 128, 128, 64, 64, 1]
    encoder = [module for block in network.encoder for module in block if isinstance(module, torch.nn.Conv2d)]
    decoder = [module for block in reversed(network.decoder) for module in block if isinstance(module, torch.nn.Conv2d)]
    assert [module.out_channels for module in encoder + decoder] == widths
    assert len(convolutions) == 26
    norms = [module for module in network.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    assert len(norms) == 25  # all but the last


def test_segnet_unpools_to_where_the_maximum_was() -> None:
    network = SegNet(1, width=0.05).eval()
    image = torch.zeros(1, 1, 32, 32)
    features, indices = network.pool(image.index_put((*torch.tensor([[0], [0], [5], [9]]),), torch.tensor(2.0)))
    restored = network.unpool(features, indices, output_size=(32, 32))
    assert restored[0, 0, 5, 9] == 2
    assert restored.sum() == 2


def test_presets_fill_what_is_left_open() -> None:
    assert resolve(VINetOptions(), "cpu", (64, 64)).preset == "tiny"
    assert resolve(VINetOptions(), "cuda:1", (64, 64)).preset == "paper"
    assert resolve(VINetOptions(preset="tiny"), "cuda", (64, 64)).preset == "tiny"
    for device in ("cpu", "cuda:1"):  # resolved for the name of a row, then by the explainer itself
        named = VINetOptions().resolved_on(device)
        assert resolve(named, "cpu", (64, 64)) == resolve(VINetOptions(), device, (64, 64))
    paper = resolve(VINetOptions(preset="paper"), "cpu", (64, 64))
    assert (paper.classifier, paper.importance) == ("seresnet50", "deeplabv3plus")
    assert (paper.learning_rate, paper.train_batch, paper.alpha, paper.max_reduction) == (1e-4, 8, 0.25, 4)
    for preset in PRESETS:
        for key, value in resolve(VINetOptions(preset=preset, epochs=3, shift=20.0), "cpu", (64, 64)):
            assert value is not None, (preset, key)
    chosen = resolve(VINetOptions(epochs=3, shift=20.0), "cpu", (64, 64))
    assert (chosen.epochs, chosen.shift) == (3, 20.0)
    assert chosen.classifier == PRESETS["tiny"]["classifier"]
    assert resolve(chosen, "cuda", (64, 64)) == chosen  # what was resolved stays, wherever it is read


def test_networks_without_an_encoder_refuse_one() -> None:
    assert resolve(VINetOptions(importance="segnet"), "cpu", (64, 64)).encoder is None
    assert resolve(VINetOptions(importance="dpt"), "cpu", (64, 64)).encoder.startswith("tu-vit")
    with pytest.raises(UserError, match="segnet takes no encoder"):
        resolve(VINetOptions(importance="segnet", encoder="resnet18"), "cpu", (64, 64))


def test_quarter_turns_need_square_images() -> None:
    assert resolve(VINetOptions(preset="tiny"), "cpu", (64, 64)).augment == "dihedral"
    assert resolve(VINetOptions(preset="tiny"), "cpu", (64, 96)).augment == "none"
    assert resolve(VINetOptions(augment="dihedral"), "cpu", (64, 96)).augment == "dihedral"  # the user's word stands


def test_options_come_from_text() -> None:
    parsed = parse_options(
        VINetOptions, {"max_reduction": "none", "epochs": "7", "multi_scale": "false"}, "explainer vinet"
    )
    assert (parsed.max_reduction, parsed.epochs, parsed.multi_scale) == ("none", 7, False)
    assert parse_options(VINetOptions, {"max_reduction": "8"}, "explainer vinet").max_reduction == 8
    with pytest.raises(UserError, match="max_reduction=0 is wrong"):
        resolve(VINetOptions(max_reduction=0), "cpu", (64, 64))
