"""The records of the metrics that check explainers, importable without torch."""

from __future__ import annotations

from xbench import MetricSpec

SPECS = (
    MetricSpec(
        "importance_loss",
        "mean of an importance map in [0, 1]: the share of the image that it keeps",
        factory="xbench_metrics.checks.sparsity:ImportanceLoss",
        reference="VINet, eq. 8",
    ),
    MetricSpec(
        "sparseness",
        "Gini index of the map's absolute values",
        factory="xbench_metrics.checks.sparsity:Sparseness",
        reference="Chalasani et al., Concise explanations of neural networks using adversarial training, ICML 2020",
    ),
    MetricSpec(
        "parameter_randomisation",
        "similarity of a map to that of the same network with its layers re-initialised",
        factory="xbench_metrics.checks.sanity:ParameterRandomisation",
        options="xbench_metrics.checks.options:ParameterRandomisationOptions",
        reference="Adebayo et al., Sanity checks for saliency maps, NeurIPS 2018, section 3",
    ),
    MetricSpec(
        "label_randomisation",
        "similarity of a map to that of a network trained on permuted labels",
        factory="xbench_metrics.checks.sanity:LabelRandomisation",
        options="xbench_metrics.checks.options:LabelRandomisationOptions",
        reference="Adebayo et al., Sanity checks for saliency maps, NeurIPS 2018, section 4",
    ),
    MetricSpec(
        "class_sensitivity",
        "how different the maps of two classes are",
        factory="xbench_metrics.checks.class_sensitivity:ClassSensitivity",
        options="xbench_metrics.checks.options:ClassSensitivityOptions",
        reference="Huff et al., section 6; Adebayo et al., Sanity checks for saliency maps, NeurIPS 2018",
    ),
    MetricSpec(
        "stability",
        "largest change of a map under small noise that keeps the prediction",
        factory="xbench_metrics.checks.stability:InputStability",
        options="xbench_metrics.checks.options:StabilityOptions",
        reference=(
            "Yeh et al., On the (in)fidelity and sensitivity of explanations, NeurIPS 2019; Alvarez-Melis "
            "and Jaakkola, On the robustness of interpretability methods, 2018"
        ),
    ),
    MetricSpec(
        "adversarial_stability",
        "share of a map's top pixels displaced by an image manipulated to move the gradient and keep the prediction",
        factory="xbench_metrics.checks.stability:AdversarialStability",
        options="xbench_metrics.checks.options:AdversarialStabilityOptions",
        reference="Ghorbani et al., Interpretation of neural networks is fragile, AAAI 2019",
    ),
)
