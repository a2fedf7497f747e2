"""`xbench cache`."""

from __future__ import annotations

from pathlib import Path

import click

_cache = click.option(
    "--cache", type=click.Path(path_type=Path), help="Use this cache folder. [$XBENCH_CACHE or the user's]"
)


@click.group("cache")
def command() -> None:
    """List, size, verify or prune cached work.

    Everything in the cache can be made again; deleting it costs time, never results.
    """


@command.command("list")
@_cache
def list_artifacts(cache: Path | None) -> None:
    """List every finished artifact: kind, size, what it is."""
    from xbench.jobs.store import Store, default_root

    store = Store(cache or default_root())
    for path, manifest in store.finished():
        label = manifest.label if manifest else "damaged: its manifest can't be read"
        created = manifest.created if manifest else ""
        click.echo(f"{path.name[:12]}  {path.parent.name:<13} {_megabytes(path):>9}  {created:<25}  {label}")
    for path in store.unfinished():
        click.echo(f"{path.name[:12]}  {'unfinished':<13} {_megabytes(path):>9}")


@command.command("size")
@_cache
def size(cache: Path | None) -> None:
    """Add up the megabytes of each kind."""
    from xbench.jobs.store import Store, default_root

    store = Store(cache or default_root())
    totals: dict[str, int] = {}
    for path, _ in store.finished():
        totals[path.parent.name] = totals.get(path.parent.name, 0) + _bytes(path)
    for path in store.unfinished():
        totals["unfinished"] = totals.get("unfinished", 0) + _bytes(path)
    for kind, total in sorted(totals.items()):
        click.echo(f"{kind:<13} {total / 1e6:>9.1f} MB")
    click.echo(f"{'total':<13} {sum(totals.values()) / 1e6:>9.1f} MB  in {store.root}")


@command.command("verify")
@_cache
def verify(cache: Path | None) -> int:
    """Check every file against its checksum.

    Damaged artifacts are built again by the next run that needs them.
    """
    from xbench.jobs.store import Store, default_root, find_damage

    damaged = total = 0
    for path, manifest in Store(cache or default_root()).finished():
        total += 1
        damage = find_damage(path, manifest) if manifest else "its manifest can't be read or was altered"
        if damage:
            damaged += 1
            click.echo(f"{path.parent.name} {path.name[:12]}: {damage}")
    click.echo(f"{total} artifacts, {damaged} damaged")
    return 1 if damaged else 0


@command.command("prune")
@_cache
@click.option("--unused-days", type=click.FloatRange(min=0), help="Delete what no run has used for so many days.")
@click.option("--kind", multiple=True, help="Delete only this kind (data, model, maps, ...); repeatable.")
@click.option("--everything", is_flag=True, help="Delete all of it.")
@click.option("--dry-run", is_flag=True, help="Say what would be deleted, and delete nothing.")
def prune(
    cache: Path | None, unused_days: float | None, kind: tuple[str, ...], everything: bool, dry_run: bool
) -> None:
    """Delete cached work: unused, of a kind, or everything; at least one of the options is needed."""
    from xbench.jobs.store import Store, default_root

    if not (kind or everything or unused_days is not None):
        raise click.UsageError("say what to delete: --unused-days, --kind or --everything")
    store = Store(cache or default_root())
    freed = 0
    for path in store.prunable(unused_days, kind):
        freed += _bytes(path)
        click.echo(f"{'would delete' if dry_run else 'deleted'} {path.parent.name} {path.name[:12]}")
        if not dry_run:
            store.remove(path)
    click.echo(f"{freed / 1e6:.1f} MB")


def _bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _megabytes(folder: Path) -> str:
    return f"{_bytes(folder) / 1e6:.1f} MB"
