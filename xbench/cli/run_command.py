"""`xbench run`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from xbench.runtime.precision import PRECISIONS

_EPILOG = """\b
A reference is a name, with an argument or options behind colons:
  vinet    vinet:importance=unet,alpha=0.5    timm:resnet18    blurred:sigma=3:gradient

\b
Examples:
  xbench run --explainer vinet --metric fidelity
  xbench run --explainer vinet --explainer gradient --sign both --model convnet --model timm:resnet18
  xbench run --explainer all --metric fidelity --sign both
  xbench run --explainer vinet:subject=self --dataset lidc-phantom:size=96
  xbench run --explainer gradient --model convnet:weights=mine.safetensors --limit 40
  xbench run --explainer vinet --explainer gradcam --conventions grid.toml
  xbench run --explainer all --metric all --workers 4
  xbench run --config study.toml --seed 1 --dry-run
  xbench run --suite brocki2022 --explainer mine --dry-run
"""


@click.command("run", epilog=_EPILOG, no_args_is_help=True)
@click.option(
    "--explainer",
    "-e",
    multiple=True,
    metavar="REF",
    help="Score this explainer; repeatable; all = every one that fits.",
)
@click.option(
    "--metric",
    "-m",
    multiple=True,
    metavar="REF",
    help="Score with this metric; repeatable; all = every one. [fidelity]",
)
@click.option("--model", multiple=True, metavar="REF", help="Explain this classifier; repeatable. [convnet]")
@click.option("--dataset", multiple=True, metavar="REF", help="Use this dataset; repeatable. [lidc-phantom]")
@click.option("--controls/--no-controls", default=None, help="Add the controls to the run. [yes]")
@click.option(
    "--sign",
    type=click.Choice(["original", "absolute", "both"]),
    help="Score maps as they are, |map|, or both. [original]",
)
@click.option("--target", metavar="RULE", help="Explain this class: predicted, true, or an index. [predicted]")
@click.option("--split", type=click.Choice(["train", "validation", "test"]), help="Score this split. [test]")
@click.option("--limit", type=click.IntRange(min=1), help="Score at most so many samples, classes balanced.")
@click.option("--seed", type=click.IntRange(min=0), help="Seed everything random with this number. [0]")
@click.option("--device", metavar="NAME", help="Compute on this device: auto, cpu, cuda, cuda:1, mps. [auto]")
@click.option(
    "--precision",
    type=click.Choice(list(PRECISIONS)),
    help="Compute passes in true float32, TF32 (NVIDIA), or autocast. [32]",
)
@click.option(
    "--batch-size", type=click.IntRange(min=1), help="Put so many images into a pass without gradients. [calibrated]"
)
@click.option(
    "--workers", type=click.IntRange(min=1), help="Share the work and the processors among so many processes. [1]"
)
@click.option(
    "--conventions",
    type=click.Path(path_type=Path),
    help="Try every metric option, sign and blur of this TOML grid; say which ranks hold and which flip.",
)
@click.option("--resamples", type=click.IntRange(min=100), help="Draw so many bootstrap resamples. [2000]")
@click.option(
    "--model-view/--no-model-view", default=None, help="Draw the image that maximises each class's score. [yes]"
)
@click.option("--out", type=click.Path(path_type=Path), help="Write the run into this folder. [xbench-runs/<time>]")
@click.option("--cache", type=click.Path(path_type=Path), help="Use this cache folder. [$XBENCH_CACHE or the user's]")
@click.option(
    "--config", type=click.Path(path_type=Path), help="Read options from this TOML file; the command line wins."
)
@click.option(
    "--suite",
    metavar="NAME|FILE",
    help="Run all tables of a suite; --explainer adds to them, --dataset replaces theirs.",
)
@click.option("--allow-pickle", is_flag=True, default=None, help="Read your own weights even if they are a pickle.")
@click.option("--dry-run", is_flag=True, help="Print the plan and what is cached; run nothing.")
def command(config: Path | None, suite: str | None, dry_run: bool, **options: Any) -> int:
    """Score explainers with metrics and write a run folder.

    All combinations of the explainers, metrics, models and datasets are scored, and the controls join by themselves.
    Everything computed is cached. Run the same command again to continue an interrupted run, or to read a finished one.
    """
    from xbench.run.workflow import carry_out, request, show_plan

    given = {key: value for key, value in options.items() if value not in (None, ())}
    wanted = request(suite, config, given)
    return show_plan(wanted) if dry_run else carry_out(wanted)
