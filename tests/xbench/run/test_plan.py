"""What a plan says before anything runs; with the tiny fakes, in this process."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from xbench import ExplainerSpec, UserError
from xbench.jobs.store import Store
from xbench.registry.discovery import discover
from xbench.registry.entries import Entry, Registry
from xbench.request.config import read_config
from xbench.run.plan import Plan, make_plan
from xbench.testing import fakes


@pytest.fixture
def planned(tmp_path: Path) -> Callable[..., Plan]:
    specs = [*fakes.xbench_datasets(), *fakes.xbench_models()]
    strangers = [Entry(spec, "stranger", "1.0") for spec in specs]
    strangers.append(
        Entry(ExplainerSpec("picky", "s", factory="xbench_baselines.controls.explainers:Mask"), "stranger", "1.0")
    )
    smoothed = ExplainerSpec(
        "smoothed",
        "s",
        factory="xbench_baselines.controls.explainers:Blurred",
        argument="explainer",
        default="input-x-gradient",
    )
    strangers.append(Entry(smoothed, "stranger", "1.0"))
    registry = Registry.collect([*discover().entries.values(), *strangers])

    def plan(**words: Any) -> Plan:
        config = read_config(None, {"dataset": ("fake",), "model": ("tiny",), "model_view": False} | words)
        return make_plan(config, registry, Store(tmp_path))

    return plan


def _labels(plan: Plan) -> list[str]:
    return [cell.explainer.label for cell in plan.cells]


def test_controls_join_by_themselves_and_can_be_left_out(planned: Callable[..., Plan]) -> None:
    assert set(_labels(planned(explainer=("picky",)))) == {
        *("picky", "gradient", "random", "constant", "centre", "edges", "mask", "inverted:picky", "blurred:picky"),
    }
    assert _labels(planned(explainer=("picky",), controls=False)) == ["picky"]


def test_copies_of_an_explainer_do_not_join_what_has_it_explain_more(planned: Callable[..., Plan]) -> None:
    plan = planned(explainer=("picky",), metric=("stability", "fidelity"))
    copies = {"inverted:picky", "blurred:picky"}
    of_metric = {
        name: {cell.explainer.label for cell in plan.cells if cell.observations.choice.name == name}
        for name in ("stability", "fidelity")
    }
    assert of_metric["fidelity"] - of_metric["stability"] == copies
    assert {"picky", "random", "constant"} <= of_metric["stability"]
    named = planned(explainer=("picky", "blurred:picky"), metric=("stability",))
    assert "blurred:picky" in _labels(named)


def test_a_control_that_does_not_apply_is_left_out_and_said(planned: Callable[..., Plan]) -> None:
    plan = planned(explainer=("gradient",), dataset=("fake:masks=false",))
    assert "mask" not in _labels(plan)
    assert any("mask" in str(refusal) and "no expert masks" in refusal.reason for refusal in plan.skipped)


def test_all_incompatible_cells_are_reported_together(planned: Callable[..., Plan]) -> None:
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


def test_combinations_share_what_is_upstream(planned: Callable[..., Plan]) -> None:
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


def test_an_explainer_and_what_it_stands_for_on_the_device_share_all_artifacts(planned: Callable[..., Plan]) -> None:
    names = ("vinet", "vinet:preset=tiny", "vinet:preset=paper", "blurred:vinet", "blurred:vinet:preset=tiny")
    plan = planned(explainer=names, dataset=("fake:size=64",), controls=False)
    assert _labels(plan) == list(names)
    resolved = [cell.maps.resolved.label for cell in plan.cells]
    assert resolved == ["vinet:preset=tiny", *names[1:3], "blurred:vinet:preset=tiny", names[4]]
    prints = [cell.observations.fingerprint for cell in plan.cells]
    assert (prints[0], prints[3]) == (prints[1], prints[4])
    assert len(set(prints)) == 3
    assert [job.kind for job in plan.jobs].count("explainer") == 2
    assert plan.cells[0].maps.explainer.options.preset == "tiny"


def test_the_sign_is_taken_before_a_map_is_blurred_or_inverted(planned: Callable[..., Plan]) -> None:
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
def test_a_fingerprint_changes_with_what_determines_it_and_nothing_else(
    planned: Callable[..., Plan], changed: dict[str, Any], kinds: set[str] | set[Any]
) -> None:
    def fingerprints(plan: Plan) -> dict[str, str]:
        return {job.kind: job.fingerprint for job in plan.jobs}

    before = fingerprints(planned(explainer=("gradient",), controls=False))
    after = fingerprints(planned(explainer=("gradient",), controls=False, **changed))
    assert {kind for kind in before if before[kind] != after[kind]} == kinds


def test_what_is_prepared_for_the_classes_explained_changes_with_them(planned: Callable[..., Plan]) -> None:
    def fingerprints(**words: Any) -> dict[str, str]:
        plan = planned(explainer=("gradient",), metric=("fidelity", "adversarial_stability"), controls=False, **words)
        return {job.label.split()[0]: job.fingerprint for job in plan.jobs if job.kind == "preparation"}

    before, after = fingerprints(), fingerprints(target="true")
    assert {name for name in before if before[name] != after[name]} == {"adversarial_stability"}
    assert len(before) == 2


def test_all_is_every_explainer_that_fits_and_the_others_are_said(planned: Callable[..., Plan]) -> None:
    plan = planned(explainer=("all",), dataset=("fake:masks=false",))
    labels = {cell.explainer.label for cell in plan.cells if not cell.control}
    registry = discover()
    names = [entry.spec.name for entry in registry.of_kind("explainer") if not entry.spec.control]
    refused = {refusal.explainer for refusal in plan.skipped}
    assert {label.partition(":")[0] for label in labels | refused} >= set(names) | {"smoothed", "picky", "mask"}
    assert not labels & refused
    assert "picky" in refused
    assert "gradient" in labels
    # What is made of a refused explainer's maps goes with it, in silence.
    assert not any(refusal.explainer.startswith(("inverted:", "blurred:")) for refusal in plan.skipped)
    assert {f"inverted:{label}" for label in labels} - {"inverted:gradient"} <= {c.explainer.label for c in plan.cells}


def test_an_explainer_named_beside_all_is_there_once_and_must_fit(planned: Callable[..., Plan]) -> None:
    plan = planned(explainer=("all", "input-x-gradient"), controls=False)
    assert _labels(plan).count("input-x-gradient") == 1
    with pytest.raises(UserError, match="no expert masks"):
        planned(explainer=("all", "picky"), dataset=("fake:masks=false",), controls=False)


def test_an_explainer_of_an_explainer_has_a_default(planned: Callable[..., Plan]) -> None:
    assert _labels(planned(explainer=("smoothed",), controls=False)) == ["smoothed:input-x-gradient"]
    assert _labels(planned(explainer=("smoothed:gradient",), controls=False)) == ["smoothed:gradient"]
    with pytest.raises(UserError, match="inverted needs an argument"):
        planned(explainer=("inverted",))


def test_a_feature_is_made_once_for_all_who_ask(planned: Callable[..., Plan]) -> None:
    plan = planned(explainer=("lime", "kernelshap", "feature-ablation"), controls=False, sign="both")
    kinds = [job.kind for job in plan.jobs]
    assert kinds.count("maps") == 3
    assert kinds.count("feature") == 1


def test_a_picture_of_each_model_joins_unless_it_is_not_wanted(planned: Callable[..., Plan]) -> None:
    words = {"explainer": ("gradient",), "metric": ("fidelity",), "model": ("tiny", "tiny:width=4"), "controls": False}
    assert [job.kind for job in planned(**words, model_view=True).jobs].count("view") == 2
    assert "view" not in [job.kind for job in planned(**words).jobs]
