"""`xbench check`."""

from __future__ import annotations

import click

from xbench.contracts.specs import CELL_KINDS


@click.command(
    "check",
    epilog="\b\nExamples:\n  xbench check explainer gradient\n  xbench check metric fidelity\n"
    "  xbench check explainer attention --model attention",
)
@click.argument("kind", type=click.Choice(CELL_KINDS))
@click.argument("reference", metavar="REF")
@click.option("--model", metavar="REF", help="Check an explainer with this model, if it needs a special kind.")
def command(kind: str, reference: str, model: str | None) -> int:
    """Run the conformance checks on one item.

    It may be yours or a built-in one. The exit code is 3 if a check fails.
    """
    from xbench.registry.discovery import discover
    from xbench.registry.references import choose
    from xbench.testing import Scenario, check
    from xbench.testing.fakes import FakeDataset

    failed = 0
    registry = discover()
    choice = choose(kind, reference, registry)
    scenarios = None if model is None else [Scenario(model, FakeDataset(), choose("model", model, registry).create())]
    for result in check(choice.entry.spec, choice.argument, scenarios, **choice.options.model_dump()):
        failed += not result.passed
        click.echo(
            f"{'ok  ' if result.passed else 'FAIL'}  {result.name}{'' if result.passed else ': ' + result.message}"
        )
    return 3 if failed else 0
