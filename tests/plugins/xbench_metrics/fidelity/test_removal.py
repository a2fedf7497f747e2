"""The order in which pixels are removed, what takes their place, and what the plugin promises."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from torch import nn

import xbench_metrics
from xbench import DatasetInfo, Session, Split, UserError
from xbench.contracts.options import parse_options
from xbench.runtime.seeding import rng
from xbench.testing import parametrize_with_checks
from xbench.testing.fakes import fake_case
from xbench_metrics.fidelity.options import FidelityOptions
from xbench_metrics.fidelity.removal import Removal
from xbench_metrics.ranking import rank


class Constant(nn.Module):
    """Class 1, whatever the image."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.ones(len(images), 1)


def test_rank_orders_extremes_signed_zeros_and_ties() -> None:
    values = torch.tensor([[0.0, -1.5, 3e38, -0.0, 1e-45, -3e38, 2.0]])
    ranks, ties = rank(values, torch.tensor([5]))
    assert ranks[0, [2, 6, 4]].tolist() == [0, 1, 2]
    assert sorted(ranks[0, [0, 3]].tolist()) == [3, 4]
    assert ranks[0, [1, 5]].tolist() == [5, 6]
    assert ties.tolist() == [2]  # 0.0 and -0.0


def test_ties_have_no_position_bias() -> None:
    places = rank(torch.zeros(3000, 16), torch.arange(3000))[0].double().mean(0)
    # A place is uniform on 0..15: standard error sqrt((16² - 1) / 12 / 3000) = 0.084.
    assert (places - 7.5).abs().max() < 4.5 * 0.084


@pytest.mark.parametrize("kind", ["opposite", "zero", "mean", "noise", "blur"])
def test_fills(tmp_path: Path, kind: str) -> None:
    images = rng(0, "images").random((4, 3, 6, 5), dtype=np.float32)
    info = DatasetInfo("toy", ("a", "b"), 3, (6, 5), removal=(0.9, 0.2))
    split = Split.from_arrays(images, np.array([0, 1, 1, 0]), list("abcd"), list("abcd"))
    case = fake_case(info, split, Constant(), np.zeros((4, 6, 5), dtype=np.float32), Session(tmp_path))
    batch = case.split.batch(range(4))
    fill = Removal(kind, case, 1.5).fill(batch).expand(4, 3, 30).reshape(4, 3, 6, 5).numpy()
    if kind == "noise":
        assert 0 <= fill.min() <= fill.max() < 1
        assert len(np.unique(fill)) == fill.size
        alone = Removal(kind, case, 1.5).fill(case.split.batch([2])).reshape(3, 6, 5).numpy()
        assert np.array_equal(alone, fill[2])
        return
    expected = {
        "opposite": np.array([0.9, 0.2, 0.2, 0.9])[:, None, None, None],
        "zero": 0.0,
        "mean": images.mean((0, 2, 3))[None, :, None, None],
        "blur": gaussian_filter(images.astype(float), (0, 0, 1.5, 1.5)),
    }[kind]
    np.testing.assert_allclose(fill, np.broadcast_to(expected, fill.shape), atol=1e-6)


@pytest.mark.parametrize("step", [0.3, 0.15, 0.026])
def test_steps_must_divide_one(step: float) -> None:
    with pytest.raises(UserError, match="must divide 1"):
        parse_options(FidelityOptions, {"step": step}, "metric fidelity")


def test_the_plugin_imports_no_torch() -> None:
    code = """if True:
        import sys, xbench_metrics
        [spec.load_options() for spec in xbench_metrics.xbench_metrics()]
        sys.exit("torch" in sys.modules)
    """
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@parametrize_with_checks((spec for spec in xbench_metrics.xbench_metrics() if spec.name == "fidelity"), step=0.125)
def test_conformance(check: Callable[..., None]) -> None:
    check()
