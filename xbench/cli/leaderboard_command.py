"""`xbench leaderboard`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import click

_EPILOG = """\b
Examples:
  xbench run --suite quick --seed 1 --out mine
  xbench leaderboard add mine --submitter "Ada Lovelace"
  xbench leaderboard build
  xbench leaderboard show --dataset lidc-phantom --metric fidelity --top 10
  xbench leaderboard site --out public
  xbench leaderboard verify leaderboard/runs/quick-v1-s1-0123456789ab.jsonl
"""

_board = click.option(
    "--board",
    metavar="DIR",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("leaderboard"),
    show_default=True,
    help="Use the leaderboard in this folder.",
)


@click.group("leaderboard", epilog=_EPILOG)
def command() -> None:
    """Hand in runs, check, verify and rank them.

    A leaderboard is a folder. Its runs/*.jsonl hold what was handed in, one file a run. The CSV files beside them are
    derived from these and from nothing else. Rows of another suite, version, metric card or dataset are never ranked
    together.
    """


@command.command("add")
@click.argument("run", type=click.Path(path_type=Path))
@click.option(
    "--submitter", metavar="NAME", default="anonymous", show_default=True, help="Show this name as the submitter."
)
@click.option("--note", metavar="TEXT", default="", help="Keep this note beside the submission.")
@_board
def add(run: Path, submitter: str, note: str, board: Path) -> None:
    """Check the run folder RUN and hand it in.

    All its rows and all of its header are published, except the folders that it names on your machine (--out, --cache).
    A run without a suite gets a suite of its own configuration: it is ranked only with its own repetitions under other
    seeds.
    """
    from xbench.leaderboard import add_run

    path = add_run(run, board, submitter, note, installed_suites())
    click.echo(f"added {path}")
    click.echo("xbench leaderboard build derives the tables")


@command.command("build")
@_board
def build(board: Path) -> None:
    """Derive the CSV files: one for each suite and version, and index.csv."""
    from xbench.leaderboard import build as derive

    for path in derive(board):
        click.echo(f"wrote {path}")


@command.command("check")
@click.argument("files", metavar="[FILE ...]", nargs=-1, type=click.Path(path_type=Path))
@_board
def check(files: tuple[Path, ...], board: Path) -> int:
    """Check submissions, and name every fault by file, line and field.

    Without FILE, all of the leaderboard is checked, its CSV files too. With FILE, these are checked, also against the
    others of the leaderboard, if there is one. The exit code is 2 if there is a fault.
    """
    from xbench.leaderboard import RUNS, check_files, stale, submission_files

    there = submission_files(board) if (board / RUNS).is_dir() or not files else []
    named = {path.absolute() for path in files}
    others = [path for path in there if path.absolute() not in named]
    checked = check_files(files or there, installed_suites(), others if files else ())
    for finding in checked.findings:
        click.echo(str(finding))
    for note in checked.notes:
        click.echo(f"note: {note}")
    old = [] if files or checked.findings else stale(board, checked.submissions)
    for name in old:
        click.echo(f"{board / name}: is not what the submissions give: xbench leaderboard build")
    click.echo(f"{len(checked.submissions)} submissions in order, {len(checked.findings) + len(old)} faults")
    return 2 if checked.findings or old else 0


@command.command("show")
@click.option("--suite", metavar="NAME", default="", help="Show only this suite, or one version of it: quick-v1. [all]")
@click.option("--dataset", metavar="NAME", default="", help="Show only this dataset. [all]")
@click.option("--model", metavar="NAME", default="", help="Show only this classifier. [all]")
@click.option(
    "--metric", "-m", metavar="NAME", default="", help="Show only this metric, with or without options. [all]"
)
@click.option("--sign", type=click.Choice(["original", "absolute"]), help="Show only maps of this sign. [all]")
@click.option("--top", type=click.IntRange(min=1), help="Show at most so many rows of each table. [all]")
@_board
def show(suite: str, dataset: str, model: str, metric: str, sign: str | None, top: int | None, board: Path) -> None:
    """Print the rankings."""
    from xbench.leaderboard import ranked_groups, read_board
    from xbench.leaderboard.display import board_tables, chosen
    from xbench.terminal import results_console

    found = chosen(ranked_groups(read_board(board)), suite, dataset, model, metric, sign or "")
    console = results_console()
    console.print(board_tables(found, top) if found else "no submission yet")


@command.command("site")
@click.option(
    "--out",
    metavar="DIR",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("xbench-leaderboard"),
    show_default=True,
    help="Write the site into this folder.",
)
@_board
def site(out: Path, board: Path) -> None:
    """Make pages of the leaderboard that any static host serves, and that open offline.

    Each suite and version has a page with rankings, intervals, the paired difference of any two explainers, and the
    command behind every row. Reports in the leaderboard's folder reports/<submission> are copied and linked. A site
    that is there already is replaced.
    """
    from xbench.leaderboard import check_files, refuse, submission_files
    from xbench.leaderboard.site import REPORTS, write_site

    checked = check_files(submission_files(board), {})
    refuse(checked.findings)
    click.echo(f"site: {write_site(checked.submissions, out, board / REPORTS)}")


@command.command("verify")
@click.argument("submission", type=click.Path(path_type=Path))
@click.option(
    "--sample",
    metavar="N",
    type=click.IntRange(min=1),
    default=5,
    show_default=True,
    help="Compute so many cells again.",
)
@click.option("--seed", type=click.IntRange(min=0), help="Choose the cells by this seed. [drawn now, and printed]")
@click.option("--device", metavar="NAME", help="Compute on this device. [the submission's]")
@click.option(
    "--cache", type=click.Path(path_type=Path), help="Use this cache folder. [a fresh one, removed afterwards]"
)
def verify(submission: Path, sample: int, seed: int | None, device: str | None, cache: Path | None) -> int:
    """Compute some cells of a submission again, from its configuration, and compare.

    The cells are drawn when the command runs, so nobody can foresee them. On the same machine and libraries, values
    and intervals must agree to 1e-6 of themselves, elsewhere to a quarter of the interval's width. The exit code is 2
    if a cell disagrees or can't be computed here.
    """
    from xbench.cli.leaderboard_verify import verify_submission

    return verify_submission(submission, sample, seed, device, cache)


def installed_suites() -> Mapping[tuple[str, str], str]:
    """Map the name and version of every installed suite to its fingerprint, leaving out what can't be read."""
    from xbench.errors import XbenchError
    from xbench.registry.discovery import discover
    from xbench.request.suites import read_suite

    found = {}
    for entry in discover().of_kind("suite"):
        try:
            suite = read_suite(entry.spec.load())
        except XbenchError:
            continue
        found[suite.name, str(suite.version)] = suite.fingerprint
    return found
