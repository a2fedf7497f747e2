"""The records of the metrics of concordance with the expert's mask, importable without torch."""

from __future__ import annotations

from xbench import MetricSpec

_CLEVR = "Arras et al., CLEVR-XAI, Information Fusion 2022"

SPECS = (
    MetricSpec(
        "roc_auc",
        "area under the ROC curve of the map as a classifier of the expert's pixels",
        factory="xbench_metrics.concordance.concordance:RocAuc",
        options="xbench_metrics.concordance.options:RocAucOptions",
        reference="Brocki et al., section 3.2",
    ),
    MetricSpec(
        "average_precision",
        "average precision of the map as a classifier of the expert's pixels",
        factory="xbench_metrics.concordance.concordance:AveragePrecision",
        reference=(
            "Arun et al., Assessing the trustworthiness of saliency maps for localizing abnormalities in "
            "medical imaging, Radiology: AI 2021"
        ),
    ),
    MetricSpec(
        "pointing_game",
        "share of maps whose highest pixel lies in the expert's mask",
        factory="xbench_metrics.concordance.concordance:PointingGame",
        options="xbench_metrics.concordance.options:PointingGameOptions",
        reference="Zhang et al., Top-down neural attention by excitation backprop, IJCV 2018",
    ),
    MetricSpec(
        "relevance_mass",
        "share of the map's positive relevance that lies in the expert's mask",
        factory="xbench_metrics.concordance.concordance:RelevanceMass",
        reference=_CLEVR,
    ),
    MetricSpec(
        "relevance_rank",
        "share of the map's highest pixels that lie in the expert's mask, taking as many pixels as the mask has",
        factory="xbench_metrics.concordance.concordance:RelevanceRank",
        reference=_CLEVR,
    ),
)
