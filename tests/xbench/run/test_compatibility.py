"""Which explainer can explain which model: tried, with the reason where it can't."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from xbench import DatasetInfo, UserError
from xbench.registry.discovery import discover
from xbench.registry.references import choose
from xbench.request.selection import all_explainers
from xbench.run.compatibility import Verdict, markdown, verdicts

if TYPE_CHECKING:
    from tests.conftest import Shelf


INFO = DatasetInfo("random", ("a", "b", "c"), 1, (64, 64))
DOCS = Path(__file__).parents[3] / "docs" / "explainers"
# One of each kind of architecture that is quick enough for every run of the tests.
QUICK = ("convnet", "timm:resnet18")


def _try(explainers: Sequence[str], models: Sequence[str], info: DatasetInfo = INFO) -> list[Any]:
    registry = discover()
    chosen = [choose("explainer", name, registry) for name in explainers]
    return list(verdicts(chosen, [choose("model", name, registry) for name in models], info))


def test_what_works_and_what_does_not() -> None:
    found = _try(["gradient", "mask", "deconvolution", "expected-gradients", "xrai:gradient"], ["convnet"])
    assert [verdict.works for verdict in found] == [True, False, True, True, True]
    assert found[1].reason == "dataset random has no expert masks"
    assert found[4].explainer == "xrai:gradient"


def test_a_refusal_of_the_inner_explainer_is_the_outers() -> None:
    (verdict,) = _try(["xrai:mask"], ["convnet"])
    assert verdict.reason == "dataset random has no expert masks"


def test_a_model_that_cant_be_built_is_a_reason_for_all() -> None:
    found = _try(["gradient", "edges"], ["convnet"], DatasetInfo("random", ("a", "b"), 1, (4, 4)))
    assert all("too small" in verdict.reason for verdict in found)


def test_a_misspelt_model_is_an_error_not_a_verdict() -> None:
    with pytest.raises(UserError, match="no classifier 'restnet'"):
        _try(["gradient"], ["timm:restnet"])


def test_maps_without_contrast_do_not_count() -> None:
    (verdict,) = _try(["constant"], ["convnet"])
    assert verdict.reason == "its maps are the same everywhere"


CANDID = """
    from xbench import Explainer, ExplainerSpec, Options, hookimpl

    class CandidOptions(Options):
        epochs: int | None = None
        samples: int = 3
        window: int = 2
        stride: int | None = None

    class Candid(Explainer):
        def supports(self, model, info):
            return str(self.options)

    @hookimpl
    def xbench_explainers():
        yield ExplainerSpec("candid", "says its options", factory="candid:Candid", options="candid:CandidOptions")
"""


@pytest.mark.parametrize(
    ("given", "tried"),
    [
        ("", "epochs=1 samples=3 window=16 stride=16"),  # a quarter of the image's side
        (":epochs=0,samples=100,window=20", "epochs=0 samples=24 window=20 stride=20"),
        (":epochs=9,stride=1", "epochs=1 samples=3 window=2 stride=1"),  # windows as the user wants them
    ],
)
def test_what_makes_an_explainer_slow_is_cut_for_a_trial(shelf: Shelf, given: str, tried: str) -> None:
    shelf.install("candid", CANDID)
    (verdict,) = _try([f"candid{given}"], ["convnet"])
    assert verdict.reason == tried


def test_the_page_gives_each_reason_once_and_works_only_where_all_kinds_do() -> None:
    found = [
        Verdict("a", "m"), Verdict("b", "m", "no ReLU"), Verdict("c", "m", "no ReLU"),
        Verdict("a", "m", "too large"), Verdict("b", "m"), Verdict("c", "m", "other"),
    ]  # fmt: skip
    page = markdown(found, "xbench supports")
    assert "| `a` | [2] |" not in page
    assert re.findall(r"\| `(\w)` \| (\S+) \|", page) == [("a", "[1]"), ("b", "[2]"), ("c", "[2]")]
    assert "1. too large\n2. no ReLU\n" in page


def test_a_long_command_is_broken_before_options_and_stays_one_command() -> None:
    command = " ".join(
        ["xbench supports", *(f"--model timm:resnet18:number={number}" for number in range(9)), "--size 64"]
    )
    lines = markdown([Verdict("a", "m")], command).split("```")[1].strip().split("\n")
    assert len(lines) > 2
    assert max(map(len, lines)) <= 120
    assert all(line.endswith(" \\") for line in lines[:-1])
    assert " ".join(line.removesuffix("\\") for line in lines).split() == command.split()


@pytest.mark.slow
@pytest.mark.parametrize(("page", "suffix"), [("compatibility.md", ""), ("compatibility-one-logit.md", ":logits=one")])
def test_the_pages_of_the_documentation_are_what_the_command_gives(page: str, suffix: str) -> None:
    text = (DOCS / page).read_text(encoding="utf-8")
    header, *rows = [
        [cell.strip(" `") for cell in line.strip("|\n").split("|")]
        for line in text.splitlines()
        if line.startswith("|") and "---" not in line
    ]
    reasons = dict(re.findall(r"^(\d+)\. (.*)$", text, re.M))
    explainers = [choice.label for choice in all_explainers(discover())]
    assert [row[0] for row in rows] == explainers
    models = [model + suffix for model in QUICK if not suffix or model.startswith("timm")]
    assert set(models) <= set(header[1:])
    info = DatasetInfo("random", ("a", "b") if suffix else ("a", "b", "c"), 1, (64, 64))
    for verdict in _try(explainers, models, info):
        cell = rows[explainers.index(verdict.explainer)][header.index(verdict.model)]
        assert (cell == "yes") == verdict.works, verdict
        if not verdict.works:
            # Numbers in a reason are of the machine that measured them.
            written = reasons[cell.strip("[]")]
            assert re.sub(r"[\d.e+-]+", "#", written) == re.sub(r"[\d.e+-]+", "#", verdict.reason)
