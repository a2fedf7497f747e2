import importlib
import importlib.metadata
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import xbench_models
from xbench import DatasetInfo, Model, ModelSpec, Session, Split, UserError
from xbench.compute.training import train_classifier
from xbench.jobs.base import Settings
from xbench.jobs.data import DataJob
from xbench.jobs.model import ModelJob
from xbench.jobs.store import Store
from xbench.registry.discovery import discover
from xbench.registry.references import choose
from xbench_models.convnet import ConvNet
from xbench_models.options import ConvNetOptions, TimmOptions
from xbench_models.timm_models import TimmClassifier


def info(side: int = 64, channels: int = 1, classes: int = 2, spatial: tuple[int, ...] | None = None) -> DatasetInfo:
    names = tuple(f"class {index}" for index in range(classes))
    return DatasetInfo("some images", names, channels, spatial or (side, side))


def parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_the_plugin_names_its_models_without_importing_torch() -> None:
    code = (
        "import sys, xbench_models, xbench_models.options; "
        "list(xbench_models.xbench_models()); print('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "False"


@pytest.mark.parametrize("spec", list(xbench_models.xbench_models()), ids=lambda spec: spec.name)
def test_each_model_is_built_from_its_record(spec: ModelSpec) -> None:
    model = spec.load()(spec.load_options()(), "resnet18" if spec.argument else "")
    assert isinstance(model, Model)
    module = model.build(info())
    assert module.training
    assert module(torch.rand(2, 1, 64, 64)).shape == (2, 2)


# --- convnet ----------------------------------------------------------------------------------------------------------


def test_convnet_has_the_papers_parameters() -> None:
    assert parameters(ConvNet(ConvNetOptions()).build(info())) == 421_570


def test_convnet_has_the_papers_layers() -> None:
    module = ConvNet(ConvNetOptions()).build(info())
    sizes = []
    for name, layer in module.named_children():
        if name.startswith("relu"):
            layer.register_forward_hook(lambda layer, args, output: sizes.append(tuple(output.shape[1:])))
    module(torch.rand(2, 1, 64, 64))
    assert sizes == [(32, 64, 64), (64, 32, 32), (128, 16, 16), (256, 8, 8)]
    kinds = [type(layer).__name__ for layer in module]
    assert kinds == ["Conv2d", "BatchNorm2d", "ReLU"] * 4 + ["Flatten", "Linear"]


@pytest.mark.parametrize("spatial", [(8, 8), (37, 50), (16, 16, 8)])
@pytest.mark.parametrize(("channels", "classes"), [(1, 2), (3, 5)])
def test_convnet_takes_other_images(spatial: tuple[int, ...], channels: int, classes: int) -> None:
    module = ConvNet(ConvNetOptions()).build(info(channels=channels, classes=classes, spatial=spatial))
    logits = module(torch.rand(2, channels, *spatial))
    assert logits.shape == (2, classes)
    assert not torch.allclose(logits.sum(1), torch.ones(2))  # logits, not probabilities


def test_convnet_refuses_images_that_vanish() -> None:
    with pytest.raises(UserError, match=r"7 x 64"):
        ConvNet(ConvNetOptions()).build(info(spatial=(7, 64)))


def test_convnet_is_initialised_from_the_global_generator() -> None:
    def build(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        return ConvNet(ConvNetOptions()).build(info(16)).dense.weight  # type: ignore[return-value]

    assert torch.equal(build(0), build(0))
    assert not torch.equal(build(0), build(1))


def test_convnet_learns_what_is_plain_to_see(tmp_path: Path) -> None:
    labels = np.arange(96) % 2
    images = np.random.default_rng(0).random((96, 1, 16, 16), dtype=np.float32) * 0.5
    images[labels == 1, :, 4:10, 4:10] += 0.3
    split = Split.from_arrays(images, labels, [str(index) for index in range(96)], [str(index) for index in range(96)])
    torch.manual_seed(0)
    model = ConvNet(ConvNetOptions(epochs=8, train_batch=8))
    module = model.build(info(16))
    session = Session(tmp_path)
    train_classifier(module, split.select(range(64)), split.select(range(64, 96)), model.options, session)
    assert session.facts["best"]["validation_accuracy"] > 0.95


# --- timm -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "side"),
    [
        ("resnet18", 64),
        ("seresnet50", 32),
        ("densenet121", 32),
        ("vgg11_bn", 32),
        ("convnext_atto", 32),
        ("resnet18.a1_in1k", 32),
    ],
)
@pytest.mark.parametrize(("channels", "classes"), [(1, 2), (3, 5)])
def test_timm_classifiers_take_the_datasets_images(name: str, side: int, channels: int, classes: int) -> None:
    module = TimmClassifier(TimmOptions(), name).build(info(side, channels, classes))
    assert module(torch.rand(2, channels, side, side)).shape == (2, classes)


def test_resnet50_of_brocki_has_one_logit() -> None:
    module = TimmClassifier(TimmOptions(logits="one"), "resnet50").build(info())
    assert module(torch.rand(2, 1, 64, 64)).shape == (2, 1)
    assert module.network.conv1.in_channels == 1


def test_one_logit_for_three_classes_is_refused() -> None:
    with pytest.raises(UserError, match="logits=classes"):
        TimmClassifier(TimmOptions(logits="one"), "resnet18").build(info(classes=3))


def test_a_model_of_fixed_size_is_told_the_size() -> None:
    module = TimmClassifier(TimmOptions(), "vit_tiny_patch16_224").build(info(64))
    assert module(torch.rand(2, 1, 64, 64)).shape == (2, 2)


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "inception_v3"])
def test_a_model_that_does_not_take_the_size_is_refused_by_name_and_size(name: str) -> None:
    with pytest.raises(UserError, match=rf"timm:{name} .* 10 x 10 pixels"):
        TimmClassifier(TimmOptions(), name).build(info(10))


def test_volumes_are_refused() -> None:
    with pytest.raises(UserError, match="8 x 16 x 16"):
        TimmClassifier(TimmOptions(), "resnet18").build(info(spatial=(8, 16, 16)))


def test_untrained_networks_see_images_between_minus_one_and_one() -> None:
    module = TimmClassifier(TimmOptions(), "resnet18").build(info())
    seen = []
    module.network.register_forward_pre_hook(lambda layer, args: seen.append(args[0]))
    module(torch.stack([torch.zeros(1, 64, 64), torch.ones(1, 64, 64)]))
    assert seen[0].amin() == -1
    assert seen[0].amax() == 1
    assert not any(name.startswith(("mean", "std")) for name, _ in module.named_parameters())


@pytest.mark.parametrize(("name", "near"), [("resnet19", "resnet18"), ("resnet18.a1_in1", "resnet18.a1_in1k")])
def test_an_unknown_classifier_gets_a_suggestion(name: str, near: str) -> None:
    with pytest.raises(UserError) as caught:
        TimmClassifier(TimmOptions(), name)
    assert name.partition(".")[2] in caught.value.message
    assert near in caught.value.hint


def test_a_missing_name_is_asked_for() -> None:
    with pytest.raises(UserError, match="timm:resnet18"):
        TimmClassifier(TimmOptions())


# --- pretrained weights -----------------------------------------------------------------------------------------------


@pytest.fixture
def caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Empty caches, and no network: a connection that is tried fails the test."""

    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("the network was touched")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "torch"))
    return tmp_path


def test_pretrained_weights_that_are_not_here_are_the_users_error(caches: Path) -> None:
    with pytest.raises(UserError, match=r"timm/resnet18\.a1_in1k") as caught:
        TimmClassifier(TimmOptions(pretrained=True), "resnet18").build(info())
    assert "pretrained=false" in caught.value.hint


def test_pretrained_weights_that_do_not_exist_are_the_users_error(caches: Path) -> None:
    with pytest.raises(UserError, match="no pretrained weights"):
        TimmClassifier(TimmOptions(pretrained=True), "vovnet57a").build(info())


def pretend_download(folder: Path, name: str) -> nn.Module:
    """Weights of a network of timm where torch hub keeps its downloads."""
    import timm

    torch.manual_seed(5)
    network = timm.create_model(name)
    path = folder / "torch" / "checkpoints" / timm.get_pretrained_cfg(name).url.rsplit("/", 1)[1]
    path.parent.mkdir(parents=True)
    torch.save(network.state_dict(), path)
    return network


def test_weights_in_torch_hubs_cache_are_used(caches: Path) -> None:
    source = pretend_download(caches, "resnet18")
    module = TimmClassifier(TimmOptions(pretrained=True), "resnet18").build(info(classes=3))
    assert torch.equal(module.network.layer4[1].conv2.weight, source.layer4[1].conv2.weight)
    assert torch.allclose(module.network.conv1.weight, source.conv1.weight.sum(1, keepdim=True), atol=1e-6)  # type: ignore[arg-type]
    assert module(torch.rand(2, 1, 64, 64)).shape == (2, 3)


def test_weights_in_hugging_faces_cache_are_used(caches: Path) -> None:
    import timm
    from safetensors.torch import save_file

    network = timm.create_model("resnet18")
    repository = caches / "hub" / "models--timm--resnet18.a1_in1k"
    snapshot = repository / "snapshots" / "0123abc"
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0123abc")
    save_file(network.state_dict(), snapshot / "model.safetensors")
    module = TimmClassifier(TimmOptions(pretrained=True), "resnet18").build(info(channels=3))
    assert torch.equal(module.network.conv1.weight, network.conv1.weight)  # type: ignore[arg-type]


def test_other_pretrained_weights_are_another_model(caches: Path) -> None:
    """A hub keeps one name for several revisions."""
    choice = choose("model", "timm:resnet18:pretrained=true", discover())
    data = DataJob(Store(caches / "cache"), Settings(), choose("dataset", "lidc-phantom", discover()))

    def fingerprint() -> str:
        return ModelJob(data.store, data.settings, choice, data).fingerprint

    prints = [fingerprint()]  # they are not here yet
    pretend_download(caches, "resnet18")
    prints.append(fingerprint())
    weights = next((caches / "torch" / "checkpoints").iterdir())
    torch.save({"other": torch.zeros(1)}, weights)
    prints.append(fingerprint())
    assert len(set(prints)) == 3
    assert prints[2] == fingerprint()


@pytest.mark.parametrize("channels", [1, 3])
def test_pretrained_networks_see_what_they_were_trained_with(caches: Path, channels: int) -> None:
    pretend_download(caches, "resnet18")
    module = TimmClassifier(TimmOptions(pretrained=True), "resnet18").build(info(channels=channels))
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    assert torch.allclose(module.mean.flatten(), mean if channels == 3 else mean.mean().view(1))
    assert torch.allclose(module.std.flatten(), std if channels == 3 else std.mean().view(1))


# --- an environment that does not fit together -----------------------------------------------------------------------


def test_torch_and_torchvision_of_different_builds_are_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(name: str) -> None:
        raise RuntimeError("operator torchvision::nms does not exist")

    monkeypatch.setattr(importlib, "import_module", fail)
    with pytest.raises(UserError) as caught:
        TimmClassifier(TimmOptions(), "resnet18")
    assert f"torchvision {importlib.metadata.version('torchvision')}" in caught.value.message
    assert "same package index" in caught.value.hint
