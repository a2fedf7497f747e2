"""What a report holds: from a real run, and from run folders written by hand."""

from __future__ import annotations

import csv
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from xbench.errors import UserError
from xbench.results.curves import read_curves
from xbench.results.gallery import read_galleries
from xbench.results.rows import read_scores

if TYPE_CHECKING:
    from tests.xbench.report.conftest import RunFolder


EXPLAINERS = {"vinet": 0.6, "smoothgrad": 0.6, "gradient": 0.3, "random": 0.0}


def data_of(path: Path) -> tuple[Any, Any]:
    """What a data script hands to the page: its name and the object."""
    found = re.fullmatch(r'xbenchData\(("[^"]+"), (.*)\);\n', path.read_text(), re.S)
    return json.loads(found[1]), json.loads(found[2])


@pytest.mark.slow
def test_a_real_run_becomes_a_whole_page(
    tiny: Callable[..., CompletedProcess[str]], command: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    assert tiny("--explainer", "gradient", "--out", "run", pictures=True).returncode == 0
    done = command("report", "run", "--title", "Tiny & small")
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "run" / "report"
    assert done.stdout == "report: run/report/index.html\n"
    page = (folder / "index.html").read_text()
    assert "<h1>Tiny &amp; small</h1>" in page
    assert "xbench run --dataset fake" in page
    assert 'aria-label="Calibration of tiny' in page
    assert "Images that maximise each class’s score" in page
    name, place = data_of(folder / "data" / "place-0.js")
    assert name == "place-0"
    rows = {(row.explainer, row.sign): row for row in read_scores(tmp_path / "run" / "scores.csv")}
    shown = {(row["e"], one["sign"]): row for one in place["ranking"]["rankings"] for row in one["rows"]}
    assert shown.keys() == rows.keys()
    for key, row in rows.items():
        assert shown[key]["v"] == pytest.approx(row.value, rel=1e-5)
        assert shown[key]["r"] == [row.rank, row.rank_high]
        assert bool(shown[key].get("c")) == row.control
    (found,) = read_galleries(tmp_path / "run")
    assert "gradient" in found.explainers
    assert len(found.ids) <= 24
    _, gallery = data_of(folder / "data" / "gallery-0.js")
    assert [one["name"] for one in gallery["explainers"]] == list(found.explainers)
    (table,) = read_curves(tmp_path / "run")
    assert {one.label for one in table.series} == {row.explainer for row in rows.values()}
    assert all(sorted(one.roles.values()) == ["least_first", "most_first"] for one in table.series)
    for kind in ("svg", "pdf"):
        assert len(list((folder / "figures").glob(f"*.{kind}"))) == 2  # scores and curves
    assert all(path.read_bytes().startswith(b"%PDF") for path in (folder / "figures").glob("*.pdf"))


def test_reports_need_neither_torch_nor_plugins() -> None:
    modules = "xbench.cli.report_command, xbench.report.page, xbench.report.panels, xbench.comparison"
    code = f"import sys, {modules}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"torch", "xbench_metrics", "xbench_baselines", "xbench.run.plan"} & set(done.stdout.split())


def test_names_are_text_whatever_they_hold(
    run_folder: type[RunFolder], report: Callable[..., str], tmp_path: Path
) -> None:
    evil = "</script><script>alert(1)</script><img src=x onerror=alert(2)>"
    run = run_folder(tmp_path / "run", EXPLAINERS | {evil: 0.4}, models=("net", evil), metrics=("fidelity", evil))
    run.scores().header(warnings=[evil], command=["xbench", evil]).curves().gallery()
    report(run.path, "--title", evil, "--no-figures")
    folder = run.path / "report"
    page = (folder / "index.html").read_text()
    assert "<script>alert" not in page
    assert "<img src=x" not in page
    ours = page.count('<script defer src="assets/') + page.count('<script defer src="data/')
    assert page.count("<script") == ours == 9
    assert "&lt;/script&gt;&lt;script&gt;alert(1)" in page
    for path in (folder / "data").iterdir():
        assert "<" not in path.read_text()
    names = {path.name for path in folder.rglob("*")}
    assert not any(set(name) & set('<>:"|?*') for name in names)
    _, place = data_of(folder / "data" / "place-0.js")
    assert evil in [row["e"] for row in place["ranking"]["rankings"][0]["rows"]]


def test_controls_rank_sets_warnings_twins_and_failures_are_said(
    run_folder: type[RunFolder], report: Callable[..., str], tmp_path: Path
) -> None:
    run = run_folder(tmp_path / "run", EXPLAINERS).scores(
        smoothgrad={"warning": "its training failed"}, gradient={"same_as": "vinet", "status": "ok"}
    )
    run.header()
    with (run.path / "scores.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    rows.append(rows[0] | {"explainer": "broken", "value": "", "status": "failed", "reason": "out of memory"})
    with (run.path / "scores.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    report(run.path, "--no-figures")
    _, place = data_of(run.path / "report" / "data" / "place-0.js")
    shown = {row["e"]: row for row in place["ranking"]["rankings"][0]["rows"]}
    assert shown["random"]["c"] is True
    assert shown["smoothgrad"]["w"] == "its training failed"
    assert shown["gradient"]["same"] == "vinet"
    assert place["ranking"]["missing"] == [
        {"metric": "fidelity", "sign": "original", "e": "broken", "status": "failed", "why": "out of memory"}
    ]
    order = [row["e"] for row in place["ranking"]["rankings"][0]["rows"]]
    assert [order[index] for index in shown["vinet"]["s"]] == ["smoothgrad"]


def test_two_runs_are_one_report(run_folder: type[RunFolder], report: Callable[..., str], tmp_path: Path) -> None:
    others = {"vinet": 0.6, "lime": 0.5, "random": 0.0}
    for name, explainers in (("one", EXPLAINERS), ("two", others)):
        run = run_folder(tmp_path / name, explainers, metrics=("fidelity", f"metric-{name}"))
        run.scores().header().curves().gallery()
    report(tmp_path / "one", tmp_path / "two", "--out", tmp_path / "both", "--no-figures")
    _, index = data_of(tmp_path / "both" / "data" / "report.js")
    assert [(place["model"], place["metrics"]) for place in index["places"]] == [
        ("net", ["fidelity", "metric-one", "metric-two"])
    ]
    assert [one["run"] for one in index["panels"]["gallery"]] == ["one", "two"]
    _, place = data_of(tmp_path / "both" / "data" / "place-0.js")
    curves = next(one for one in place["curves"] if one["metric"] == "fidelity")
    assert [one["e"] for one in curves["series"]] == [*EXPLAINERS, "lime"]  # the same curve once


def test_a_report_is_replaced_and_nothing_else_is(
    run_folder: type[RunFolder], report: Callable[..., str], tmp_path: Path
) -> None:
    run = run_folder(tmp_path / "run", EXPLAINERS).scores().header()
    report(run.path, "--out", tmp_path / "page", "--no-figures")
    (tmp_path / "page" / "old.txt").write_text("of the last report")
    report(run.path, "--out", tmp_path / "page", "--no-figures", "--title", "again")
    assert "<h1>again</h1>" in (tmp_path / "page" / "index.html").read_text()
    assert not (tmp_path / "page" / "old.txt").exists()
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.tex").write_text("years of work")
    with pytest.raises(UserError, match="is not a report") as caught:
        report(run.path, "--out", mine, "--no-figures")
    assert "--out" in caught.value.hint
    assert (mine / "thesis.tex").read_text() == "years of work"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine", "page", "run"]


def test_a_run_without_arrays_still_gives_a_page(
    run_folder: type[RunFolder], report: Callable[..., str], tmp_path: Path
) -> None:
    run = run_folder(tmp_path / "run", EXPLAINERS).scores(replicates=False).header(models=[])
    report(run.path, "--no-figures")
    page = (run.path / "report" / "index.html").read_text()
    for absent in ('id="gallery"', 'id="counterfactuals"', 'id="paper"', 'id="models"'):
        assert absent not in page


def test_a_damaged_gallery_is_named(run_folder: type[RunFolder], report: Callable[..., str], tmp_path: Path) -> None:
    run = run_folder(tmp_path / "run", EXPLAINERS).scores().header().gallery()
    path = run.path / "gallery" / "phantom--net.npz"
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(UserError, match=r"phantom--net\.npz"):
        report(run.path, "--no-figures")
    assert not (run.path / "report").exists()


def test_a_gallery_is_read_as_written(run_folder: type[RunFolder], tmp_path: Path) -> None:
    run = run_folder(tmp_path / "run", EXPLAINERS)
    wanted = run.gallery_arrays("net", 6, (8, 9))
    run.gallery(size=(8, 9))
    (found,) = read_galleries(run.path)
    for name, value in vars(wanted).items():
        np.testing.assert_array_equal(getattr(found, name), value)


def test_the_papers_numbers_stand_beside_ours(
    run_folder: type[RunFolder], report: Callable[..., str], tmp_path: Path
) -> None:
    run = run_folder(tmp_path / "run", EXPLAINERS).scores().header()
    columns = "table,citation,method,metric,explainer,sign,model,value,ci_low,ci_high"
    lines = ["T1,Author 2020,VINet,fidelity,vinet,original,net,0.71,0.6,0.8"]
    lines += ["T1,Author 2020,Other,fidelity,absent,original,net,0.5,,"]
    (run.path / "paper.csv").write_text("\r\n".join([columns, *lines, ""]))
    report(run.path, "--no-figures")
    page = (run.path / "report" / "index.html").read_text()
    assert "Beside the paper" in page
    assert "0.710" in page
    assert "[0.600, 0.800]" in page
    ours = next(row.value for row in read_scores(run.path / "scores.csv") if row.explainer == "vinet")
    assert f"{ours:.3f}" in page.split('id="paper"')[1]


def test_pictures_of_a_run_are_named_by_what_they_show(
    run_folder: type[RunFolder], report: Callable[..., str], tmp_path: Path
) -> None:
    run = run_folder(tmp_path / "run", EXPLAINERS, models=("net--calibration",)).scores().header()
    names = {
        "phantom--net--calibration": "Images that maximise each class’s score",  # the name ends like a diagram's
        "phantom--net--calibration--calibration": "Calibration",
    }
    (run.path / "models").mkdir()
    for name in names:
        (run.path / "models" / f"{name}.svg").write_text("<svg/>")
    report(run.path, "--no-figures")
    page = (run.path / "report" / "index.html").read_text()
    for name, words in names.items():
        assert f"<figcaption>{words}: {name}</figcaption>" in page
