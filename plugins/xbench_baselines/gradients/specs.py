"""The records of the explainers that read gradients, importable without torch."""

from __future__ import annotations

from xbench import ExplainerSpec

_RELU = "ReLU activations"

SPECS = (
    ExplainerSpec(
        "gradient",
        "derivative of the class score by each pixel, with its sign, summed over channels",
        factory="xbench_baselines.gradients.gradient:Gradient",
        options="xbench_baselines.gradients.options:GradientOptions",
        joins="run",
        reference="Simonyan et al. 2014; signed as in Brocki et al., section 2",
    ),
    ExplainerSpec(
        "input-x-gradient",
        "the image times its gradient",
        factory="xbench_baselines.gradients.gradient:InputTimesGradient",
        options="xbench_baselines.gradients.options:GradientOptions",
        reference="Shrikumar et al. 2016",
    ),
    ExplainerSpec(
        "deconvolution",
        "the gradient, of which only the positive part passes each ReLU",
        factory="xbench_baselines.gradients.backpropagation:Deconvolution",
        options="xbench_baselines.gradients.options:BackpropagationOptions",
        model=_RELU,
        reference="Zeiler and Fergus 2014; Brocki et al., section 2",
    ),
    ExplainerSpec(
        "guided-backpropagation",
        "the gradient, of which only the positive part passes each active ReLU",
        factory="xbench_baselines.gradients.backpropagation:GuidedBackpropagation",
        options="xbench_baselines.gradients.options:BackpropagationOptions",
        model=_RELU,
        reference="Springenberg et al. 2015; Huff et al. 3.2.2",
    ),
    ExplainerSpec(
        "integrated-gradients",
        "the gradient averaged on the path from a black image, times the difference of the images",
        factory="xbench_baselines.gradients.paths:IntegratedGradients",
        options="xbench_baselines.gradients.options:IntegratedGradientsOptions",
        reference="Sundararajan et al. 2017; Brocki et al., section 2 (25 steps)",
    ),
    ExplainerSpec(
        "integrated-gradients-bw",
        "integrated gradients from black and from white, averaged",
        factory="xbench_baselines.gradients.paths:IntegratedGradientsBW",
        options="xbench_baselines.gradients.options:IntegratedGradientsBWOptions",
        reference="Kapishnikov et al. 2019; Brocki et al., section 2",
    ),
    ExplainerSpec(
        "expected-gradients",
        "integrated gradients averaged over training images as baselines",
        factory="xbench_baselines.gradients.paths:ExpectedGradients",
        options="xbench_baselines.gradients.options:ExpectedGradientsOptions",
        reference="Erion et al. 2021; Brocki et al., section 2",
    ),
    ExplainerSpec(
        "gradient-shap",
        "expected gradients of images with noise added",
        factory="xbench_baselines.gradients.paths:GradientShap",
        options="xbench_baselines.gradients.options:GradientShapOptions",
        reference="Lundberg and Lee 2017; Kokhlikyan et al. 2020 (captum)",
    ),
    ExplainerSpec(
        "smoothgrad",
        "mean gradient under noise",
        factory="xbench_baselines.gradients.smoothing:SmoothGrad",
        options="xbench_baselines.gradients.options:SmoothGradOptions",
        reference="Smilkov et al. 2017; Brocki et al., section 2",
    ),
    ExplainerSpec(
        "smoothgrad-squared",
        "mean squared gradient under noise",
        factory="xbench_baselines.gradients.smoothing:SmoothGradSquared",
        options="xbench_baselines.gradients.options:NoiseOptions",
        reference="Hooker et al. 2019; Brocki et al., section 2",
    ),
    ExplainerSpec(
        "vargrad",
        "variance of the gradient under noise",
        factory="xbench_baselines.gradients.smoothing:VarGrad",
        options="xbench_baselines.gradients.options:NoiseOptions",
        reference="Adebayo et al. 2018",
    ),
    ExplainerSpec(
        "iterative-saliency",
        "sum of saliency maps while the most salient regions are inpainted, until nothing abnormal is left",
        factory="xbench_baselines.gradients.iterative:IterativeSaliency",
        options="xbench_baselines.gradients.options:IterativeSaliencyOptions",
        requires=("skimage",),
        reference="Gonzalez-Gonzalo et al. 2020; Huff et al. 3.2.1",
    ),
)
