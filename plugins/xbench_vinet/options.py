"""VINet's options, and the presets for those that the user leaves open."""

from __future__ import annotations

from typing import Any, Literal

from xbench import Field, PresetOptions, Schedule, UserError

OWN_NETWORKS = ("segnet", "gridnet")  # networks without an encoder from segmentation-models-pytorch

Importance = Literal[
    "unet", "unetplusplus", "manet", "linknet", "fpn", "pspnet", "deeplabv3", "deeplabv3plus", "pan", "upernet",
    "segformer", "dpt", "segnet", "gridnet",
]  # fmt: skip


PRESETS: dict[str, dict[str, Any]] = {
    # Chosen on the validation split of lidc-phantom, 609 training images of 64 x 64. Two things keep the map on the
    # nodule. One is the shift: the classifier first learns from whole images, and then gives up the background. Without
    # it, the map has to carry the answer from the start, and may lie anywhere. The other is an importance network whose
    # last step is a smooth enlargement. A network that decodes to single pixels (unet) makes a spike somewhere for some
    # seeds. Because the map is normalised by its maximum, the spike's height can tell the classifier the answer.
    "tiny": {
        "classifier": "test_resnet",
        "importance": "deeplabv3plus",
        "encoder": "tu-test_resnet",
        "width": 0.25,
        "shift": 5.0,
        "epochs": 30,
        "patience": 10,
        "train_batch": 32,
        "learning_rate": 3e-3,
        "decay": "cosine",
        "augment": "dihedral",
    },
    # Section IV-B and Tables III and IV. They do not say when training stops.
    "paper": {
        "classifier": "seresnet50",
        "importance": "deeplabv3plus",
        "encoder": "resnet50",
        "width": 1.0,
        "shift": 0.0,
        "epochs": 200,
        "patience": 10,
        "train_batch": 8,
        "learning_rate": 1e-4,
        "decay": "none",
        "augment": "none",
    },
}


class VINetOptions(PresetOptions, Schedule):
    """Options of `vinet`. None means the preset's value, which `resolve` fills in."""

    presets = PRESETS

    classifier: str | None = Field(None, description="any timm classifier, untrained")
    importance: Importance | None = Field(None, description="importance estimation network")
    encoder: str | None = Field(
        None,
        description="its encoder, named as in segmentation-models-pytorch; not for segnet and gridnet",
    )
    width: float | None = Field(None, gt=0, description="factor of the channels of segnet, gridnet and decoders")
    activation: Literal["softplus", "sigmoid"] = Field(
        "softplus", description="softplus: normalised to a maximum of 1 (eq. 1); sigmoid: the paper's counter-example"
    )
    shift: float | None = Field(
        None,
        description="number added before the activation; above 0, training starts with little destroyed, as in the "
        "authors' code, which has 20",
    )
    alpha: float = Field(0.25, ge=0, description="weight of the importance loss (eq. 6)")
    multi_scale: bool = Field(True, description="destroy features inside the classifier, too, not only the image")
    placement: Literal["stage_end", "after_downsampling"] = Field(
        "stage_end",
        description="destroy before the next down-sampling (authors' code), or after each (paper)",
    )
    max_reduction: int | Literal["none"] = Field(
        4, description="deepest destroyed features, in image pixels per feature pixel (authors' code: 4); none: all"
    )
    mask_resize: Literal["bilinear", "area", "max"] = Field(
        "bilinear",
        description="resizing of the map to a stage; bilinear loses small structures above a reduction of 4",
    )
    noise_draws: int = Field(
        1, ge=1, description="number of noise patterns over which the trained classifier's logits are averaged"
    )
    subject: Literal["shared", "self"] = Field(
        "shared", description="score the maps against the run's model, or against the classifier trained with them"
    )
    frozen_classifier: bool = Field(
        False, description="explain the run's model: train only the importance network, destroy only the image"
    )
    epochs: int | None = Field(  # type: ignore[assignment]
        None, ge=0, description="maximum number of passes over the training split"
    )
    patience: int | None = Field(  # type: ignore[assignment]
        None, ge=1, description="stop after this many epochs without a better validation loss"
    )
    train_batch: int | None = Field(  # type: ignore[assignment]
        None, ge=2, description="training batch size"
    )
    learning_rate: float | None = Field(  # type: ignore[assignment]
        None, gt=0, description="learning rate of Adam"
    )
    decay: Literal["none", "cosine"] | None = Field(  # type: ignore[assignment]
        None, description="decay of the learning rate over `epochs`"
    )
    augment: Literal["none", "dihedral"] | None = Field(  # type: ignore[assignment]
        None, description="dihedral: random flips and quarter turns"
    )


# DPT only takes vision transformers.
_DPT_ENCODERS = {"tiny": "tu-vit_tiny_patch16_224", "paper": "tu-vit_base_patch16_224"}


def resolve(options: VINetOptions, device: str, spatial: tuple[int, ...]) -> VINetOptions:
    """Return the complete options: the user's where given, else the preset's.

    Args:
        options: Options as the user gave them.
        device: Device, which decides what preset=auto means.
        spatial: Size of the images, (H, W). A preset leaves out quarter turns if the sides differ.

    Raises:
        UserError: An encoder was given for a network without one, or no stage can be as shallow as `max_reduction`.
    """
    if options.max_reduction != "none" and options.max_reduction < 1:
        raise UserError(
            f"vinet: option max_reduction={options.max_reduction} is wrong", "a whole number from 1, or none"
        )
    instead = {} if spatial[-1] == spatial[-2] else {"augment": "none"}
    filled = options.filled_on(device, **instead)
    if filled.importance in OWN_NETWORKS:
        if options.encoder is not None:
            raise UserError(
                f"vinet: {filled.importance} takes no encoder (encoder={options.encoder!r})", "leave out encoder"
            )
        return filled.model_copy(update={"encoder": None})
    if filled.importance == "dpt" and options.encoder is None:
        return filled.model_copy(update={"encoder": _DPT_ENCODERS[filled.preset]})
    return filled
