"""The records of the accuracies on binarised maps, importable without torch."""

from __future__ import annotations

from xbench import MetricSpec

SPECS = (
    MetricSpec(
        "keep_accuracy",
        "accuracy of a classifier trained and tested on what the maps keep of the images",
        factory="xbench_metrics.retraining.accuracy:KeepAccuracy",
        options="xbench_metrics.retraining.options:KeepAccuracyOptions",
        requires=("timm",),
        reference="Gu et al., VINet, IEEE Trans. Multimedia 2020, section IV-D, eq. 9, Table I",
    ),
    MetricSpec(
        "occlude_accuracy",
        "accuracy of the classifier when what the maps call important is occluded",
        factory="xbench_metrics.retraining.accuracy:OccludeAccuracy",
        options="xbench_metrics.retraining.options:OccludeAccuracyOptions",
        requires=("timm",),
        reference="Gu et al., VINet, IEEE Trans. Multimedia 2020, section IV-D, eq. 10, Table II",
    ),
    MetricSpec(
        "mask_only_accuracy",
        "accuracy of a classifier that sees the binary masks alone: does their shape give the class away?",
        factory="xbench_metrics.retraining.leaks:MaskOnlyAccuracy",
        options="xbench_metrics.retraining.options:MaskOnlyAccuracyOptions",
        requires=("timm",),
        reference=(
            "Rong et al., A Consistent and Efficient Evaluation Strategy for Attribution Methods (ROAD), "
            "ICML 2022: class information leaks through the shape of the removed pixels"
        ),
    ),
    MetricSpec(
        "mask_swap_agreement",
        "share of answers that follow the owner of a borrowed map instead of the image",
        factory="xbench_metrics.retraining.leaks:MaskSwapAgreement",
        requires=("timm",),
        reference="a control for Gu et al., VINet, IEEE Trans. Multimedia 2020, section III",
    ),
)
