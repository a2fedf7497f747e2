"""Every explainer on the pretend accelerator: the CPU's maps, and a host that waits for nothing inside the loops."""

import json
from pathlib import Path

import pytest

from xbench.discovery import discover

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
def found(on_pretend):
    return {name.partition(":")[0]: entry for name, entry in on_pretend("measure.py").items()}


@pytest.fixture(scope="module")
def without_float64(on_pretend):
    made = on_pretend("measure.py", PRETEND_FLOAT64="no")
    return {name.partition(":")[0]: entry for name, entry in made.items()}


def count(waits):
    return sum(number for *_, number in waits)


def test_every_explainer_was_tried(found):
    assert sorted(found) == NAMES
    assert not any(entry["reason"] for entry in found.values())


@pytest.mark.parametrize("name", NAMES)
def test_maps_are_those_of_the_cpu(found, name):
    assert found[name]["failure"] == ""
    assert found[name]["difference"] < 1e-4


@pytest.mark.parametrize("name", NAMES)
def test_the_host_waits_for_nothing_inside_a_loop(found, name):
    entry = found[name]
    assert entry["waits"] == entry["longer"], "twice the samples, more waits"
    if not name.startswith(RULES):
        assert count(entry["waits"]) <= LOOKS.get(name, FINITE), entry["waits"]


@pytest.mark.parametrize("name", NAMES)
def test_no_explainer_needs_float64_on_the_device(without_float64, name):
    assert without_float64[name]["failure"] == ""
    assert without_float64[name]["difference"] < 1e-3


def test_the_table_names_lines_of_xbench(found):
    lines = {where for entry in found.values() for where, *_ in entry["waits"]}
    assert all(where.startswith("xbench") for where in lines), json.dumps(sorted(lines))
