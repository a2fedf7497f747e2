"""The attribution methods of the literature, and the controls that a good explainer must beat.

Each family lists its explainers in its own folder: `<family>/specs.py`.
"""

from __future__ import annotations

from collections.abc import Iterable

from xbench import ExplainerSpec, hookimpl
from xbench_baselines.cams.specs import SPECS as CAMS
from xbench_baselines.controls.specs import SPECS as CONTROLS
from xbench_baselines.deeplift.specs import SPECS as DEEPLIFT
from xbench_baselines.gradients.specs import SPECS as GRADIENTS
from xbench_baselines.perturbation.specs import SPECS as PERTURBATION
from xbench_baselines.relevance.specs import SPECS as RELEVANCE


@hookimpl
def xbench_explainers() -> Iterable[ExplainerSpec]:
    """Return the explainers of all families."""
    for family in (GRADIENTS, RELEVANCE, DEEPLIFT, CAMS, PERTURBATION, CONTROLS):
        yield from family
