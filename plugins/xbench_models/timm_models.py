"""The classifiers of timm, each under its own name."""

from __future__ import annotations

import difflib
import importlib
import importlib.metadata
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import torch
from torch import nn

from xbench import DatasetInfo, Model, UserError
from xbench_models.options import TimmOptions

_UNTRAINED_MEAN, _UNTRAINED_STD = 0.5, 0.5
_WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")


class TimmClassifier(Model):
    """A timm classifier behind the normalisation of its input.

    Args:
        options: Validated options.
        argument: timm's name, with or without a tag of pretrained weights: "resnet50", "resnet50.a1_in1k".

    Raises:
        UserError: There is no such classifier.
    """

    options: TimmOptions

    def __init__(self, options: TimmOptions, argument: str = "") -> None:
        super().__init__(options, argument)
        self._timm = _import_timm()
        self._config = self._find_config()

    def build(self, info: DatasetInfo) -> nn.Module:
        """Return the network for images of `info`: float32 (N, C, H, W) in [0, 1] -> logits (N, K), or (N, 1).

        Raises:
            UserError: The network does not take images of this size, the head does not fit the classes, or the
                requested pretrained weights are not on this machine.
        """
        if self.options.logits == "one" and len(info.classes) != 2:
            raise UserError(
                f"model {self._reference}: one logit tells two classes apart, {info.name} has {len(info.classes)}",
                "use logits=classes",
            )
        if len(info.spatial) != 2:
            raise UserError(f"model {self._reference} takes 2-D images, those of {info.name} are {_size(info)} voxels")
        weights = self._find_weights() if self.options.pretrained else None
        mean, std = self._normalisation(info.channels)
        return Normalised(self._create(info, weights), mean, std).train()

    @property
    def _reference(self) -> str:
        return f"timm:{self.argument}"

    def _find_config(self) -> Any:
        if not self.argument:
            raise UserError("model timm needs the name of a classifier", "for example timm:resnet18")
        architecture, _, tag = self.argument.partition(".")
        if not self._timm.is_model(architecture):
            raise UserError(f"timm has no classifier {self.argument!r}", _near(architecture, self._timm.list_models()))
        known = self._timm.list_models(f"{architecture}.*", pretrained=True)
        if tag and self.argument not in known:
            raise UserError(f"timm has no weights {tag!r} for {architecture}", _near(self.argument, known))
        return self._timm.get_pretrained_cfg(self.argument)

    def files(self) -> Sequence[Path]:
        """Return the file of the pretrained weights, if they are asked for and on this machine."""
        weights = self._cached_weights() if self.options.pretrained else None
        return () if weights is None else (weights,)

    def _cached_weights(self) -> Path | None:
        """Return the file of the pretrained weights in the caches of Hugging Face or torch hub, without a download."""
        if self._config is None or not self._config.has_weights:
            return None
        return _in_hugging_face_cache(self._config) or _in_torch_hub(self._config)

    def _find_weights(self) -> Path:
        """Return the file of the pretrained weights.

        Raises:
            UserError: There are none, or they are not on this machine.
        """
        if self._config is None or not self._config.has_weights:
            raise UserError(f"model {self._reference}: timm has no pretrained weights for it", "use pretrained=false")
        path = self._cached_weights()
        if path is None:
            raise UserError(
                f"model {self._reference}: its pretrained weights ({_source(self._config)}) are not on this machine",
                f"timm.create_model('{self.argument}', pretrained=True) fetches them once, where there is a network; "
                "or use pretrained=false",
            )
        return path

    def _normalisation(self, channels: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the mean and standard deviation per channel.

        For pretrained weights, they are those of the weights' training. For another number of channels, timm sums or
        repeats the kernels of the first layer, and the average over the colours fits that. From scratch, [0, 1] is
        mapped to [-1, 1] for every dataset, because statistics of the data would make the model depend on the split.
        """
        if not self.options.pretrained:
            return torch.full((channels,), _UNTRAINED_MEAN), torch.full((channels,), _UNTRAINED_STD)
        mean, std = (torch.tensor(values, dtype=torch.float32) for values in (self._config.mean, self._config.std))
        if len(mean) != channels:
            mean, std = mean.mean().expand(channels), std.mean().expand(channels)
        return mean.clone(), std.clone()

    def _create(self, info: DatasetInfo, weights: Path | None) -> nn.Module:
        """Return the first network that takes the images: as it is, or created with the image size."""
        sizes: list[dict[str, Any]] = [{}, {"img_size": info.spatial}]
        if self._config is not None and self._config.fixed_input_size:
            sizes.reverse()
        reasons = []
        for size in sizes:
            try:
                network: nn.Module = self._timm.create_model(
                    self.argument,
                    pretrained=weights is not None,
                    pretrained_cfg_overlay=None if weights is None else {"file": str(weights)},
                    in_chans=info.channels,
                    num_classes=1 if self.options.logits == "one" else len(info.classes),
                    **size,
                )
                _try_forward(network, info)
            except Exception as error:
                reasons.append(f"{type(error).__name__}: {error}")
            else:
                return network
        reason = next((text for text in reasons if "argument 'img_size'" not in text), reasons[0]).splitlines()[0]
        raise UserError(
            f"model {self._reference} does not take images of {_size(info)} pixels, {info.channels} channels: {reason}",
            "use images of another size, or another model",
        )


class Normalised(nn.Module):
    """A network behind (x - mean) / std.

    Args:
        network: Network of normalised images.
        mean: Mean per channel, (C,).
        std: Standard deviation per channel, (C,).
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, network: nn.Module, mean: torch.Tensor, std: torch.Tensor) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("mean", mean.view(1, -1, 1, 1))
        self.register_buffer("std", std.view(1, -1, 1, 1))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the logits of images in [0, 1]: (N, C, H, W) -> (N, K)."""
        logits: torch.Tensor = self.network((images - self.mean) / self.std)
        return logits


def _import_timm() -> Any:
    """Import timm, with a clear error if torch and torchvision do not fit together."""
    try:
        return importlib.import_module("timm")
    except (RuntimeError, ImportError) as error:
        if "torchvision::" not in str(error):
            raise
        versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("torch", "torchvision"))
        raise UserError(
            f"torch and torchvision do not fit together ({versions}): {error}",
            "install both from the same package index, in one command: pip install --force-reinstall torch torchvision",
        ) from error


def _near(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.6)
    return "did you mean " + " or ".join(near) + "?" if near else "timm.list_models() lists them"


def _in_hugging_face_cache(config: Any) -> Path | None:
    if not config.hf_hub_id:
        return None
    from huggingface_hub import try_to_load_from_cache

    repository, _, revision = config.hf_hub_id.partition("@")
    for name in (config.hf_hub_filename,) if config.hf_hub_filename else _WEIGHT_FILES:
        cached = try_to_load_from_cache(repository, name, revision=revision or None)
        if isinstance(cached, str):
            return Path(cached)
    return None


def _in_torch_hub(config: Any) -> Path | None:
    if not config.url or config.custom_load:
        return None
    name = config.url[1] if isinstance(config.url, tuple | list) else Path(urlparse(config.url).path).name
    path = Path(torch.hub.get_dir()) / "checkpoints" / name
    return path if path.is_file() else None


def _source(config: Any) -> str:
    return str(config.hf_hub_id or config.url)


@torch.no_grad()
def _try_forward(network: nn.Module, info: DatasetInfo) -> None:
    logits = network.eval()(torch.zeros(1, info.channels, *info.spatial))
    if not isinstance(logits, torch.Tensor) or logits.ndim != 2:
        raise TypeError("it does not give one row of logits per image")


def _size(info: DatasetInfo) -> str:
    return " x ".join(map(str, info.spatial))
