"""The explainers by DeepLIFT's rules: one record each, importable without torch."""

from __future__ import annotations

from xbench import ExplainerSpec

_NO_ATTENTION = "no attention, no layer normalisation"

SPECS = (
    ExplainerSpec(
        "deeplift",
        "contributions to the difference from a baseline, rescale rule",
        factory="xbench_baselines.deeplift.explainers:DeepLift",
        options="xbench_baselines.deeplift.options:DeepLiftOptions",
        model=_NO_ATTENTION,
        reference="Shrikumar et al. 2017",
    ),
    ExplainerSpec(
        "deepshap",
        "DeepLIFT averaged over training images as baselines",
        factory="xbench_baselines.deeplift.explainers:DeepShap",
        options="xbench_baselines.deeplift.options:DeepShapOptions",
        model=_NO_ATTENTION,
        reference="Lundberg and Lee 2017; Katzmann et al., section 3.4",
    ),
)
