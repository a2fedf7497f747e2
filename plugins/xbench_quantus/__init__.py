"""The metrics of Quantus that score single images, called so that each score depends on its image alone."""

from __future__ import annotations

from collections.abc import Iterable

from xbench import MetricSpec, hookimpl


@hookimpl
def xbench_metrics() -> Iterable[MetricSpec]:
    """Yield `quantus:<Name>`."""
    yield MetricSpec(
        "quantus",
        "a metric of Quantus by its class name (quantus:PixelFlipping:features_in_step=64; an unknown name lists all), "
        "every image scored by itself",
        factory="xbench_quantus.bridge:QuantusMetric",
        options="xbench_quantus.options:QuantusOptions",
        argument="a Quantus metric",
        requires=("quantus", "skimage", "cv2", "sklearn"),
        reference="Hedström et al., Quantus: An Explainable AI Toolkit for Responsible Evaluation of Neural Network "
        "Explanations and Beyond, JMLR 24(34), 2023",
    )
