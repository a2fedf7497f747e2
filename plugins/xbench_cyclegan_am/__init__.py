"""Activation maximization, with a CycleGAN and on the image itself. Hook implementations only."""

from __future__ import annotations

from collections.abc import Iterator

from xbench import ExplainerSpec, hookimpl


@hookimpl
def xbench_explainers() -> Iterator[ExplainerSpec]:
    """Yield CycleGAN activation maximization, and gradient ascent on the image for comparison."""
    yield ExplainerSpec(
        "cyclegan-am",
        "difference of realistic versions of the image, each changed a little toward a class by a trained network",
        factory="xbench_cyclegan_am.explainer:CycleGANActivationMaximization",
        options="xbench_cyclegan_am.options:CycleGANOptions",
        reference="Katzmann et al., Explaining clinical decision support systems in medical imaging using "
        "cycle-consistent activation maximization, sections 2 and 3",
    )
    yield ExplainerSpec(
        "activation-maximization",
        "difference of the images that plain gradient ascent reaches toward each class: an adversary, for comparison",
        factory="xbench_cyclegan_am.ascent:ActivationMaximization",
        options="xbench_cyclegan_am.options:AscentOptions",
        reference="Erhan et al., Visualizing higher-layer features of a deep network, University of Montreal, "
        "technical report 1341, 2009; from the image itself, for the loss of Katzmann et al., section 2.4",
    )
