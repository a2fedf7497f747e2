"""XRAI and Dice, which rank regions of an image. Hook implementations only."""

from __future__ import annotations

from collections.abc import Iterator

from xbench import ExplainerSpec, MetricSpec, hookimpl


@hookimpl
def xbench_explainers() -> Iterator[ExplainerSpec]:
    """Yield `xrai`."""
    yield ExplainerSpec(
        "xrai",
        "another explainer's map, averaged over regions of the image, the regions that hold the most of it first",
        factory="xbench_regions.explainer:Xrai",
        options="xbench_regions.options:XraiOptions",
        argument="explainer",
        default="integrated-gradients-bw",
        requires=("skimage",),
        reference="Kapishnikov et al., XRAI: Better Attributions Through Regions, ICCV 2019, "
        "as in the authors' package saliency",
    )


@hookimpl
def xbench_metrics() -> Iterator[MetricSpec]:
    """Yield `dice`."""
    yield MetricSpec(
        "dice",
        "overlap of the expert's mask with the image's regions that the map ranks highest, at the best displayed area",
        factory="xbench_regions.dice:Dice",
        options="xbench_regions.options:DiceOptions",
        requires=("skimage",),
        reference="Brocki et al., section 3.3",
    )
