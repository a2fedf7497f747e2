"""The classifiers that xbench trains and explains. Hook implementations only."""

from __future__ import annotations

from collections.abc import Iterable

from xbench import ModelSpec, hookimpl


@hookimpl
def xbench_models() -> Iterable[ModelSpec]:
    """Yield the ConvNet of Katzmann et al., and every classifier of timm."""
    yield ModelSpec(
        "convnet",
        "four convolution blocks and a dense layer: the classifier of the CycleGAN activation maximisation paper",
        factory="xbench_models.convnet:ConvNet",
        options="xbench_models.options:ConvNetOptions",
        reference="Katzmann et al., Explaining clinical decision support systems in medical imaging using "
        "cycle-consistent activation maximization, section 3.2",
    )
    yield ModelSpec(
        "timm",
        "any classifier of PyTorch Image Models by its own name: resnet50, densenet121, vgg16_bn, convnext_tiny, ...",
        factory="xbench_models.timm_models:TimmClassifier",
        options="xbench_models.options:TimmOptions",
        argument="a timm classifier",
        requires=("timm",),
        reference="Wightman, PyTorch Image Models (https://github.com/huggingface/pytorch-image-models)",
    )
