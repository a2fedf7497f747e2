"""`xbench show`."""

from __future__ import annotations

import click

from xbench.specs import ExplainerSpec, Spec


@click.command("show", epilog="\b\nExamples:\n  xbench show explainer vinet\n  xbench show dataset lidc-phantom")
@click.argument("kind", type=click.Choice(["dataset", "model", "explainer", "metric"]))
@click.argument("name")
def command(kind: str, name: str) -> None:
    """Show one item: what it is, its options with defaults, its reference."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from xbench.discovery import discover
    from xbench.options import describe_options

    entry = discover().get(kind, name.partition(":")[0])
    spec = entry.spec
    console = Console()
    console.print(f"{kind} {spec.name}: {spec.summary}", style="bold", markup=False, highlight=False)
    for label, text in (
        ("use", spec.usage),
        ("reference", spec.reference),
        *_of_explainer(spec),
        ("needs", ", ".join(spec.requires)),
        ("from", f"{entry.distribution} {entry.version}, {spec.factory}"),
    ):
        if text:
            console.print(f"{label:<10} {text}", markup=False, highlight=False)
    rows = describe_options(spec.load_options())
    if not rows:
        console.print("no options")
        return
    table = Table(box=None, header_style="dim", pad_edge=False)
    for column in ("option", "type", "default", "what it does"):
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(Text(row[key]) for key in ("name", "type", "default", "description")))
    console.print()
    console.print(table)
    console.print(f"\nset them inline: {_inline(spec, rows[0]['name'])}", markup=False, highlight=False)


def _inline(spec: Spec, option: str) -> str:
    """How an option is written: behind the argument, or before it where that is another explainer with its own."""
    if not spec.argument:
        return f"{spec.name}:{option}=..."
    if spec.argument == "explainer":
        return f"{spec.name}:{option}=...:<explainer>"
    return f"{spec.name}:<{spec.argument}>:{option}=..."


def _of_explainer(spec: Spec) -> list[tuple[str, str]]:
    if not isinstance(spec, ExplainerSpec):
        return []
    alone = f"{spec.name} alone is {spec.name}:{spec.default}" if spec.default else ""
    return [("", alone), ("a model", spec.model and f"needs {spec.model}")]
