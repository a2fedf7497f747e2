"""The same maps by captum and zennit, used in the best way that their interfaces offer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from captum import attr
from captum._utils.models.linear_model import SkLearnRidge
from captum.attr._core.lime import get_exp_kernel_similarity_function
from torch import nn
from zennit import composites
from zennit.attribution import Gradient as ZennitGradient
from zennit.canonizers import SequentialMergeBatchNorm
from zennit.core import Composite
from zennit.rules import AlphaBeta, Epsilon, Gamma
from zennit.types import Convolution, Linear


@dataclass(frozen=True)
class Work:
    """Images to explain, and everything that the explainers need for them.

    Attributes:
        model: Model, (N, C, H, W) -> (N, K).
        images: Images, (N, C, H, W).
        targets: Classes, int64 (N,).
        options: Options of the explainer.
        background: Background images, (B, C, H, W).
        labels: Superpixels, int64 (N, H, W).
        layer: Last convolutional stage.
        rows: Number of rows of one pass.
    """

    model: nn.Module
    images: torch.Tensor
    targets: torch.Tensor
    options: Any
    background: torch.Tensor
    labels: torch.Tensor
    layer: nn.Module
    rows: int


Reference = Callable[[Work], torch.Tensor]


def _smooth(kind: str) -> Reference:
    def run(work: Work) -> torch.Tensor:
        tunnel = attr.NoiseTunnel(attr.Saliency(work.model))
        options = {"nt_samples": work.options.samples, "nt_samples_batch_size": max(1, work.rows // len(work.images))}
        return tunnel.attribute(work.images, nt_type=kind, stdevs=0.15, target=work.targets, abs=False, **options)

    return run


def _shap(stdevs: float) -> Reference:
    def run(work: Work) -> torch.Tensor:
        # captum passes all samples at once. Those of one image fit, so the images are explained one by one.
        explain = attr.GradientShap(work.model).attribute
        options = {"n_samples": work.options.samples, "stdevs": stdevs}
        return torch.cat(
            [
                explain(work.images[n : n + 1], baselines=work.background, target=int(target), **options)
                for n, target in enumerate(work.targets)
            ]
        )

    return run


def _path(baseline: float) -> Reference:
    def run(work: Work) -> torch.Tensor:
        return attr.IntegratedGradients(work.model).attribute(
            work.images,
            baselines=baseline,
            target=work.targets,
            n_steps=work.options.steps,
            method="riemann_right",
            internal_batch_size=work.rows,
        )

    return run


def _both_paths(work: Work) -> torch.Tensor:
    return (_path(0.0)(work) + _path(1.0)(work)) / 2


def _deepshap(work: Work) -> torch.Tensor:
    # captum repeats every image for every background image in one pass, so the images are explained one by one.
    explain = attr.DeepLiftShap(work.model).attribute
    return torch.cat(
        [
            explain(work.images[n : n + 1], baselines=work.background, target=int(target))
            for n, target in enumerate(work.targets)
        ]
    )


def _deeplift(work: Work) -> torch.Tensor:
    return attr.DeepLift(work.model).attribute(work.images, baselines=0.0, target=work.targets)


def _gradcam(work: Work) -> torch.Tensor:
    maps = attr.LayerGradCam(work.model, work.layer).attribute(work.images, work.targets, relu_attributions=True)
    return attr.LayerAttribution.interpolate(maps, work.images.shape[2:], "bilinear")


def _guided_gradcam(work: Work) -> torch.Tensor:
    explain = attr.GuidedGradCam(work.model, work.layer).attribute
    return explain(work.images, work.targets, interpolate_mode="bilinear")


def _occlusion(work: Work) -> torch.Tensor:
    window = work.options.window or round(min(work.images.shape[2:]) ** 0.5)
    stride = work.options.stride or max(1, window // 2)
    channels = work.images.shape[1]
    return attr.Occlusion(work.model).attribute(
        work.images,
        (channels, window, window),
        strides=(channels, stride, stride),
        baselines=0.0,
        target=work.targets,
        perturbations_per_eval=max(1, work.rows // len(work.images)),
    )


def _off(work: Work, n: int) -> torch.Tensor:
    """Return image n with every superpixel at its own mean."""
    image, labels = work.images[n], work.labels[n]
    count = int(labels.max()) + 1
    sums = image.new_zeros(len(image), count).index_add_(1, labels.flatten(), image.flatten(1))
    sizes = torch.bincount(labels.flatten(), minlength=count)
    return (sums / sizes)[:, labels.flatten()].view_as(image)[None]


def _image_by_image(method: Callable[..., Any], **options: Any) -> Reference:
    """Explain one image at a time, as captum's superpixel methods need because each image has its own superpixels."""

    def run(work: Work) -> torch.Tensor:
        explain = method(work.model)
        samples = {"n_samples": work.options.samples} if hasattr(work.options, "samples") else {}
        return torch.cat(
            [
                explain.attribute(
                    work.images[n : n + 1],
                    baselines=_off(work, n),
                    target=int(target),
                    feature_mask=work.labels[n][None, None],
                    perturbations_per_eval=work.rows,
                    **samples,
                    **options,
                )
                for n, target in enumerate(work.targets)
            ]
        )

    return run


def _lime(model: nn.Module) -> attr.Lime:
    similarity = get_exp_kernel_similarity_function("cosine", kernel_width=0.25)
    return attr.Lime(model, interpretable_model=SkLearnRidge(alpha=1.0), similarity_func=similarity)


def _zennit(composite: Callable[[], Composite]) -> Reference:
    def run(work: Work) -> torch.Tensor:
        start = torch.nn.functional.one_hot(work.targets, 2)
        with ZennitGradient(work.model, composite()) as explain:
            _, relevance = explain(work.images.clone().requires_grad_(), lambda out: out * start)
        return relevance

    return run


def _layers(dense: Callable[[], Any], convolution: Callable[[], Any]) -> Callable[[], Composite]:
    rules = [(Convolution, convolution()), (Linear, dense())]
    merged = [SequentialMergeBatchNorm()]
    return lambda: composites.LayerMapComposite(layer_map=rules, canonizers=merged)


def _simple(method: Callable[..., Any], **options: Any) -> Reference:
    return lambda work: method(work.model).attribute(work.images, target=work.targets, **options)


REFERENCES: dict[str, tuple[str, Reference]] = {
    "gradient": ("captum", _simple(attr.Saliency, abs=False)),
    "input-x-gradient": ("captum", _simple(attr.InputXGradient)),
    "deconvolution": ("captum", _simple(attr.Deconvolution)),
    "guided-backpropagation": ("captum", _simple(attr.GuidedBackprop)),
    "integrated-gradients": ("captum", _path(0.0)),
    "integrated-gradients-bw": ("captum", _both_paths),
    "expected-gradients": ("captum", _shap(0.0)),
    "gradient-shap": ("captum", _shap(0.15)),
    "smoothgrad": ("captum", _smooth("smoothgrad")),
    "smoothgrad-squared": ("captum", _smooth("smoothgrad_sq")),
    "vargrad": ("captum", _smooth("vargrad")),
    "lrp-epsilon": ("zennit", _zennit(_layers(lambda: Epsilon(1e-7), lambda: Epsilon(1e-7)))),
    "lrp-gamma": ("zennit", _zennit(_layers(lambda: Gamma(0.25), lambda: Gamma(0.25)))),
    "lrp-alpha-beta": ("zennit", _zennit(_layers(lambda: AlphaBeta(2, 1), lambda: AlphaBeta(2, 1)))),
    "lrp-preset-a": ("zennit", _zennit(_layers(lambda: Epsilon(0.1), lambda: AlphaBeta(1, 0)))),
    "lrp-preset-b": ("zennit", _zennit(_layers(lambda: Epsilon(0.1), lambda: AlphaBeta(2, 1)))),
    "deeplift": ("captum", _deeplift),
    "deepshap": ("captum", _deepshap),
    "gradcam": ("captum", _gradcam),
    "guided-gradcam": ("captum", _guided_gradcam),
    "occlusion": ("captum", _occlusion),
    "feature-ablation": ("captum", _image_by_image(attr.FeatureAblation)),
    "lime": ("captum", _image_by_image(_lime)),
    "kernelshap": ("captum", _image_by_image(attr.KernelShap)),
}
