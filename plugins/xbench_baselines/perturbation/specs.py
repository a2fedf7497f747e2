"""The explainers that perturb the image: one record each, importable without torch."""

from __future__ import annotations

from xbench import ExplainerSpec

SPECS = (
    ExplainerSpec(
        "occlusion",
        "drop of the score where a sliding window hides the image",
        factory="xbench_baselines.perturbation.occlusion:Occlusion",
        options="xbench_baselines.perturbation.options:OcclusionOptions",
        reference="Zeiler and Fergus 2014; Huff et al. 3.1.1",
    ),
    ExplainerSpec(
        "feature-ablation",
        "drop of the score where a superpixel is hidden",
        factory="xbench_baselines.perturbation.surrogates:FeatureAblation",
        options="xbench_baselines.perturbation.options:FeatureAblationOptions",
        requires=("skimage",),
        reference="Kokhlikyan et al. 2020 (captum)",
    ),
    ExplainerSpec(
        "lime",
        "linear model of the score over superpixels switched on and off",
        factory="xbench_baselines.perturbation.surrogates:Lime",
        options="xbench_baselines.perturbation.options:LimeOptions",
        requires=("skimage",),
        reference="Ribeiro et al. 2016; Huff et al. 3.1.2",
    ),
    ExplainerSpec(
        "kernelshap",
        "Shapley values of superpixels by weighted regression",
        factory="xbench_baselines.perturbation.surrogates:KernelShap",
        options="xbench_baselines.perturbation.options:KernelShapOptions",
        requires=("skimage",),
        reference="Lundberg and Lee 2017",
    ),
    ExplainerSpec(
        "rise",
        "mean of random masks weighted by the score they leave",
        factory="xbench_baselines.perturbation.rise:Rise",
        options="xbench_baselines.perturbation.options:RiseOptions",
        reference="Petsiuk et al. 2018",
    ),
)
