"""Every metric on the pretend accelerator: the CPU's observations, and few waits a batch of images."""

import pytest

from xbench.discovery import discover

NAMES = sorted(
    entry.spec.name
    for entry in discover().of_kind("metric")
    if entry.distribution == "xbench" and not entry.spec.argument
)
MORE = ("fidelity:score=logit", "quantus:Sparseness", "quantus:FaithfulnessCorrelation:nr_runs=4")
BATCHES = 2  # by which the longer of two trials is longer
# Waits a batch of images. Those of the host alone have none.
LIMITS = {
    "fidelity": 2,
    "fidelity:score=logit": 2,
    **dict.fromkeys(("roc_auc", "average_precision", "pointing_game", "relevance_mass", "relevance_rank", "dice"), 0),
    **dict.fromkeys(("importance_loss", "sparseness", "classification", "cost"), 0),
}


@pytest.fixture(scope="module")
def found(on_pretend):
    return on_pretend("measure_metrics.py")


@pytest.mark.parametrize("name", [*NAMES, *MORE])
def test_observations_are_those_of_the_cpu(found, name):
    assert found[name]["failure"] == ""
    assert found[name]["difference"] < 1e-3


@pytest.mark.parametrize("name", sorted(LIMITS))
def test_the_host_waits_no_more_often_than_it_must(found, name):
    waits, longer = (sum(count for *_, count in found[name][key]) for key in ("waits", "longer"))
    assert (longer - waits) / BATCHES <= LIMITS[name], found[name]["longer"]
