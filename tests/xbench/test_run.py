"""Whole runs through the command line, on tiny rendered data and a tiny network."""

import json

import numpy as np
import pandas as pd
import pytest

from xbench.results import read_header, read_scores

STRANGER = """
    from xbench import DatasetSpec, Explainer, ExplainerSpec, ImageFeature, Metric, MetricSpec, Options, hookimpl
    from xbench.testing import fakes
    from xbench.testing.fakes import FakeDataset, FakeOptions, xbench_models

    @hookimpl
    def xbench_datasets():
        yield from fakes.xbench_datasets()
        yield DatasetSpec("hollow", "lacks something", factory="stranger:Hollow", options="stranger:HollowOptions")

    @hookimpl
    def xbench_explainers():
        for name, factory in (("raising", "Raising"), ("nan", "Nan"), ("flat", "Flat"), ("unmakeable", "Unmakeable")):
            yield ExplainerSpec(name, "at fault", factory=f"stranger:{factory}")
        yield ExplainerSpec("refusing", "never fits", factory="stranger:Refusing")
        yield ExplainerSpec("late", "fits no trained model", factory="stranger:Late")
        yield ExplainerSpec("twofold", "the gradient twice as large", factory="stranger:Twofold")
        yield ExplainerSpec("median", "above the image's median", factory="stranger:AboveMedian")

    class Hollow(FakeDataset):
        # Its test split is empty, or lacks a class.
        def __init__(self, options):
            super().__init__(FakeOptions())
            self.kind = options.kind

        def load(self, split, folder):
            whole = super().load(split, folder)
            if split != "test":
                return whole
            return whole.select([] if self.kind == "empty" else (whole.labels == 0).nonzero()[0])

    class HollowOptions(Options):
        kind: str = "empty"

    class NeedsMasks(Metric):
        needs = frozenset({"masks"})

        def observe(self, case):
            return {"inside": case.split.batch(range(len(case.split))).masks.flatten(1).float().mean(1).numpy()}

        def summarise(self, observations):
            return float(observations["inside"].mean())

    @hookimpl
    def xbench_metrics():
        yield MetricSpec("needsmasks", "of masks", factory="stranger:NeedsMasks")
        yield MetricSpec("curious", "asks for everything", factory="stranger:Curious")
        yield MetricSpec("through", "asks for an explainer that there is not", factory="stranger:Through")

    class Raising(Explainer):
        def attribute(self, model, images, targets):
            raise ValueError("inside attribute")

    class Nan(Explainer):
        def attribute(self, model, images, targets):
            return images[:, 0] * float("nan")

    class Flat(Explainer):
        def attribute(self, model, images, targets):
            return images

    class Unmakeable(Explainer):
        def __init__(self, options):
            raise RuntimeError("in the constructor")

    class Late(Explainer):
        def supports(self, model, info):
            moved = any(buffer.dtype.is_floating_point and buffer.ne(0).any() for name, buffer in model.named_buffers()
                        if "running_mean" in name)
            return "its batch norms have moved" if moved else None

        def attribute(self, model, images, targets):
            return images[:, 0]

    class Twofold(Explainer):
        def attribute(self, model, images, targets):
            from xbench.passes import gradients

            return 2 * gradients(model, images, targets).sum(1)

    class Median(ImageFeature):
        def __init__(self):
            super().__init__("median", {}, "float32")

        def shape(self, spatial):
            return (1,)

        def compute(self, image):
            import numpy as np

            return np.median(image, keepdims=True)[0, 0]

    class AboveMedian(Explainer):
        feature = Median()

        def attribute_batch(self, model, batch, targets):
            return batch.images.sum(1) - batch.feature[:, :, None]

    class Curious(Metric):
        needs = frozenset({"train", "explain"})
        feature = Median()
        dear = True

        def observe(self, case):
            import copy
            import numpy as np
            import torch

            count, train = len(case.split), case.train
            batch, targets = case.split.batch(range(count)), torch.from_numpy(case.targets)
            again = case.explanation.maps(batch, targets).numpy()
            other = copy.deepcopy(case.explanation.model)
            for parameter in other.parameters():
                parameter.data = torch.rand_like(parameter) - 0.5
            changed = case.explanation.maps(batch, targets, other).numpy()
            of_train = case.explanation.maps(train.split.batch(range(4)), torch.from_numpy(train.targets[:4])).numpy()
            return {
                "again": abs(again - case.maps[:count]).reshape(count, -1).max(1),
                "changed": abs(changed - case.maps[:count]).reshape(count, -1).max(1),
                "train": np.full(count, abs(of_train - train.maps[:4]).max()),
                "train_size": np.full(count, len(train.split) - len(train.maps)),
                "feature": case.feature[:count, 0] - np.median(batch.images.numpy().reshape(count, -1), 1),
                "forward": np.full(count, case.cost["forward_passes"]),
                "backward": np.full(count, case.cost["backward_passes"]),
                "memory": np.full(count, case.cost["peak_bytes"]),
                "negative": (case.maps[:count] < 0).any((1, 2)),
            }

        def summarise(self, observations):
            return float(observations["again"].max())

    class Through(Metric):
        needs = frozenset({"masked"})

        def observe(self, case):
            return {}

        def summarise(self, observations):
            return 0.0

    class Refusing(Explainer):
        def supports(self, model, info):
            return "it has no such layer"

        def attribute(self, model, images, targets):
            return images[:, 0]
"""
TINY = ("--dataset", "fake", "--model", "tiny:epochs=3", "--resamples", "200", "--batch-size", "16")


@pytest.fixture
def tiny(shelf, command):
    shelf.install("stranger", STRANGER)

    def run(*words, **more):
        return command("run", *TINY, *words, **more)

    return run


@pytest.mark.slow
def test_a_run_leaves_a_table_and_a_whole_folder(tiny, tmp_path):
    done = tiny("--explainer", "gradient", "--sign", "both", "--out", "run")
    assert done.returncode == 0, done.stderr
    assert "gradient" in done.stdout
    assert "AUC" in done.stdout
    folder = tmp_path / "run"
    rows, header = read_scores(folder / "scores.csv"), read_header(folder / "run.json")
    assert {row.explainer for row in rows} == {"gradient", "random", "constant", "centre", "edges", "mask"}
    assert {row.sign for row in rows} == {"original", "absolute"}
    for row in rows:
        assert row.status == "ok"
        assert row.ci_low <= row.value <= row.ci_high
        assert 1 <= row.rank <= row.rank_high <= 6
        assert row.control == (row.explainer != "gradient")
        assert row.card in header.cards
    cards = {row.sign: row.card for row in rows}
    assert cards["original"] != cards["absolute"]
    assert header.command[:2] == ["xbench", "run"]
    assert header.models[0]["metrics"]["auc"][0] > 0
    frame = pd.read_parquet(folder / "observations" / "fidelity.parquet")
    assert len(frame) == sum(row.n for row in rows)
    assert frame["target"].isin([0, 1]).all()
    for name in ("scores", "curves", "training", "gallery", "models"):
        for ending in (".png", ".svg"):
            assert list((folder / name).glob(f"*{ending}")), (name, ending)
    assert not list(tmp_path.glob(".run*"))


@pytest.mark.slow
def test_the_same_line_again_gives_the_same_numbers_from_the_cache(tiny, tmp_path):
    assert tiny("--explainer", "gradient", "--out", "one").returncode == 0
    planned = tiny("--explainer", "gradient", "--dry-run")
    assert "to make" not in planned.stdout
    again = tiny("--explainer", "gradient", "--out", "two")
    assert again.returncode == 0
    assert (tmp_path / "one" / "scores.csv").read_bytes() == (tmp_path / "two" / "scores.csv").read_bytes()


@pytest.mark.slow
def test_a_score_does_not_depend_on_its_company(tiny, tmp_path):
    words = ("--explainer", "gradient", "--no-controls")
    alone = tiny(*words, "--out", "alone", cache=tmp_path / "cache-1")
    many = tiny("--explainer", "gradient", "--explainer", "edges", "--out", "many", cache=tmp_path / "cache-2")
    assert alone.returncode == many.returncode == 0
    (row,) = read_scores(tmp_path / "alone" / "scores.csv")
    same = next(item for item in read_scores(tmp_path / "many" / "scores.csv") if item.explainer == "gradient")
    assert (row.value, row.ci_low, row.ci_high, row.fingerprint) == (
        same.value,
        same.ci_low,
        same.ci_high,
        same.fingerprint,
    )


@pytest.mark.slow
def test_another_batch_size_moves_no_score(tiny, tmp_path):
    for size in ("1", "7", "64"):
        done = tiny("--explainer", "gradient", "--batch-size", size, "--out", size)
        assert done.returncode == 0, done.stderr
    values = [
        {row.explainer: row.value for row in read_scores(tmp_path / size / "scores.csv")} for size in ("1", "7", "64")
    ]
    for name, value in values[0].items():
        np.testing.assert_allclose([other[name] for other in values], value, atol=1e-4)


@pytest.mark.slow
def test_faulty_plugins_are_reported_with_their_distribution_and_the_rest_goes_on(tiny, shelf, tmp_path):
    shelf.install("unimportable", "import nothing_of_that_name")
    words = [word for name in ("gradient", "raising", "nan", "flat", "unmakeable") for word in ("--explainer", name)]
    done = tiny(*words, "--no-controls", "--out", "run")
    assert done.returncode == 3
    assert "Traceback" not in done.stderr
    assert "unimportable" in done.stderr
    assert "unmakeable (stranger 1.0)" in done.stderr
    rows = {row.explainer: row for row in read_scores(tmp_path / "run" / "scores.csv")}
    assert rows["gradient"].status == "ok"
    for name, words in {
        "raising": "ValueError: inside attribute",
        "nan": "NaN or infinity",
        "flat": "expected (",
        "unmakeable": "RuntimeError: in the constructor",
    }.items():
        assert rows[name].status == "failed"
        assert "(stranger 1.0)" in rows[name].reason
        assert words in rows[name].reason
        assert np.isnan(rows[name].value)
        assert name in done.stdout


@pytest.mark.slow
def test_a_run_of_nothing_but_a_broken_explainer_ends_with_its_fault(tiny, tmp_path):
    done = tiny("--explainer", "unmakeable", "--no-controls", "--out", "run")
    assert done.returncode == 3
    assert "unmakeable (stranger 1.0) can't be made: RuntimeError: in the constructor" in done.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_user_mistakes_are_one_line_and_leave_nothing(tiny, tmp_path):
    mistakes = {
        ("--explainer", "gradeint"): "did you mean gradient",
        ("--explainer", "gradient:colour=red"): "no option 'colour'",
        ("--explainer", "gradient", "--metric", "fidelity:step=0.3"): "step",
        ("--explainer", "gradient", "--target", "7"): "target '7'",
        ("--explainer", "refusing"): "it has no such layer",
        ("--explainer", "mask", "--dataset", "fake:masks=false"): "mask",
        ("--explainer", "gradient", "--model", "tiny:weights=nowhere.safetensors"): "nowhere.safetensors do not exist",
        ("--explainer", "gradient", "--device", "tpu9"): "device 'tpu9'",
        ("--explainer", "gradient", "--limit", "1"): "--limit 1",
        ("--explainer", "gradient", "--dataset", "fake:masks=false", "--metric", "needsmasks"): "needs expert masks",
    }
    for words, expected in mistakes.items():
        done = tiny(*words, "--out", "run")
        assert done.returncode == 2, (words, done.stderr)
        last = done.stderr.strip().splitlines()[-1]
        assert expected in done.stderr, (words, done.stderr)
        assert "Traceback" not in done.stderr
        assert len(last) < 400
        assert not (tmp_path / "run").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "words"),
    [("empty", "the test split is empty"), ("oneclass", "the test split has no sample of class ring")],
)
def test_a_dataset_that_lacks_something_is_one_line(shelf, command, tmp_path, kind, words):
    shelf.install("stranger", STRANGER)
    line = ("run", "--explainer", "gradient", "--dataset", f"hollow:kind={kind}", "--model", "tiny:epochs=1")
    done = command(*line, "--out", "run")
    assert done.returncode == 2
    complaints = [line for line in done.stderr.splitlines() if "error" in line or "warning" in line]
    assert complaints == [f"error: dataset fake: {words}"]
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_an_out_folder_that_holds_something_is_refused_before_anything_runs(tiny, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.txt").write_text("mine")
    done = tiny("--explainer", "gradient", "--out", "run")
    assert done.returncode == 2
    assert "not empty" in done.stderr
    assert (tmp_path / "run" / "thesis.txt").read_text() == "mine"
    assert not (tmp_path / "cache" / "artifacts").exists()


@pytest.mark.slow
def test_a_cache_or_run_folder_that_cant_be_written_is_one_line(tiny, tmp_path):
    (tmp_path / "file").write_text("not a folder")
    out = tiny("--explainer", "gradient", "--out", "file/run")
    assert out.returncode == 2
    assert "can't be made" in out.stderr
    cache = tiny("--explainer", "gradient", "--out", "run", cache=tmp_path / "file" / "cache")
    assert cache.returncode == 1
    assert "XBENCH_CACHE" in cache.stderr.strip().splitlines()[-1]
    assert "internal" not in out.stderr + cache.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_classifier_that_learned_nothing_is_warned_about(tiny, tmp_path):
    done = tiny("--explainer", "gradient", "--model", "tiny:epochs=0", "--no-controls", "--out", "run")
    assert done.returncode == 0, done.stderr
    assert "learned nothing" in done.stderr
    assert any(
        "learned nothing" in text for text in json.loads((tmp_path / "run" / "run.json").read_text())["warnings"]
    )


@pytest.mark.slow
def test_the_users_own_weights_are_used_and_pickles_need_a_word(tiny, tmp_path):
    import torch
    from safetensors.torch import load_file

    assert tiny("--explainer", "gradient", "--no-controls", "--out", "trained").returncode == 0
    (weights,) = (tmp_path / "cache" / "artifacts" / "model").glob("*/weights.safetensors")
    words = ("--explainer", "gradient", "--no-controls", "--model")
    trained = read_scores(tmp_path / "trained" / "scores.csv")[0]
    assert tiny(*words, f"tiny:weights={weights}", "--out", "given").returncode == 0
    given = next(row for row in read_scores(tmp_path / "given" / "scores.csv") if "weights" in row.model)
    assert given.value == trained.value
    pickled = tmp_path / "weights.pt"
    torch.save(load_file(weights), pickled)
    refused = tiny(*words, f"tiny:weights={pickled}", "--out", "refused")
    assert refused.returncode == 2
    assert "--allow-pickle" in refused.stderr
    assert tiny(*words, f"tiny:weights={pickled}", "--allow-pickle", "--out", "allowed").returncode == 0
    allowed = next(row for row in read_scores(tmp_path / "allowed" / "scores.csv") if "weights" in row.model)
    assert allowed.value == trained.value
    unfit = tiny(*words, f"tiny:width=4,weights={weights}", "--out", "unfit")
    assert unfit.returncode == 2
    assert "do not fit the model" in unfit.stderr


@pytest.mark.slow
def test_a_file_says_the_same_as_the_line(tiny, tmp_path):
    assert tiny("--explainer", "gradient", "--out", "line").returncode == 0
    (tmp_path / "study.toml").write_text('explainer = ["gradient"]\nout = "file"\n')
    assert tiny("--config", "study.toml").returncode == 0
    assert (tmp_path / "line" / "scores.csv").read_bytes() == (tmp_path / "file" / "scores.csv").read_bytes()


@pytest.mark.slow
def test_explainers_with_the_same_maps_share_one_rank(tiny, tmp_path):
    done = tiny("--explainer", "twofold", "--explainer", "input-x-gradient", "--sign", "both", "--out", "run")
    assert done.returncode == 0, done.stderr
    rows = read_scores(tmp_path / "run" / "scores.csv")
    same = {row.explainer: row.same_as for row in rows if row.same_as}
    assert same == {"gradient": "twofold"}
    for sign in ("original", "absolute"):
        ranked = {row.explainer: row for row in rows if row.sign == sign}
        assert ranked["gradient"].rank == ranked["twofold"].rank
        assert ranked["gradient"].rank_set == ranked["twofold"].rank_set
        assert "gradient" not in ranked["twofold"].rank_set
        assert ranked["gradient"].value == pytest.approx(ranked["twofold"].value, abs=1e-6)
        # A method under two names does not take two places.
        assert max(row.rank_high for row in ranked.values()) == len(ranked) - 1
    assert "gradient = twofold" in done.stdout


@pytest.mark.slow
def test_a_trained_model_is_asked_again_and_a_feature_is_made(tiny, tmp_path):
    model = ("--model", "tiny:epochs=2,batch_norm=true")
    done = tiny(*model, "--explainer", "late", "--explainer", "median", "--no-controls", "--out", "run")
    assert done.returncode == 2
    rows = {row.explainer: row for row in read_scores(tmp_path / "run" / "scores.csv")}
    assert rows["late"].status == "failed"
    assert "its batch norms have moved" in rows["late"].reason
    assert rows["median"].status == "ok"
    (made,) = (tmp_path / "cache" / "artifacts" / "feature").glob("*/features.npy")
    maps = list((tmp_path / "cache" / "artifacts" / "maps").glob("*/maps.npy"))
    assert np.load(made).shape == (12, 1)
    assert any(abs(np.median(np.load(path)[0])) < 1e-6 for path in maps)


@pytest.mark.slow
def test_a_metric_gets_what_it_needs(tiny, tmp_path):
    explainers = (
        "--explainer",
        "gradient",
        "--explainer",
        "blurred:twofold",
        "--explainer",
        "expected-gradients:samples=3",
    )
    done = tiny(*explainers, "--metric", "curious", "--sign", "both", "--out", "run")
    assert done.returncode == 0, done.stderr
    frame = pd.read_parquet(tmp_path / "run" / "observations" / "curious.parquet")
    named = {"gradient", "blurred:twofold", "expected-gradients:samples=3"}
    controls = {"random", "constant", "centre", "edges", "mask"}
    # It is dear: no inverted and blurred copies of what the user named.
    assert set(frame["explainer"]) == named | controls
    assert frame["again"].abs().max() < 1e-5
    assert frame["train"].abs().max() < 1e-5
    assert (frame["train_size"] == 0).all()
    assert frame["feature"].abs().max() < 1e-6
    assert (frame["memory"] > 1e6).all()
    mine = frame[frame["explainer"].isin(named)]
    assert (mine["changed"] > 1e-4).all()
    assert not mine[mine["sign"] == "absolute"]["negative"].any()
    assert mine[mine["sign"] == "original"]["negative"].all()
    images = {name: 12 * (3 if "samples" in name else 1) for name in named}
    for name, count in images.items():
        assert (mine[mine["explainer"] == name]["backward"] == count).all(), name
    assert (frame[frame["explainer"] == "random"]["forward"] == 0).all()


@pytest.mark.slow
def test_all_metrics_are_those_that_fit(tiny, tmp_path):
    done = tiny("--explainer", "gradient", "--metric", "all", "--dry-run")
    assert done.returncode == 0, done.stderr
    for name in ("fidelity", "curious", "needsmasks"):
        assert f"{name} of gradient" in done.stdout
    assert "gradient x through on fake: metric through needs an explainer whose own classifier" in done.stdout
    refused = tiny("--explainer", "gradient", "--metric", "through", "--out", "run")
    assert refused.returncode == 2
    assert "whose own classifier reads through its maps" in refused.stderr
