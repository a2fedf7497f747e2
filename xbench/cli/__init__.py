"""The command line: one thin file per command, imported when it is called; errors become one line and an exit code."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

import click

from xbench.errors import XbenchError
from xbench.version import __version__

# Name -> what the overview says; the command itself is xbench.cli.<name>_command, imported only when it is called.
_COMMANDS = {
    "run": "Score explainers with metrics and write a run folder.",
    "compare": "Compare runs: ranks, paired tests, agreement of metrics.",
    "report": "Make a page of runs that opens offline.",
    "leaderboard": "Hand in runs, check, verify and rank them.",
    "list": "List datasets, models, explainers, metrics and suites.",
    "show": "Show one item: options, defaults, reference; a suite's tables.",
    "supports": "Try which explainers can explain which models.",
    "check": "Run the conformance checks on one item.",
    "cache": "List, size, verify or prune cached work.",
}


class _LazyGroup(click.Group):
    """Commands by name; `xbench --help` must not import them."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in _COMMANDS:
            return None
        module = importlib.import_module(f"xbench.cli.{cmd_name}_command")
        command: click.Command = module.command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl(list(_COMMANDS.items()))

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError:
            from xbench.contracts.options import suggestion

            raise click.UsageError(f"no command {args[0]!r}: {suggestion(args[0], _COMMANDS)}") from None


@click.command(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="xbench")
@click.option("--debug", is_flag=True, help="Show tracebacks.")
def xbench(debug: bool) -> None:
    """Which explanation of this model can I trust, and how sure are we?

    xbench scores explainers of medical-image classifiers: every number with a 95 % interval, against controls that
    must lose.

    \b
    Examples:
      xbench run --explainer vinet --metric fidelity
      xbench run --explainer gradient --explainer vinet:alpha=0.5 --model timm:resnet18 --sign both
      xbench list explainers
      xbench show explainer vinet
    """  # noqa: D301
    del debug


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of `xbench`.

    Exits with 0, 2 for the user's mistakes, 3 for a plugin's, 1 for ours, 130 when interrupted.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in words
    words = [word for word in words if word != "--debug"]  # wherever it stands
    try:
        code = xbench.main(args=words, prog_name="xbench", standalone_mode=False)
    except click.exceptions.Abort:
        code = 130
        click.echo("interrupted; the same line again continues where it was", err=True)
    except click.ClickException as error:
        error.show()
        code = 2
    except XbenchError as error:
        if debug:
            raise
        code = error.exit_code
        click.echo(f"error: {error}", err=True)
    except Exception as error:
        if debug:
            raise
        code = 1
        click.echo(f"internal error: {type(error).__name__}: {error} (--debug shows where)", err=True)
    sys.exit(code if isinstance(code, int) else 0)
