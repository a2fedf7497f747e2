"""xbench: which explanation of this model can I trust, and how sure are we?

The public names for plugin authors. Importing this package imports neither torch nor any plugin.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from xbench.version import __version__

_PUBLIC = {
    "ArtifactError": "errors",
    "PluginError": "errors",
    "UserError": "errors",
    "XbenchError": "errors",
    "Field": "contracts.options",
    "Options": "contracts.options",
    "PresetOptions": "contracts.options",
    "Attribution": "contracts.samples",
    "Batch": "contracts.samples",
    "Sample": "contracts.samples",
    "Session": "contracts.session",
    "ArrayDataset": "contracts.arrays",
    "ArraySample": "contracts.arrays",
    "Dataset": "contracts.dataset",
    "DatasetInfo": "contracts.dataset",
    "Split": "contracts.dataset",
    "Model": "contracts.model",
    "ModelOptions": "contracts.model",
    "Schedule": "contracts.model",
    "class_scores": "contracts.model",
    "probabilities": "contracts.model",
    "Explainer": "contracts.explainer",
    "MapTransform": "contracts.explainer",
    "undisturbed": "contracts.explainer",
    "ImageFeature": "contracts.feature",
    "Case": "contracts.metric",
    "CurveRole": "contracts.roles",
    "Curves": "contracts.metric",
    "Explanation": "contracts.metric",
    "Metric": "contracts.metric",
    "Observations": "contracts.metric",
    "TrainMaps": "contracts.metric",
    "DatasetSpec": "contracts.specs",
    "ExplainerSpec": "contracts.specs",
    "MetricSpec": "contracts.specs",
    "ModelSpec": "contracts.specs",
    "SuiteSpec": "contracts.specs",
    "hookimpl": "contracts.hookspecs",
}

__all__ = ["__version__", *_PUBLIC]  # noqa: PLE0604  (the keys are strings)

if TYPE_CHECKING:
    from xbench.contracts.arrays import ArrayDataset as ArrayDataset
    from xbench.contracts.arrays import ArraySample as ArraySample
    from xbench.contracts.dataset import Dataset as Dataset
    from xbench.contracts.dataset import DatasetInfo as DatasetInfo
    from xbench.contracts.dataset import Split as Split
    from xbench.contracts.explainer import Explainer as Explainer
    from xbench.contracts.explainer import MapTransform as MapTransform
    from xbench.contracts.explainer import undisturbed as undisturbed
    from xbench.contracts.feature import ImageFeature as ImageFeature
    from xbench.contracts.hookspecs import hookimpl as hookimpl
    from xbench.contracts.metric import Case as Case
    from xbench.contracts.metric import Curves as Curves
    from xbench.contracts.metric import Explanation as Explanation
    from xbench.contracts.metric import Metric as Metric
    from xbench.contracts.metric import Observations as Observations
    from xbench.contracts.metric import TrainMaps as TrainMaps
    from xbench.contracts.model import Model as Model
    from xbench.contracts.model import ModelOptions as ModelOptions
    from xbench.contracts.model import Schedule as Schedule
    from xbench.contracts.model import class_scores as class_scores
    from xbench.contracts.model import probabilities as probabilities
    from xbench.contracts.options import Field as Field
    from xbench.contracts.options import Options as Options
    from xbench.contracts.options import PresetOptions as PresetOptions
    from xbench.contracts.roles import CurveRole as CurveRole
    from xbench.contracts.samples import Attribution as Attribution
    from xbench.contracts.samples import Batch as Batch
    from xbench.contracts.samples import Sample as Sample
    from xbench.contracts.session import Session as Session
    from xbench.contracts.specs import DatasetSpec as DatasetSpec
    from xbench.contracts.specs import ExplainerSpec as ExplainerSpec
    from xbench.contracts.specs import MetricSpec as MetricSpec
    from xbench.contracts.specs import ModelSpec as ModelSpec
    from xbench.contracts.specs import SuiteSpec as SuiteSpec
    from xbench.errors import ArtifactError as ArtifactError
    from xbench.errors import PluginError as PluginError
    from xbench.errors import UserError as UserError
    from xbench.errors import XbenchError as XbenchError


def __getattr__(name: str) -> Any:
    """Import a public name on first use: `xbench --help` must not wait for pydantic or numpy."""
    if name not in _PUBLIC:
        raise AttributeError(f"module 'xbench' has no attribute {name!r}")
    return getattr(importlib.import_module(f"xbench.{_PUBLIC[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
