"""Every explainer on the pretend accelerator: the CPU's maps, and a host that waits for nothing inside the loops."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from xbench.registry.discovery import discover

pytestmark = pytest.mark.slow  # for what all of them were measured in

HERE = Path(__file__).parent
NAMES = sorted(entry.spec.name for entry in discover().of_kind("explainer") if entry.distribution == "xbench")
# One look at a batch of maps: are they finite?
FINITE = 1
# More looks a batch, with what they are for.
LOOKS = {
    "iterative-saliency": 12,  # which images are still abnormal; inpainting is done on the host
    "xrai": 5,  # regions are ranked on the host
    "blurred": 3,
    "lime": 4,  # how many superpixels an image has; its seed; the values; finite
    "kernelshap": 4,
    "feature-ablation": 3,
}
# Layer by layer: which signs are there saves half of the convolutions.
RULES = ("lrp-", "deep-taylor")


@pytest.fixture(scope="module")
def found(on_pretend: Callable[..., dict[str, Any]]) -> dict[str, Any]:
    # Without float64, as some GPUs: with it, an explainer does on the device what it does on the CPU.
    made = on_pretend("measure.py", PRETEND_FLOAT64="no")
    return {name.partition(":")[0]: entry for name, entry in made.items()}


def count(waits: list[Any]) -> int:
    return sum(number for *_, number in waits)


def test_every_explainer_was_tried(found: dict[str, Any]) -> None:
    assert sorted(found) == NAMES
    assert not any(entry["reason"] for entry in found.values())


@pytest.mark.parametrize("name", NAMES)
def test_maps_are_those_of_the_cpu_and_need_no_float64(found: dict[str, Any], name: str) -> None:
    assert found[name]["failure"] == ""
    assert found[name]["difference"] < 1e-4


@pytest.mark.parametrize("name", NAMES)
def test_the_host_waits_for_nothing_inside_a_loop(found: dict[str, Any], name: str) -> None:
    entry = found[name]
    assert entry["waits"] == entry["longer"], "twice the samples, more waits"
    if not name.startswith(RULES):
        assert count(entry["waits"]) <= LOOKS.get(name, FINITE), entry["waits"]


def test_the_table_names_lines_of_xbench(found: dict[str, Any]) -> None:
    lines = {where for entry in found.values() for where, *_ in entry["waits"]}
    assert all(where.startswith("xbench") for where in lines), json.dumps(sorted(lines))
