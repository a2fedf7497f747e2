"""What a plan says before anything runs; with the tiny fakes, in this process."""

import pytest

from xbench import ExplainerSpec, UserError
from xbench.artifacts import Store
from xbench.config import read_config
from xbench.discovery import discover
from xbench.plan import make_plan
from xbench.registry import Entry, Registry
from xbench.testing import fakes


@pytest.fixture
def planned(tmp_path):
    specs = [*fakes.xbench_datasets(), *fakes.xbench_models()]
    strangers = [Entry(spec, "stranger", "1.0") for spec in specs]
    strangers.append(Entry(ExplainerSpec("picky", "s", factory="xbench_baselines.controls:Mask"), "stranger", "1.0"))
    registry = Registry.collect([*discover().entries.values(), *strangers])

    def plan(**words):
        config = read_config(None, {"dataset": ("fake",), "model": ("tiny",)} | words)
        return make_plan(config, registry, Store(tmp_path))

    return plan


def _labels(plan):
    return [cell.explainer.label for cell in plan.cells]


def test_controls_join_by_themselves_and_can_be_left_out(planned):
    assert set(_labels(planned(explainer=("picky",)))) == {
        *("picky", "gradient", "random", "constant", "centre", "edges", "mask", "inverted:picky", "blurred:picky"),
    }
    assert _labels(planned(explainer=("picky",), controls=False)) == ["picky"]


def test_a_control_that_does_not_apply_is_left_out_and_said(planned):
    plan = planned(explainer=("gradient",), dataset=("fake:masks=false",))
    assert "mask" not in _labels(plan)
    assert any("mask" in text and "no expert masks" in text for text in plan.skipped)


def test_all_incompatible_cells_are_reported_together(planned):
    with pytest.raises(UserError) as error:
        planned(
            explainer=("picky", "mask", "gradient"),
            dataset=("fake:masks=false", "fake:masks=false,size=16"),
            metric=("fidelity:removal=opposite",),
        )
    text = str(error.value)
    for words in ("picky on tiny on fake:masks=false:", "mask on tiny on fake:size=16,masks=false:"):
        assert words in text
    assert "gradient x fidelity:removal=opposite on fake:masks=false: dataset fake declares no removal values" in text


def test_combinations_share_what_is_upstream(planned):
    plan = planned(
        explainer=("gradient", "random"),
        metric=("fidelity", "fidelity:step=0.1"),
        model=("tiny", "tiny:width=4"),
        sign="both",
        controls=False,
    )
    assert len(plan.cells) == 2 * 2 * 2 * 2
    kinds = [job.kind for job in plan.jobs]
    assert kinds.count("data") == 1
    assert kinds.count("model") == kinds.count("calibration") == kinds.count("predictions") == 2
    assert kinds.count("preparation") == 4
    assert kinds.count("maps") == 4
    # gradient in two signs, random (unsigned) once for both
    assert kinds.count("observations") == (2 + 1) * 2 * 2
    fingerprints = [job.fingerprint for job in plan.jobs]
    assert len(set(fingerprints)) == len(fingerprints)
    for place, job in enumerate(plan.jobs):
        assert all(above.fingerprint in fingerprints[:place] for above in job.upstream)


def test_the_sign_is_taken_before_a_map_is_blurred_or_inverted(planned):
    plan = planned(explainer=("gradient", "blurred:gradient", "inverted:gradient"), sign="both", controls=False)
    for cell in plan.cells:
        job = cell.observations
        if cell.explainer.label == "gradient":
            assert job.absolute == (cell.sign == "absolute")
        else:
            assert not job.absolute
            assert job.maps.absolute == (cell.sign == "absolute")


@pytest.mark.parametrize(
    ("changed", "kinds"),
    [
        ({"seed": 1}, {"model", "maps", "observations", "preparation", "calibration", "predictions"}),
        ({"limit": 6}, {"predictions", "preparation", "maps", "observations"}),
        ({"target": "true"}, {"maps", "observations"}),
        ({"precision": "bf16"}, {"model", "calibration", "predictions", "preparation", "maps", "observations"}),
        ({"batch_size": 3}, {"calibration", "predictions", "preparation", "maps", "observations"}),
        (
            {"dataset": ("fake:seed=1",)},
            {"data", "model", "calibration", "predictions", "preparation", "maps", "observations"},
        ),
        ({"metric": ("fidelity:step=0.1",)}, {"preparation", "observations"}),
        ({"resamples": 500}, set()),
    ],
)
def test_a_fingerprint_changes_with_what_determines_it_and_nothing_else(planned, changed, kinds):
    def fingerprints(plan):
        return {job.kind: job.fingerprint for job in plan.jobs}

    before = fingerprints(planned(explainer=("gradient",), controls=False))
    after = fingerprints(planned(explainer=("gradient",), controls=False, **changed))
    assert {kind for kind in before if before[kind] != after[kind]} == kinds
