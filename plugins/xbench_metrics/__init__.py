"""Metrics: what a map is worth, measured on the model it explains."""

from __future__ import annotations

from collections.abc import Iterable

from xbench import MetricSpec, hookimpl


@hookimpl
def xbench_metrics() -> Iterable[MetricSpec]:
    """The metrics of this plugin."""
    yield MetricSpec(
        "fidelity",
        "area between the accuracy curves of removing the least and the most important pixels first",
        factory="xbench_metrics.fidelity.fidelity:Fidelity",
        options="xbench_metrics.fidelity.options:FidelityOptions",
        reference="Brocki et al., section 3.1",
    )
    yield from _concordance()
    yield from _sparsity()


def _concordance() -> Iterable[MetricSpec]:
    """Against the expert's mask."""
    yield MetricSpec(
        "roc_auc",
        "area under the ROC curve of telling the expert's pixels by the map",
        factory="xbench_metrics.concordance.concordance:RocAuc",
        options="xbench_metrics.concordance.options:RocAucOptions",
        reference="Brocki et al., section 3.2",
    )
    yield MetricSpec(
        "average_precision",
        "average precision of telling the expert's pixels by the map",
        factory="xbench_metrics.concordance.concordance:AveragePrecision",
        reference="Arun et al., Assessing the trustworthiness of saliency maps for localizing abnormalities in medical "
        "imaging, Radiology: AI 2021",
    )
    yield MetricSpec(
        "pointing_game",
        "share of maps whose highest pixel lies in the expert's mask",
        factory="xbench_metrics.concordance.concordance:PointingGame",
        options="xbench_metrics.concordance.options:PointingGameOptions",
        reference="Zhang et al., Top-down neural attention by excitation backprop, IJCV 2018",
    )
    yield MetricSpec(
        "relevance_mass",
        "share of the map's positive relevance that lies in the expert's mask",
        factory="xbench_metrics.concordance.concordance:RelevanceMass",
        reference="Arras et al., CLEVR-XAI, Information Fusion 2022",
    )
    yield MetricSpec(
        "relevance_rank",
        "share of the map's highest pixels, as many as the expert's mask has, that lie in it",
        factory="xbench_metrics.concordance.concordance:RelevanceRank",
        reference="Arras et al., CLEVR-XAI, Information Fusion 2022",
    )


def _sparsity() -> Iterable[MetricSpec]:
    """Of the map alone."""
    yield MetricSpec(
        "importance_loss",
        "mean of an importance map in [0, 1]: the share of the image that it keeps",
        factory="xbench_metrics.checks.sparsity:ImportanceLoss",
        reference="VINet, eq. 8",
    )
    yield MetricSpec(
        "sparseness",
        "Gini index of the map's absolute values",
        factory="xbench_metrics.checks.sparsity:Sparseness",
        reference="Chalasani et al., Concise explanations of neural networks using adversarial training, ICML 2020",
    )
    yield MetricSpec(
        "keep_accuracy",
        "accuracy of a classifier trained and tested on what the maps keep of the images",
        factory="xbench_metrics.retraining.accuracy:KeepAccuracy",
        options="xbench_metrics.retraining.options:KeepAccuracyOptions",
        requires=("timm",),
        reference="Gu et al., VINet, IEEE Trans. Multimedia 2020, section IV-D, eq. 9, Table I",
    )
    yield MetricSpec(
        "occlude_accuracy",
        "accuracy of the classifier when what the maps call important is occluded",
        factory="xbench_metrics.retraining.accuracy:OccludeAccuracy",
        options="xbench_metrics.retraining.options:OccludeAccuracyOptions",
        requires=("timm",),
        reference="Gu et al., VINet, IEEE Trans. Multimedia 2020, section IV-D, eq. 10, Table II",
    )
    yield MetricSpec(
        "mask_only_accuracy",
        "accuracy of a classifier that sees the binary masks alone: does their shape give the class away?",
        factory="xbench_metrics.retraining.leaks:MaskOnlyAccuracy",
        options="xbench_metrics.retraining.options:MaskOnlyAccuracyOptions",
        requires=("timm",),
        reference="Rong et al., A Consistent and Efficient Evaluation Strategy for Attribution Methods (ROAD), "
        "ICML 2022: class information leaks through the shape of the removed pixels",
    )
    yield MetricSpec(
        "mask_swap_agreement",
        "share of answers that follow the owner of a borrowed map instead of the image",
        factory="xbench_metrics.retraining.leaks:MaskSwapAgreement",
        requires=("timm",),
        reference="a control for Gu et al., VINet, IEEE Trans. Multimedia 2020, section III",
    )
    yield MetricSpec(
        "classifier_shift",
        "how far counterfactual images move the classifier's probability to where they should",
        factory="xbench_metrics.shift:ClassifierShift",
        options="xbench_metrics.options:ShiftOptions",
        requires=("timm",),
        reference="Katzmann et al., sections 3.3 and 4.1",
    )
    yield MetricSpec(
        "classification",
        "a figure of the classifier itself: accuracy, F1, sensitivity, AUC, ...; the maps do not enter",
        factory="xbench_metrics.classification:Classification",
        options="xbench_metrics.options:ClassificationOptions",
        reference="Katzmann et al., Table 1",
    )
    yield MetricSpec(
        "parameter_randomisation",
        "similarity of a map to that of the same network with its layers re-initialised",
        factory="xbench_metrics.checks.sanity:ParameterRandomisation",
        options="xbench_metrics.checks.options:ParameterRandomisationOptions",
        reference="Adebayo et al., Sanity checks for saliency maps, NeurIPS 2018, section 3",
    )
    yield MetricSpec(
        "label_randomisation",
        "similarity of a map to that of a network trained on permuted labels",
        factory="xbench_metrics.checks.sanity:LabelRandomisation",
        options="xbench_metrics.checks.options:LabelRandomisationOptions",
        reference="Adebayo et al., Sanity checks for saliency maps, NeurIPS 2018, section 4",
    )
    yield MetricSpec(
        "class_sensitivity",
        "how different the maps of two classes are",
        factory="xbench_metrics.checks.class_sensitivity:ClassSensitivity",
        options="xbench_metrics.checks.options:ClassSensitivityOptions",
        reference="Huff et al., section 6; Adebayo et al., Sanity checks for saliency maps, NeurIPS 2018",
    )
    yield MetricSpec(
        "stability",
        "largest change of a map under small noise that keeps the prediction",
        factory="xbench_metrics.checks.stability:InputStability",
        options="xbench_metrics.checks.options:StabilityOptions",
        reference="Yeh et al., On the (in)fidelity and sensitivity of explanations, NeurIPS 2019; "
        "Alvarez-Melis and Jaakkola, On the robustness of interpretability methods, 2018",
    )
    yield MetricSpec(
        "adversarial_stability",
        "share of a map's top pixels displaced by an image made to move the gradient and keep the prediction",
        factory="xbench_metrics.checks.stability:AdversarialStability",
        options="xbench_metrics.checks.options:AdversarialStabilityOptions",
        reference="Ghorbani et al., Interpretation of neural networks is fragile, AAAI 2019",
    )
    yield MetricSpec(
        "cost",
        "seconds, passes through the classifier or memory that a map takes",
        factory="xbench_metrics.cost:Cost",
        options="xbench_metrics.options:CostOptions",
        reference="Huff et al., section 6: methods that take hours find no use",
    )
