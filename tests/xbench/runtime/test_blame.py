"""What a plugin raises names it, and what it leaves behind of torch's settings is refused and put back."""

import contextlib

import pytest
import torch

from xbench import PluginError, UserError
from xbench.runtime.blame import blamed


def test_an_error_names_the_plugin_and_the_method() -> None:
    with pytest.raises(PluginError, match=r"^explainer mine raised KeyError: 'a'$"), blamed("explainer mine"):
        raise KeyError("a")
    with pytest.raises(PluginError, match=r"^mine raised in fit: ValueError: no$"), blamed("mine", "fit"):
        raise ValueError("no")


@pytest.mark.parametrize("error", [UserError("ours"), torch.OutOfMemoryError("full"), MemoryError("full")])
def test_ours_and_memory_pass(error: Exception) -> None:
    with pytest.raises(type(error)), blamed("mine"):
        raise error


def test_what_is_said_to_pass_passes() -> None:
    with pytest.raises(OSError, match="disk"), blamed("mine", passed=(OSError,)):
        raise OSError("disk")


SETTINGS = {
    "the switches of float32": lambda: torch.set_float32_matmul_precision("medium"),
    "the default dtype": lambda: torch.set_default_dtype(torch.float64),
}


@pytest.mark.parametrize("what", SETTINGS)
def test_a_changed_setting_is_refused_and_put_back(what: str) -> None:
    before = torch.get_float32_matmul_precision(), torch.get_default_dtype()
    with pytest.raises(PluginError, match=f"^mine changed {what} of torch"), blamed("mine"):
        SETTINGS[what]()
    assert (torch.get_float32_matmul_precision(), torch.get_default_dtype()) == before
    with contextlib.suppress(PluginError), blamed("mine"):
        SETTINGS[what]()
        _ = 1 / 0
    assert (torch.get_float32_matmul_precision(), torch.get_default_dtype()) == before
