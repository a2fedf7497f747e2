"""Controls that a good explainer must beat, and the plain gradient."""

from __future__ import annotations

from collections.abc import Iterable

from xbench import ExplainerSpec, hookimpl


@hookimpl
def xbench_explainers() -> Iterable[ExplainerSpec]:
    """The explainers of this plugin."""
    yield ExplainerSpec(
        "gradient",
        "derivative of the class score by each pixel, with its sign, summed over channels",
        factory="xbench_baselines.gradients:Gradient",
        joins="run",
        reference="Simonyan et al. 2014; signed as in Brocki et al., section 2",
    )
    yield _control("random", "independent uniform noise", "Random")
    yield _control("constant", "the same value everywhere: every pixel ties", "Constant")
    yield _control("centre", "a Gaussian around the image's centre", "Centre", options="CentreOptions")
    yield _control("edges", "Sobel gradient magnitude of the image", "Edges")
    yield _control("mask", "the expert's own outline, 1 inside and 0 outside", "Mask")
    yield ExplainerSpec(
        "inverted",
        "another explainer's map with the order reversed",
        factory="xbench_baselines.controls:Inverted",
        argument="explainer",
        control=True,
        joins="explainer",
    )
    yield ExplainerSpec(
        "blurred",
        "another explainer's map after a Gaussian blur that knows nothing of image or model",
        factory="xbench_baselines.controls:Blurred",
        options="xbench_baselines.options:BlurredOptions",
        argument="explainer",
        control=True,
        joins="explainer",
    )


def _control(name: str, summary: str, factory: str, options: str = "") -> ExplainerSpec:
    return ExplainerSpec(
        name,
        summary,
        factory=f"xbench_baselines.controls:{factory}",
        options=f"xbench_baselines.options:{options}" if options else "",
        control=True,
        joins="run",
    )
