"""`xbench check`."""

from __future__ import annotations

import click


@click.command("check", epilog="\b\nExamples:\n  xbench check explainer gradient\n  xbench check metric fidelity")
@click.argument("kind", type=click.Choice(["dataset", "model", "explainer", "metric"]))
@click.argument("reference", metavar="REF")
def command(kind: str, reference: str) -> int:
    """Run the conformance checks on one item, yours or a built-in one; exit code 3 if one fails."""
    from xbench.discovery import discover
    from xbench.references import choose
    from xbench.testing import check

    failed = 0
    choice = choose(kind, reference, discover())
    for result in check(choice.entry.spec, choice.argument, **choice.options.model_dump()):
        failed += not result.passed
        click.echo(
            f"{'ok  ' if result.passed else 'FAIL'}  {result.name}{'' if result.passed else ': ' + result.message}"
        )
    return 3 if failed else 0
