"""Metrics where memory is short: the same observations, whatever fits."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from xbench import Case, Session
from xbench.compute.scorer import Scorer, ScoringRecipe
from xbench.contracts.options import parse_options
from xbench.runtime.seeding import rng
from xbench.testing import default_scenarios
from xbench.testing.fakes import fake_case

ROOM = 2
METRICS = {
    "xbench_metrics": {
        "fidelity": {},
        "classifier_shift": {"blur": 1.0},
        "stability": {"samples": 2},
        "adversarial_stability": {"steps": 3},
        "class_sensitivity": {},
        "parameter_randomisation": {"stages": 2},
        "label_randomisation": {"epochs": 1},
        "occlude_accuracy": {"shares": "0.1,0.3"},
        "mask_swap_agreement": {},
    },
    "xbench_quantus": {"quantus:MaxSensitivity": {"nr_samples": 3}, "quantus:PixelFlipping": {"features_in_step": 128}},
}
CASES = [(plugin, name) for plugin, names in METRICS.items() for name in names]
HALVED_BY_THE_SCORER = {"fidelity", "quantus:PixelFlipping"}  # what is in their batches beside its passes is small


def made(plugin: str, reference: str) -> Any:
    name, _, argument = reference.partition(":")
    hooks = pytest.importorskip(plugin)
    spec = next(spec for spec in hooks.xbench_metrics() if spec.name == name)
    return spec.load()(parse_options(spec.load_options(), METRICS[plugin][reference], name), argument)


@pytest.fixture
def case(tmp_path: Path) -> Case:
    scenario = default_scenarios()[0]
    split, module = scenario.split("test"), scenario.module()
    maps = rng(0, "maps").standard_normal((len(split), *scenario.info.spatial)).astype(np.float32)
    session = Session(tmp_path, batch_size=8)
    return fake_case(scenario.info, split, module, maps, session, training=scenario.split("train"))


def refuse(module: nn.Module, images: tuple[torch.Tensor, ...]) -> None:
    """A hook: out of memory with more than a few images."""
    refuse.asked = max(refuse.asked, len(images[0]))
    if len(images[0]) > ROOM:
        raise torch.OutOfMemoryError("CUDA out of memory")


@pytest.mark.slow
@pytest.mark.parametrize(("plugin", "reference"), CASES, ids=[reference for _, reference in CASES])
def test_the_numbers_are_the_same_where_only_a_few_images_fit(case: Case, plugin: str, reference: str) -> None:
    metric = made(plugin, reference)
    assert not metric.supports(case.info)
    prepared = metric.prepare(case)
    expected = metric.observe(dataclasses.replace(case, prepared=prepared))

    refuse.asked, session = 0, dataclasses.replace(case.session)
    handle = case.model.register_forward_pre_hook(refuse)
    try:
        recipe = ScoringRecipe(
            8, folded=False, channels_last=False, precision="32", max_difference=0.0, milliseconds=1.0
        )
        crowded = dataclasses.replace(case, session=session, logits_of=Scorer(case.model, recipe, "cpu"))
        metric = made(plugin, reference)
        if reference != "label_randomisation":  # which trains
            prepared = metric.prepare(crowded)
        seen = metric.observe(dataclasses.replace(crowded, prepared=prepared))
    finally:
        handle.remove()
    assert seen.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_allclose(seen[name], values, rtol=1e-4, atol=1e-5, err_msg=name)
    assert refuse.asked > ROOM, "the memory never ran out"
    if reference not in HALVED_BY_THE_SCORER | {"classifier_shift", "occlude_accuracy"}:
        assert session.batch_size <= ROOM
