"""The explainer VINet. Hook implementations only."""

from __future__ import annotations

from collections.abc import Iterator

from xbench import ExplainerSpec, hookimpl


@hookimpl
def xbench_explainers() -> Iterator[ExplainerSpec]:
    """Yield `vinet`."""
    yield ExplainerSpec(
        "vinet",
        "a network that learns which pixels its own classifier can spare, trained together with it",
        factory="xbench_vinet.explainer:VINet",
        options="xbench_vinet.options:VINetOptions",
        requires=("segmentation_models_pytorch", "timm"),
        reference="Gu et al., VINet: A Visually Interpretable Image Diagnosis Network, IEEE Trans. Multimedia 2020, "
        "sections III and IV",
    )
