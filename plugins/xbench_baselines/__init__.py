"""The attribution methods of the literature, and the controls that a good explainer must beat.

Each family lists its explainers in its own folder: `<family>/specs.py`.
"""

from __future__ import annotations

from collections.abc import Iterable

from xbench import ExplainerSpec, hookimpl
from xbench_baselines.cams import specs as cams
from xbench_baselines.controls import specs as controls
from xbench_baselines.deeplift import specs as deeplift
from xbench_baselines.gradients import specs as gradients
from xbench_baselines.perturbation import specs as perturbation
from xbench_baselines.relevance import specs as relevance


@hookimpl
def xbench_explainers() -> Iterable[ExplainerSpec]:
    """Return the explainers of all families."""
    for family in (gradients, relevance, deeplift, cams, perturbation, controls):
        yield from family.SPECS
