"""The explainers of layer-wise relevance propagation: one record each, importable without torch."""

from __future__ import annotations

from xbench import ExplainerSpec

_LRP = "Bach et al. 2015; Montavon et al. 2019; presets of iNNvestigate (Alber et al. 2019) and zennit"
_RULES = "layers that have a rule: no attention, no layer normalisation"
_RELU = "ReLU activations"

SPECS = (
    ExplainerSpec(
        "lrp-epsilon",
        "relevance by the epsilon rule in every layer",
        factory="xbench_baselines.relevance.explainers:LrpEpsilon",
        options="xbench_baselines.relevance.options:LrpEpsilonOptions",
        model=_RULES,
        reference=_LRP,
    ),
    ExplainerSpec(
        "lrp-gamma",
        "relevance by the gamma rule in every layer",
        factory="xbench_baselines.relevance.explainers:LrpGamma",
        options="xbench_baselines.relevance.options:LrpGammaOptions",
        model=_RULES,
        reference=_LRP,
    ),
    ExplainerSpec(
        "lrp-alpha-beta",
        "relevance by the alpha-beta rule in every layer",
        factory="xbench_baselines.relevance.explainers:LrpAlphaBeta",
        options="xbench_baselines.relevance.options:LrpAlphaBetaOptions",
        model=_RULES,
        reference=_LRP,
    ),
    ExplainerSpec(
        "lrp-gamma-box",
        "relevance: epsilon in dense layers, gamma in convolutions, box at the image",
        factory="xbench_baselines.relevance.explainers:LrpGammaBox",
        options="xbench_baselines.relevance.options:LrpGammaBoxOptions",
        model=_RULES,
        reference=_LRP,
    ),
    ExplainerSpec(
        "lrp-preset-a",
        "relevance: epsilon in dense layers, alpha 1 beta 0 in convolutions",
        factory="xbench_baselines.relevance.explainers:LrpPresetA",
        options="xbench_baselines.relevance.options:LrpPresetOptions",
        model=_RULES,
        reference=_LRP,
    ),
    ExplainerSpec(
        "lrp-preset-b",
        "relevance: epsilon in dense layers, alpha 2 beta 1 in convolutions",
        factory="xbench_baselines.relevance.explainers:LrpPresetB",
        options="xbench_baselines.relevance.options:LrpPresetOptions",
        model=_RULES,
        reference=_LRP,
    ),
    ExplainerSpec(
        "lrp-preset-a-flat",
        "lrp-preset-a, spread evenly in the first layer",
        factory="xbench_baselines.relevance.explainers:LrpPresetAFlat",
        options="xbench_baselines.relevance.options:LrpPresetOptions",
        model=_RULES,
        reference=_LRP,
    ),
    ExplainerSpec(
        "lrp-preset-b-flat",
        "lrp-preset-b, spread evenly in the first layer",
        factory="xbench_baselines.relevance.explainers:LrpPresetBFlat",
        options="xbench_baselines.relevance.options:LrpPresetOptions",
        model=_RULES,
        reference=_LRP,
    ),
    ExplainerSpec(
        "deep-taylor",
        "z+ rule, box rule at the image: all relevance is positive",
        factory="xbench_baselines.relevance.explainers:DeepTaylor",
        options="xbench_baselines.relevance.options:DeepTaylorOptions",
        model=_RELU,
        reference="Montavon et al. 2017; Katzmann et al., section 3.4",
    ),
    ExplainerSpec(
        "deep-taylor-innvestigate",
        "w^2 rule in every layer: what iNNvestigate does where a batch norm follows each convolution",
        factory="xbench_baselines.relevance.explainers:DeepTaylorInnvestigate",
        model=_RELU,
        reference="Alber et al. 2019 (iNNvestigate); Katzmann et al., section 3.4",
    ),
)
