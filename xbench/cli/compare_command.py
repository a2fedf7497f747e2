"""`xbench compare`."""

from __future__ import annotations

from pathlib import Path

import click

_EPILOG = """\b
Examples:
  xbench compare xbench-runs/20260102-030405
  xbench compare mine --metric fidelity --against gradient
  xbench compare mine --explainer vinet --against gradient --csv difference.csv
  xbench compare resnet convnet densenet --figure figures
"""


@click.command("compare", epilog=_EPILOG, no_args_is_help=True)
@click.argument("runs", metavar="RUN [RUN ...]", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--metric", "-m", multiple=True, metavar="NAME", help="Compare only this metric; repeatable. [all]")
@click.option("--explainer", "-e", multiple=True, metavar="NAME", help="Compare only this explainer; repeatable. [all]")
@click.option("--against", metavar="NAME", default="", help="Compare all others with this explainer. [the best]")
@click.option(
    "--controls/--no-controls",
    default=False,
    help="Include the controls in the tests over datasets and in the agreement of metrics. [no]",
)
@click.option(
    "--figure",
    metavar="DIR",
    type=click.Path(path_type=Path, file_okay=False),
    help="Draw the figures into this folder.",
)
@click.option(
    "--csv",
    "table",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write the ranks into this CSV file.",
)
def command(
    runs: tuple[Path, ...],
    metric: tuple[str, ...],
    explainer: tuple[str, ...],
    against: str,
    controls: bool,
    figure: Path | None,
    table: Path | None,
) -> None:
    """Compare explainers within a run folder or over several.

    For every dataset, model and metric, it prints the ranking with 95 % intervals and each explainer's paired
    difference to the best (or to --against) on the same resamples, with p corrected after Holm. It says what is not
    ranked together, and why. Over several datasets or models, it adds Friedman's test and Nemenyi's critical
    difference. Last come the rank correlations between metrics. It needs neither the plugins nor the images, only what
    the runs wrote.
    """
    from xbench.comparison import compare, read_runs
    from xbench.comparison.tables import comparison_tables, write_comparison
    from xbench.errors import UserError
    from xbench.terminal import results_console

    found = compare(read_runs(runs), metric, explainer, against, controls)
    console = results_console()
    console.print(comparison_tables(found))
    try:
        if table is not None:
            write_comparison(found.rankings, table)
            console.print(f"table: {table}", markup=False, highlight=False)
        if figure is not None:
            from xbench.report import agreement_chart

            if not found.agreements:
                console.print("no picture: fewer than two metrics with two explainers in common", style="yellow")
            for one in found.agreements:
                for path in agreement_chart(figure, one):
                    console.print(f"figure: {path}", markup=False, highlight=False)
    except OSError as error:
        where = error.filename or table or figure
        raise UserError(f"can't write {where}: {error.strerror or error}", "name another place") from error
