"""Records of the metrics that are one module each, importable without torch."""

from __future__ import annotations

from xbench import MetricSpec

SPECS = (
    MetricSpec(
        "classifier_shift",
        "how far counterfactual images move the classifier's probability to where they should",
        factory="xbench_metrics.shift:ClassifierShift",
        options="xbench_metrics.options:ShiftOptions",
        requires=("timm",),
        reference="Katzmann et al., sections 3.3 and 4.1",
    ),
    MetricSpec(
        "classification",
        "a figure of the classifier itself (accuracy, F1, sensitivity, AUC, ...), independent of the maps",
        factory="xbench_metrics.classification:Classification",
        options="xbench_metrics.options:ClassificationOptions",
        reference="Katzmann et al., Table 1",
    ),
    MetricSpec(
        "cost",
        "seconds, passes through the classifier, or memory that a map takes",
        factory="xbench_metrics.cost:Cost",
        options="xbench_metrics.options:CostOptions",
        reference="Huff et al., section 6: methods that take hours find no use",
    ),
)
