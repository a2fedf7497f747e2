from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest


@pytest.fixture
def gpu(script: Callable[[str], ModuleType]) -> ModuleType:
    return script("gpu")


def test_every_script_that_is_run_is_there(gpu: ModuleType) -> None:
    for sizes in (gpu.Sizes(), gpu.REHEARSAL):
        for check in gpu.all_checks(sizes, "cuda"):
            assert (gpu.Path(gpu.__file__).parent / check.words[0]).is_file()


def test_a_rehearsal_runs_what_a_gpu_runs(gpu: ModuleType) -> None:
    both = [gpu.all_checks(sizes, "cuda") for sizes in (gpu.Sizes(), gpu.REHEARSAL)]
    assert [check.name for check in both[0]] == [check.name for check in both[1]]


def test_skipped_cuda_tests_are_not_run_and_a_failed_one_fails(gpu: ModuleType) -> None:
    assert gpu.cuda_tests({"passed": 0, "failed": [], "skipped": ["no NVIDIA GPU"]}).status == "not run"
    assert gpu.cuda_tests({"passed": 5, "failed": ["a"], "skipped": []}).status == "failed"
    assert gpu.cuda_tests({"passed": 5, "failed": [], "skipped": []}).status == "passed"
    assert gpu.cuda_tests({"absent": "no folder"}).status == "not run"


def test_a_map_too_far_away_is_missed_and_named_and_one_that_failed_fails(gpu: ModuleType) -> None:
    near = {"model": "m", "explainer": "near", "difference": 1e-5, "spearman": 1.0, "same_places": 0.99}
    far = near | {"explainer": "far", "difference": 2e-3}
    refused = {"model": "m", "explainer": "other", "refused": "does not fit"}
    assert gpu.equal_maps({"rows": [near, refused]}).status == "passed"
    missed = gpu.equal_maps({"rows": [near, far]})
    assert (missed.status, missed.reason) == ("missed", "far of m 2.0e-03")
    assert gpu.equal_maps({"rows": [near | {"difference": float("nan")}]}).status == "missed"
    assert gpu.equal_maps({"rows": [near, {"model": "m", "explainer": "bad", "error": "boom"}]}).status == "failed"


@pytest.mark.parametrize(("ratio", "status"), [(0.95, "passed"), (1.24, "passed"), (1.26, "missed")])
def test_fidelity_has_to_reach_its_share_of_the_bare_throughput(gpu: ModuleType, ratio: float, status: str) -> None:
    assert gpu.throughput({"ratio": ratio, "ms_a_pass": ratio, "bare_ms_a_pass": 1.0}).status == status


@pytest.mark.parametrize(("theirs", "status"), [(49.0, "missed"), (51.0, "passed")])
def test_the_protocol_is_judged_as_a_whole_against_the_libraries_as_documented(
    gpu: ModuleType, theirs: float, status: str
) -> None:
    part = {"our": 10.0, "documented": theirs, "tuned": 10.0}
    assert gpu.five_times({"all": part, "maps": part | {"difference": 1e-9}}).status == status


@pytest.mark.parametrize(("ratios", "status"), [([1.0, 1.05, 5.0], "passed"), ([1.2, 1.2, 1.0], "missed")])
def test_training_steps_are_judged_by_their_median(gpu: ModuleType, ratios: list[float], status: str) -> None:
    row = {"explainer": "vinet", "precision": "32", "images": 8, "seconds_a_step": 0.1, "peak_mb": 1.0, "peak_of": "it"}
    assert gpu.training({"rows": [row | {"ratios": ratios}]}).status == status


@pytest.mark.parametrize(
    ("accuracy", "area", "importance", "status"),
    [
        (0.9, 0.9, 0.1, "passed"),
        (0.9, 0.5, 0.1, "missed"),
        (0.6, 0.9, 0.1, "missed"),
        (0.9, 0.9, 0.99, "missed"),
    ],
)
def test_the_preset_has_learned_if_it_is_right_and_gives_up_all_but_the_nodule(
    gpu: ModuleType, accuracy: float, area: float, importance: float, status: str
) -> None:
    own = {"shift": 0.0, "epochs": 3, "most_frequent_class": 0.55}
    own |= {"accuracy": accuracy, "pixel_auc": area, "importance_loss": importance}
    other = own | {"shift": 20.0, "accuracy": 1.0, "pixel_auc": 1.0, "importance_loss": 0.1}
    assert gpu.learning({"rows": [own, other]}).status == status


def test_the_main_job_must_give_the_same_numbers_again(gpu: ModuleType) -> None:
    figures = {"cold": 10.0, "warm": 2.0, "found": {"cold": {"pixel AUC": "0.9"}}}
    assert gpu.main_job(figures | {"same": True}).status == "passed"
    assert gpu.main_job(figures | {"same": False}).status == "missed"


def test_a_rehearsal_is_fine_where_something_is_missed_but_not_where_it_failed_or_had_no_time(gpu: ModuleType) -> None:
    def result(status: str, reason: str = "") -> Any:
        return gpu.Result("n", "a", status, reason=reason)

    assert gpu.fine(result("missed"), rehearsal=True)
    assert not gpu.fine(result("missed"), rehearsal=False)
    assert gpu.fine(result("not run", "needs an NVIDIA GPU that CUDA can use"), rehearsal=True)
    assert not gpu.fine(result("not run", "no time left"), rehearsal=True)
    assert not gpu.fine(result("failed"), rehearsal=True)
