"""`xbench report`."""

from __future__ import annotations

from pathlib import Path

import click

_EPILOG = """\b
Examples:
  xbench report xbench-runs/20260102-030405
  xbench report resnet convnet --out study --title "Two networks"
  xbench report mine --no-figures
"""


@click.command("report", epilog=_EPILOG, no_args_is_help=True)
@click.argument("runs", metavar="RUN [RUN ...]", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--out",
    metavar="DIR",
    type=click.Path(path_type=Path, file_okay=False),
    help="Write the report into this folder. [RUN/report; of several runs ./xbench-report]",
)
@click.option("--title", metavar="TEXT", default="", help="Give the page this title. [made from the runs]")
@click.option("--figures/--no-figures", default=True, help="Draw the figures for papers (SVG and PDF). [yes]")
def command(runs: tuple[Path, ...], out: Path | None, title: str, figures: bool) -> None:
    """Make a page of one or several runs that opens offline.

    The page holds ranked tables with intervals and rank sets, curves, a gallery to leaf through, counterfactuals, the
    classifiers, the agreement of metrics, cost, and how to reproduce it all. Beside it lie figures as SVG and PDF, and
    tables as CSV and LaTeX. It needs neither the plugins nor the images, only what the runs wrote. A report that is
    there already is replaced.
    """
    from rich.console import Console
    from rich.markup import escape

    from xbench.comparison import compare, read_runs
    from xbench.report.page import Source, write_report
    from xbench.report.panels import PANELS

    found = compare(read_runs(runs))
    sources = [Source(run.name, folder) for run, folder in zip(found.runs, runs, strict=True)]
    target = out or (runs[0] / "report" if len(runs) == 1 else Path("xbench-report"))
    console = Console(stderr=True)
    with console.status("reading") as status:
        page = write_report(
            found, sources, target, PANELS, title=title, figures=figures, note=lambda text: status.update(escape(text))
        )
    Console().print(f"report: {page}", markup=False, highlight=False, soft_wrap=True)
