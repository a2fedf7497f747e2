"""Importance estimation networks (Gu et al., VINet, section III-A), from an image to one channel of its size."""

from __future__ import annotations

import inspect
from typing import Any, cast

import segmentation_models_pytorch as smp
import torch
from torch import nn
from torch.nn import functional as F

from xbench import UserError
from xbench.contracts.options import suggestion
from xbench_vinet.gridnet import GridNet
from xbench_vinet.options import OWN_NETWORKS
from xbench_vinet.segnet import SegNet

_ARCHITECTURES = smp.MODEL_ARCHITECTURES_MAPPING
_SMALLEST_PAN = 128  # its attention pools a map of 1/16 of the side three more times

# Arguments that `width` multiplies: the channels of the decoders. Those of Linknet and PAN follow their encoder or are
# fixed.
_DECODER_CHANNELS = (
    "decoder_channels",
    "decoder_pyramid_channels",
    "decoder_segmentation_channels",
    "decoder_intermediate_channels",
    "decoder_fusion_channels",
    "psp_out_channels",
)
_GROUPS = 32  # groups of the group norms in FPN's decoder


def build_importance_network(
    architecture: str, encoder: str | None, channels: int, width: float, spatial: tuple[int, ...]
) -> nn.Module:
    """Return an untrained network (N, C, H, W) -> (N, 1, H, W), whose output is any real number.

    Args:
        architecture: "segnet", "gridnet", or the lower-case name of a segmentation-models-pytorch architecture.
        encoder: Name of its encoder in segmentation-models-pytorch; None for segnet and gridnet.
        channels: Number of channels, C.
        width: Factor of the channels of segnet, gridnet or the decoder.
        spatial: Size of the images, (H, W).

    Raises:
        UserError: There is no such encoder, or the network can't take such images.
    """
    network = _build(architecture, encoder, channels, width, spatial)
    multiple, smallest = _size_rule(network)
    padded = PaddedToFit(network, multiple, smallest)
    try:
        with torch.no_grad():
            padded.eval()(torch.zeros(1, channels, *spatial))
    except Exception as error:
        raise UserError(
            f"vinet: {architecture} with encoder {encoder} can't take images of {spatial[0]} x {spatial[1]}: {error}",
            "choose another importance network or encoder",
        ) from error
    return padded.train()


def too_small(architecture: str | None, spatial: tuple[int, ...]) -> str | None:
    """Return None, or why this architecture can't take such images."""
    if architecture == "pan" and min(spatial) < _SMALLEST_PAN:
        return (
            f"importance=pan needs images of at least {_SMALLEST_PAN} x {_SMALLEST_PAN} pixels, these are "
            + " x ".join(map(str, spatial))
        )
    return None


class PaddedToFit(nn.Module):
    """A network for any image size. It replicates the borders up to a size that fits, and crops the result.

    Args:
        network: Network (N, C, H, W) -> (N, 1, H, W) for sides that are multiples of `multiple` and at least
            `smallest`.
        multiple: Divisor of the sides, in pixels.
        smallest: Smallest side, in pixels.
    """

    def __init__(self, network: nn.Module, multiple: int = 1, smallest: int = 1) -> None:
        super().__init__()
        self.network = network
        self.multiple = multiple
        self.smallest = smallest

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the output at the size of the images: (N, C, H, W) -> (N, 1, H, W)."""
        (top, bottom), (left, right) = (self._margins(side) for side in images.shape[2:])
        if not (top or bottom or left or right):
            return cast("torch.Tensor", self.network(images))
        height, width = images.shape[2:]
        result = self.network(F.pad(images, (left, right, top, bottom), mode="replicate"))
        return cast("torch.Tensor", result[:, :, top : top + height, left : left + width])

    def _margins(self, side: int) -> tuple[int, int]:
        wanted = max(-(-side // self.multiple) * self.multiple, self.smallest)
        return (wanted - side) // 2, (wanted - side + 1) // 2


def _size_rule(network: nn.Module) -> tuple[int, int]:
    if isinstance(network, SegNet):
        return 1, SegNet.smallest
    if isinstance(network, smp.DPT):
        return 2 * int(network.encoder.output_stride), 1  # its decoder halves the grid of tokens once more
    if isinstance(network, smp.base.SegmentationModel):
        return int(network.encoder.output_stride), 1  # also for Unet, which takes other sizes but returns larger ones
    return 1, 1


def _build(architecture: str, encoder: str | None, channels: int, width: float, spatial: tuple[int, ...]) -> nn.Module:
    reason = too_small(architecture, spatial)
    if reason is not None:
        raise UserError(f"vinet: {reason}", "choose another importance network")
    if architecture in OWN_NETWORKS:
        return (SegNet if architecture == "segnet" else GridNet)(channels, width)
    factory = _ARCHITECTURES[architecture]
    arguments = _scaled_channels(factory, width)
    if architecture == "dpt":
        arguments["dynamic_img_size"] = True
    try:
        # No weights: an encoder pretrained on photographs would be downloaded, and would bring its own idea of
        # importance.
        return cast(
            "nn.Module",
            factory(
                encoder_name=encoder,
                encoder_weights=None,
                in_channels=channels,
                classes=1,
                activation=None,
                **arguments,
            ),
        )
    except Exception as error:
        raise _encoder_error(architecture, str(encoder), error) from error


def _scaled_channels(factory: type[nn.Module], width: float) -> dict[str, Any]:
    if width == 1:
        return {}
    published = {name: parameter.default for name, parameter in inspect.signature(factory.__init__).parameters.items()}
    scaled: dict[str, Any] = {}
    for name in _DECODER_CHANNELS:
        size = published.get(name)
        if isinstance(size, int):
            scaled[name] = _scale(size, width, name)
        elif size is not None:
            scaled[name] = tuple(_scale(channels, width, name) for channels in size)
    return scaled


def _scale(channels: int, width: float, name: str) -> int:
    multiple = _GROUPS if name == "decoder_segmentation_channels" else 1
    return max(multiple, round(channels * width / multiple) * multiple)


def _encoder_error(architecture: str, encoder: str, error: Exception) -> UserError:
    known = list(smp.encoders.encoders)
    if encoder in known or encoder.startswith("tu-"):
        return UserError(
            f"vinet: importance={architecture} can't be built with encoder={encoder!r}: {error}",
            "DPT takes vision transformers (tu-vit_...), the others convolutional encoders",
        )
    return UserError(f"vinet: no encoder {encoder!r}", suggestion(encoder, known) + " or tu-<a timm model>")
