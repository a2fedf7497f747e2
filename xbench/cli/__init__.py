"""The command line: one thin file per command; errors become one line and an exit code.

`xbench mine` is the click command that is called `command` in `xbench/cli/mine_command.py`: a file with such a name is
all it takes. The first sentence of its help is its line in the overview. `xbench --help` imports all of these files, so
they import at their top what is quick, and the rest inside the command.
"""

from __future__ import annotations

import importlib
import pkgutil
import sys
from collections.abc import Sequence

import click

from xbench.errors import XbenchError
from xbench.version import __version__

_SUFFIX = "_command"


def command_names() -> list[str]:
    """Return the names of all commands: the files of this folder that end in `_command.py`."""
    names = (module.name for module in pkgutil.iter_modules(__path__))
    return sorted(name.removesuffix(_SUFFIX) for name in names if name.endswith(_SUFFIX))


class _Commands(click.Group):
    """The commands of the files in this folder; a command that is called is the only one imported."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return command_names()

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in command_names():
            return None
        command: click.Command = importlib.import_module(f"xbench.cli.{cmd_name}{_SUFFIX}").command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError:
            from xbench.contracts.options import suggestion

            raise click.UsageError(f"no command {args[0]!r}: {suggestion(args[0], command_names())}") from None


@click.command(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
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
    """Run `xbench`.

    It exits with 0, 2 for the user's mistakes, 3 for a plugin's, 1 for ours, 130 when interrupted.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in words
    words = [word for word in words if word != "--debug"]  # wherever it stands
    try:
        code = xbench.main(args=words, prog_name="xbench", standalone_mode=False)
    except click.exceptions.Abort:
        code = 130
        click.echo("interrupted; run the same command again to continue", err=True)
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
