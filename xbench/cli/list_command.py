"""`xbench list`."""

from __future__ import annotations

import click

from xbench.contracts.specs import KINDS


@click.command("list", epilog="\b\nExamples:\n  xbench list\n  xbench list explainers")
@click.argument("kind", required=False, type=click.Choice([*(f"{kind}s" for kind in KINDS), "broken"]))
def command(kind: str | None) -> None:
    """List datasets, models, explainers, metrics, suites.

    Plugins that could not be loaded are listed with the reason.
    """
    from rich.table import Table

    from xbench.contracts.specs import ExplainerSpec
    from xbench.registry.discovery import discover
    from xbench.terminal import results_console

    registry = discover()
    console = results_console()
    for shown in KINDS:
        if kind not in (None, f"{shown}s"):
            continue
        table = Table(title=f"{shown}s", title_justify="left", box=None, header_style="dim", pad_edge=False)
        for column in ("name", "what it is", "from"):
            table.add_column(column, overflow="fold")
        for entry in registry.of_kind(shown):
            spec = entry.spec
            control = " (control)" if isinstance(spec, ExplainerSpec) and spec.control else ""
            table.add_row(spec.usage, spec.summary + control, f"{entry.distribution} {entry.version}")
        console.print(table)
        console.print()
    if kind in (None, "broken"):
        for fault in registry.broken:
            console.print(f"not loaded: {fault.reason}", style="yellow", markup=False)
        if kind == "broken" and not registry.broken:
            console.print("every installed plugin was loaded")
