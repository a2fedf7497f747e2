"""The attribution methods of the literature, and the controls that a good explainer must beat."""

from __future__ import annotations

from collections.abc import Iterable

from xbench import ExplainerSpec, hookimpl

_RELU = "ReLU activations"
_GAP = "global average pooling and a linear head"
_MAPS = "feature maps near the output (a convolutional network)"


@hookimpl
def xbench_explainers() -> Iterable[ExplainerSpec]:
    """The explainers of this plugin."""
    yield from _gradient()
    yield from _decomposition()
    yield from _class_activation()
    yield from _perturbation()
    yield from _controls()


def _gradient() -> Iterable[ExplainerSpec]:
    yield ExplainerSpec(
        "gradient",
        "derivative of the class score by each pixel, with its sign, summed over channels",
        factory="xbench_baselines.gradients.gradient:Gradient",
        options="xbench_baselines.gradients.options:GradientOptions",
        joins="run",
        reference="Simonyan et al. 2014; signed as in Brocki et al., section 2",
    )
    yield _explainer(
        "input-x-gradient",
        "the image times its gradient",
        "gradients.gradient:InputTimesGradient",
        "Shrikumar et al. 2016",
        options="gradients.options:GradientOptions",
    )
    yield _explainer(
        "deconvolution",
        "the gradient, only its positive part passing each ReLU",
        "gradients.backpropagation:Deconvolution",
        "Zeiler and Fergus 2014; Brocki et al., section 2",
        options="gradients.options:BackpropagationOptions",
        model=_RELU,
    )
    yield _explainer(
        "guided-backpropagation",
        "the gradient, only its positive part passing each active ReLU",
        "gradients.backpropagation:GuidedBackpropagation",
        "Springenberg et al. 2015; Huff et al. 3.2.2",
        options="gradients.options:BackpropagationOptions",
        model=_RELU,
    )
    yield _explainer(
        "integrated-gradients",
        "the gradient averaged on the way from a black image, times the way",
        "gradients.paths:IntegratedGradients",
        "Sundararajan et al. 2017; Brocki et al., section 2 (25 steps)",
        options="gradients.options:IntegratedGradientsOptions",
    )
    yield _explainer(
        "integrated-gradients-bw",
        "integrated gradients from black and from white, averaged",
        "gradients.paths:IntegratedGradientsBW",
        "Kapishnikov et al. 2019; Brocki et al., section 2",
        options="gradients.options:IntegratedGradientsBWOptions",
    )
    yield _explainer(
        "expected-gradients",
        "integrated gradients averaged over training images as baselines",
        "gradients.paths:ExpectedGradients",
        "Erion et al. 2021; Brocki et al., section 2",
        options="gradients.options:ExpectedGradientsOptions",
    )
    yield _explainer(
        "gradient-shap",
        "expected gradients of images with noise added",
        "gradients.paths:GradientShap",
        "Lundberg and Lee 2017; Kokhlikyan et al. 2020 (captum)",
        options="gradients.options:GradientShapOptions",
    )
    for name, summary, factory, options, reference in (
        (
            "smoothgrad",
            "mean gradient under noise",
            "SmoothGrad",
            "SmoothGradOptions",
            "Smilkov et al. 2017; Brocki et al., section 2",
        ),
        (
            "smoothgrad-squared",
            "mean squared gradient under noise",
            "SmoothGradSquared",
            "NoiseOptions",
            "Hooker et al. 2019; Brocki et al., section 2",
        ),
        ("vargrad", "variance of the gradient under noise", "VarGrad", "NoiseOptions", "Adebayo et al. 2018"),
    ):
        yield _explainer(
            name, summary, f"gradients.smoothing:{factory}", reference, options=f"gradients.options:{options}"
        )
    yield _explainer(
        "iterative-saliency",
        "saliency of the image as what is most salient is inpainted, until nothing abnormal is left",
        "gradients.iterative:IterativeSaliency",
        "Gonzalez-Gonzalo et al. 2020; Huff et al. 3.2.1",
        options="gradients.options:IterativeSaliencyOptions",
        requires=("skimage",),
    )


def _decomposition() -> Iterable[ExplainerSpec]:
    for name, summary, factory in (
        ("lrp-epsilon", "relevance by the epsilon rule in every layer", "LrpEpsilon"),
        ("lrp-gamma", "relevance by the gamma rule in every layer", "LrpGamma"),
        ("lrp-alpha-beta", "relevance by the alpha-beta rule in every layer", "LrpAlphaBeta"),
        ("lrp-gamma-box", "relevance: epsilon in dense layers, gamma in convolutions, box at the image", "LrpGammaBox"),
        ("lrp-preset-a", "relevance: epsilon in dense layers, alpha 1 beta 0 in convolutions", "LrpPresetA"),
        ("lrp-preset-b", "relevance: epsilon in dense layers, alpha 2 beta 1 in convolutions", "LrpPresetB"),
        ("lrp-preset-a-flat", "lrp-preset-a, spread evenly in the first layer", "LrpPresetAFlat"),
        ("lrp-preset-b-flat", "lrp-preset-b, spread evenly in the first layer", "LrpPresetBFlat"),
    ):
        yield _explainer(
            name,
            summary,
            f"relevance.explainers:{factory}",
            "Bach et al. 2015; Montavon et al. 2019; presets of iNNvestigate (Alber et al. 2019) and zennit",
            options=f"relevance.options:{'LrpPreset' if 'Preset' in factory else factory}Options",
            model="layers that have a rule: no attention, no layer normalisation",
        )
    yield _explainer(
        "deep-taylor",
        "z+ rule, box rule at the image: all relevance is positive",
        "relevance.explainers:DeepTaylor",
        "Montavon et al. 2017; Katzmann et al., section 3.4",
        options="relevance.options:DeepTaylorOptions",
        model=_RELU,
    )
    yield _explainer(
        "deep-taylor-innvestigate",
        "w^2 rule in every layer: what iNNvestigate does where a batch norm follows each convolution",
        "relevance.explainers:DeepTaylorInnvestigate",
        "Alber et al. 2019 (iNNvestigate); Katzmann et al., section 3.4",
        model=_RELU,
    )
    for name, summary, factory, reference in (
        (
            "deeplift",
            "contributions to the difference from a baseline, rescale rule",
            "DeepLift",
            "Shrikumar et al. 2017",
        ),
        (
            "deepshap",
            "DeepLIFT averaged over training images as baselines",
            "DeepShap",
            "Lundberg and Lee 2017; Katzmann et al., section 3.4",
        ),
    ):
        yield _explainer(
            name,
            summary,
            f"deeplift.explainers:{factory}",
            reference,
            options=f"deeplift.options:{factory}Options",
            model="no attention, no layer normalisation",
        )


def _class_activation() -> Iterable[ExplainerSpec]:
    for name, summary, factory, reference, model in (
        ("cam", "last feature maps weighted by the head", "Cam", "Zhou et al. 2016; Huff et al. 3.2.3", _GAP),
        ("gradcam", "feature maps weighted by their mean gradient", "GradCam", "Selvaraju et al. 2017", _MAPS),
        (
            "gradcam-plus-plus",
            "Grad-CAM with weights for several objects",
            "GradCamPlusPlus",
            "Chattopadhay et al. 2018",
            _MAPS,
        ),
        (
            "guided-gradcam",
            "Grad-CAM times guided backpropagation",
            "GuidedGradCam",
            "Selvaraju et al. 2017",
            f"{_RELU}, {_MAPS}",
        ),
        ("respond-cam", "Grad-CAM whose sum is the score", "RespondCam", "Zhao et al. 2018; Huff et al. 3.2.3", _MAPS),
        ("layercam", "feature maps weighted by their positive gradient", "LayerCam", "Jiang et al. 2021", _MAPS),
    ):
        options = f"cams.options:{factory if factory in ('Cam', 'GradCam') else 'Layer'}Options"
        yield _explainer(name, summary, f"cams.explainers:{factory}", reference, options=options, model=model)
    yield _explainer(
        "visualbackprop",
        "mean activations of each stage, multiplied from the last to the first",
        "cams.visual_backprop:VisualBackProp",
        "Bojarski et al. 2018",
        model=_MAPS,
    )


def _perturbation() -> Iterable[ExplainerSpec]:
    for name, summary, factory, reference in (
        (
            "occlusion",
            "drop of the score where a sliding window hides the image",
            "perturbation.occlusion:Occlusion",
            "Zeiler and Fergus 2014; Huff et al. 3.1.1",
        ),
        (
            "feature-ablation",
            "drop of the score where a superpixel is hidden",
            "perturbation.surrogates:FeatureAblation",
            "Kokhlikyan et al. 2020 (captum)",
        ),
        (
            "lime",
            "linear model of the score over superpixels switched on and off",
            "perturbation.surrogates:Lime",
            "Ribeiro et al. 2016; Huff et al. 3.1.2",
        ),
        (
            "kernelshap",
            "Shapley values of superpixels by weighted regression",
            "perturbation.surrogates:KernelShap",
            "Lundberg and Lee 2017",
        ),
        (
            "rise",
            "mean of random masks weighted by the score they leave",
            "perturbation.rise:Rise",
            "Petsiuk et al. 2018",
        ),
    ):
        module, _, kind = factory.partition(":")
        yield _explainer(
            name,
            summary,
            factory,
            reference,
            options=f"perturbation.options:{kind}Options",
            requires=("skimage",) if module == "perturbation.surrogates" else (),  # for superpixels
        )


def _controls() -> Iterable[ExplainerSpec]:
    yield _control("random", "independent uniform noise", "Random")
    yield _control("constant", "the same value everywhere: every pixel ties", "Constant")
    yield _control("centre", "a Gaussian around the image's centre", "Centre", options="CentreOptions")
    yield _control("edges", "Sobel gradient magnitude of the image", "Edges")
    yield _control("mask", "the expert's own outline, 1 inside and 0 outside", "Mask")
    yield ExplainerSpec(
        "inverted",
        "another explainer's map with the order reversed",
        factory="xbench_baselines.controls.explainers:Inverted",
        argument="explainer",
        control=True,
        joins="explainer",
    )
    yield ExplainerSpec(
        "blurred",
        "another explainer's map after a Gaussian blur that knows nothing of image or model",
        factory="xbench_baselines.controls.explainers:Blurred",
        options="xbench_baselines.controls.options:BlurredOptions",
        argument="explainer",
        control=True,
        joins="explainer",
    )


def _explainer(
    name: str,
    summary: str,
    factory: str,
    reference: str,
    options: str = "",
    model: str = "",
    requires: tuple[str, ...] = (),
) -> ExplainerSpec:
    return ExplainerSpec(
        name,
        summary,
        factory=f"xbench_baselines.{factory}",
        options=f"xbench_baselines.{options}" if options else "",
        requires=requires,
        reference=reference,
        model=model,
    )


def _control(name: str, summary: str, factory: str, options: str = "") -> ExplainerSpec:
    return ExplainerSpec(
        name,
        summary,
        factory=f"xbench_baselines.controls.explainers:{factory}",
        options=f"xbench_baselines.controls.options:{options}" if options else "",
        control=True,
        joins="run",
    )
