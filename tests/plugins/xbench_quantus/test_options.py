"""The Quantus bridge's options, references, refusals and documents."""

import importlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import xbench_quantus
from xbench import DatasetInfo, UserError
from xbench.contracts.options import parse_options
from xbench.registry.discovery import discover
from xbench.registry.references import choose
from xbench_quantus.bridge import QuantusMetric
from xbench_quantus.catalogue import table
from xbench_quantus.options import QuantusOptions


def made(name: str, **options: Any) -> QuantusMetric:
    return QuantusMetric(QuantusOptions(**options), name)


def test_a_reference_with_options_gives_itself_again() -> None:
    registry = discover()
    for reference in (
        "quantus:PixelFlipping:abs=true,features_in_step=64",
        "quantus:ROAD:percentages=[10.0, 50.0]",
        "quantus:PixelFlipping:perturb_baseline=0.5",
        "quantus:IROF:perturb_func_kwargs={'a': 1},perturb_baseline=mean",
    ):
        choice = choose("metric", reference, registry)
        assert choose("metric", choice.label, registry).options == choice.options
        assert choose("metric", choice.label, registry).label == choice.label
        choice.create()
    assert choose("metric", "quantus:PixelFlipping", registry).label == "quantus:PixelFlipping"


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("PixelFliping", {}, "Quantus has no metric 'PixelFliping' .did you mean PixelFlipping"),
        ("PixelFlipping", {"patch_size": 3}, "quantus:PixelFlipping has no option 'patch_size'"),
        ("Sparseness", {"softmax": True}, "quantus:Sparseness has no option 'softmax'"),
        ("Sparseness", {"feature_in_step": 3}, "no option 'feature_in_step' .did you mean features_in_step"),
        ("RegionPerturbation", {"order": "random"}, "order='random' is wrong"),
        ("MPRT", {"similarity_func": "pearson"}, "similarity_func='pearson' is wrong"),
    ],
)
def test_wrong_options_are_refused(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        QuantusMetric(parse_options(QuantusOptions, options, "metric quantus"), name)


@pytest.mark.parametrize(
    ("name", "options", "info", "reason"),
    [
        ("Focus", {}, {}, "mosaics"),
        ("Consistency", {}, {}, "an image alone has no score"),
        ("Sufficiency", {}, {}, "an image alone has no score"),
        ("InputInvariance", {}, {}, "leaves the first pixel unshifted"),
        ("PixelFlipping", {}, {"channels": 3}, "images of one channel only"),
        ("ROAD", {}, {"channels": 3}, "images of one channel only"),
        ("Sparseness", {}, {"spatial": (8, 8, 8)}, "3-D"),
        ("AUC", {}, {"has_masks": False}, "needs expert masks"),
        ("PixelFlipping", {"features_in_step": 7}, {}, "features_in_step=7 does not divide the 64 pixels"),
        ("TopKIntersection", {}, {}, "k=1000 must be below the 64 pixels"),
        ("FaithfulnessCorrelation", {"subset_size": 64}, {}, "subset_size=64 must be below"),
        ("Infidelity", {"perturb_patch_sizes": (4, 3)}, {}, "perturb_patch_sizes=3 does not divide 8 x 8"),
        ("Continuity", {}, {}, "nr_steps=28 must be at most 17"),
    ],
)
def test_what_does_not_fit_is_refused_with_the_reason(
    name: str, options: dict[str, Any], info: dict[str, Any], reason: str
) -> None:
    fields: dict[str, Any] = {
        "name": "toy",
        "classes": ("a", "b"),
        "channels": 1,
        "spatial": (8, 8),
        "has_masks": True,
    } | info
    assert reason in made(name, **options).supports(DatasetInfo(**fields))


def test_directions_and_needs() -> None:
    assert not made("PixelFlipping").higher_is_better
    assert made("RegionPerturbation").higher_is_better
    assert not made("RegionPerturbation", order="lerf").higher_is_better
    assert made("PixelFlipping").needs == frozenset()
    assert made("MaxSensitivity").needs == made("MPRT").needs == {"explain"}
    assert made("AUC").needs == {"masks"}


def test_functions_are_named_as_in_quantus() -> None:
    for key, modules in importlib.import_module("xbench_quantus.bridge")._MODULES.items():
        names = [
            name
            for choice in QuantusOptions.model_fields[key].annotation.__args__
            for name in getattr(choice, "__args__", ())
        ]
        assert names, key
        for name in names:
            assert any(hasattr(importlib.import_module(f"quantus.functions.{module}"), name) for module in modules)


def test_the_page_has_the_catalogue() -> None:
    page = (Path(__file__).parents[3] / "docs" / "metrics" / "quantus.md").read_text()
    assert table() in page


def test_the_plugin_imports_neither_torch_nor_quantus() -> None:
    code = """if True:
        import sys, xbench_quantus, xbench_quantus.catalogue
        [spec.load_options() for spec in xbench_quantus.xbench_metrics()]
        sys.exit("torch" in sys.modules or "quantus" in sys.modules)
    """
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
    assert [spec.name for spec in xbench_quantus.xbench_metrics()] == ["quantus"]
