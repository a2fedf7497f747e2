"""The controls: one record each, importable without torch."""

from __future__ import annotations

from xbench import ExplainerSpec

SPECS = (
    ExplainerSpec(
        "random",
        "independent uniform noise",
        factory="xbench_baselines.controls.explainers:Random",
        control=True,
        joins="run",
    ),
    ExplainerSpec(
        "constant",
        "the same value everywhere: every pixel ties",
        factory="xbench_baselines.controls.explainers:Constant",
        control=True,
        joins="run",
    ),
    ExplainerSpec(
        "centre",
        "a Gaussian around the image's centre",
        factory="xbench_baselines.controls.explainers:Centre",
        options="xbench_baselines.controls.options:CentreOptions",
        control=True,
        joins="run",
    ),
    ExplainerSpec(
        "edges",
        "Sobel gradient magnitude of the image",
        factory="xbench_baselines.controls.explainers:Edges",
        control=True,
        joins="run",
    ),
    ExplainerSpec(
        "mask",
        "the expert's own outline, 1 inside and 0 outside",
        factory="xbench_baselines.controls.explainers:Mask",
        control=True,
        joins="run",
    ),
    ExplainerSpec(
        "inverted",
        "another explainer's map with the order reversed",
        factory="xbench_baselines.controls.explainers:Inverted",
        argument="explainer",
        control=True,
        joins="explainer",
    ),
    ExplainerSpec(
        "blurred",
        "another explainer's map after a Gaussian blur that knows nothing of image or model",
        factory="xbench_baselines.controls.explainers:Blurred",
        options="xbench_baselines.controls.options:BlurredOptions",
        argument="explainer",
        control=True,
        joins="explainer",
    ),
)
