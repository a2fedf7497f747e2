"""Reports come from result files alone."""

import subprocess
import sys

import pytest

FORBIDDEN = {
    "torch",
    "matplotlib.pyplot",
    "xbench_baselines",
    "xbench_learned",
    "xbench_lidc",
    "xbench_metrics",
    "xbench_models",
    "xbench_regions",
    "xbench_vinet",
}

DRAW = """
import numpy as np, sys, tempfile
from pathlib import Path
from xbench.report import perturbation_curves, training_curves, score_chart, gallery, score_tables
from xbench.results.curves import CurveSeries
x = np.linspace(0, 1, 5)
perturbation_curves(Path(tempfile.mkdtemp()) / "f", "", [CurveSeries("a", False, x, {"MiF": x})], "x", "y")
"""


def loaded_after(code: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys\nprint(*sys.modules)"], capture_output=True, text=True, check=True
    )
    return set(done.stdout.split())


@pytest.mark.parametrize(
    "code",
    [
        "import xbench.report",
        "import xbench.results.rows, xbench.statistics.resampling, xbench.results.observations",
        DRAW,
    ],
)
def test_neither_torch_nor_plugins_nor_pyplot(code: str) -> None:
    assert not loaded_after(code) & FORBIDDEN


def test_matplotlib_waits_for_the_first_figure() -> None:
    assert "matplotlib" not in loaded_after("import xbench.report")


def test_every_public_name_exists() -> None:
    import xbench.report

    for name in xbench.report.__all__:
        assert getattr(xbench.report, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'absent'"):
        _ = xbench.report.absent
