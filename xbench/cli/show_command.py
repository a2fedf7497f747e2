"""`xbench show`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from xbench.contracts.specs import KINDS, ExplainerSpec, Spec

if TYPE_CHECKING:
    from xbench.registry.entries import Registry

_EPILOG = """\b
Examples:
  xbench show explainer vinet
  xbench show dataset lidc-phantom
  xbench show suite brocki2022
"""


@click.command("show", epilog=_EPILOG)
@click.argument("kind", type=click.Choice(KINDS))
@click.argument("name")
def command(kind: str, name: str) -> None:
    """Show one item: options, defaults, reference.

    Of a suite, its tables are shown, and what differs from the paper.
    """
    from rich.table import Table
    from rich.text import Text

    from xbench.contracts.options import describe_options
    from xbench.registry.discovery import discover
    from xbench.terminal import results_console

    registry = discover()
    if kind == "suite":
        _show_suite(name, registry)
        return
    entry = registry.get(kind, name.partition(":")[0])
    spec = entry.spec
    console = results_console()
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
    """Return how an option is written: behind the argument, or before it if that is an explainer with its own."""
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


def _show_suite(wanted: str, registry: Registry) -> None:
    from xbench.request.config import CELL_LISTS
    from xbench.request.suites import find_suite
    from xbench.terminal import results_console

    suite = find_suite(wanted, registry)
    console = results_console()
    console.print(f"suite {suite.name}: {suite.summary}", style="bold", markup=False, highlight=False)
    for label, text in (
        ("reference", suite.reference),
        ("version", f"{suite.version}, {suite.fingerprint[:12]}"),
        ("target", f"{suite.target} class, {suite.split} split"),
        ("from", str(suite.path)),
    ):
        if text:
            console.print(f"{label:<10} {text}", markup=False, highlight=False)
    for table in suite.tables:
        signs = "original and absolute" if table.sign == "both" else table.sign
        cells = f"{table.cells} cells" if table.cells else "all that fit"
        controls = ", and the controls" if table.controls else ""
        console.print(f"\ntable {table.name}: {cells}{controls}; {signs} maps", markup=False, highlight=False)
        for word in CELL_LISTS:
            for place, reference in enumerate(getattr(table, word)):
                label = f"{word}s" if place == 0 else ""
                console.print(f"  {label:<10} {_reference(reference)}", markup=False, highlight=False, soft_wrap=True)
    console.print()
    for paper in dict.fromkeys(f"{paper.citation} ({paper.table})" for paper in suite.papers):
        console.print(f"in print   {paper}", markup=False, highlight=False)
    if suite.differs:
        console.print("\nwhat differs from the paper:", style="bold")
        for text in suite.differs:
            console.print(f"- {text}", markup=False, highlight=False)
    console.print(f"\nrun it: xbench run --suite {wanted}", markup=False, highlight=False)


def _reference(reference: str | dict[str, Any]) -> str:
    if isinstance(reference, str):
        return reference
    options = ",".join(f"{key}={value}" for key, value in reference.items() if key != "name")
    return f"{reference['name']}:{options}"
