"""Every metric on the pretend accelerator: the CPU's observations, and few waits a batch of images."""

from collections.abc import Callable
from typing import Any

import pytest

from xbench.registry.discovery import discover

pytestmark = pytest.mark.slow  # for what all of them were measured in

NAMES = sorted(
    entry.spec.name
    for entry in discover().of_kind("metric")
    if entry.distribution == "xbench" and not entry.spec.argument
)
MORE = ("fidelity:score=logit", "quantus:Sparseness", "quantus:FaithfulnessCorrelation:nr_runs=4")
BATCHES = 2  # by which the longer of two trials is longer
# Waits a batch of images. Those of the host alone have none.
LIMITS = {
    **dict.fromkeys(("fidelity", "fidelity:score=logit", "occlude_accuracy"), 2),
    **dict.fromkeys(("roc_auc", "average_precision", "pointing_game", "relevance_mass", "relevance_rank", "dice"), 0),
    **dict.fromkeys(("importance_loss", "sparseness", "classification", "cost"), 0),
}


@pytest.fixture(scope="module")
def found(on_pretend: Callable[..., dict[str, Any]]) -> dict[str, Any]:
    # Without float64, as some GPUs: with it, a metric does on the device what it does on the CPU.
    return on_pretend("measure_metrics.py", PRETEND_FLOAT64="no")


@pytest.mark.parametrize("name", [*NAMES, *MORE])
def test_observations_are_those_of_the_cpu_and_need_no_float64(found: dict[str, Any], name: str) -> None:
    assert found[name]["failure"] == ""
    assert found[name]["difference"] < 1e-3


# Waits for all images together, of those that put an explainer to work: two batches, or one of four images.
IN_ALL = {"classifier_shift": 4, "mask_swap_agreement": 4, "stability": 1, "class_sensitivity": 1}
IN_ALL["adversarial_stability"] = 1


def count(waits: list[Any]) -> int:
    return sum(number for *_, number in waits)


@pytest.mark.parametrize("name", sorted(LIMITS))
def test_the_host_waits_no_more_often_than_it_must(found: dict[str, Any], name: str) -> None:
    waits, longer = count(found[name]["waits"]), count(found[name]["longer"])
    assert bool(longer) == bool(LIMITS[name])
    assert (longer - waits) / BATCHES <= LIMITS[name], found[name]["longer"]


@pytest.mark.parametrize("name", sorted(IN_ALL))
def test_the_host_waits_no_more_often_for_more_work(found: dict[str, Any], name: str) -> None:
    assert 0 < count(found[name]["waits"]) <= IN_ALL[name], found[name]["waits"]
