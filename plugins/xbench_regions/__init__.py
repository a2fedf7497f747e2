"""Hook implementations only."""

from __future__ import annotations

from collections.abc import Iterator

from xbench import ExplainerSpec, hookimpl


@hookimpl
def xbench_explainers() -> Iterator[ExplainerSpec]:
    """XRAI."""
    yield ExplainerSpec(
        "xrai",
        "another explainer's map, averaged over regions of the image, the regions that hold the most of it first",
        factory="xbench_regions.explainer:Xrai",
        options="xbench_regions.options:XraiOptions",
        argument="explainer",
        default="integrated-gradients-bw",
        reference="Kapishnikov et al., XRAI: Better Attributions Through Regions, ICCV 2019, "
        "as in the authors' package saliency",
    )
