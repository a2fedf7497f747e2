"""`xbench supports`."""

from __future__ import annotations

from pathlib import Path

import click


@click.command(
    "supports",
    epilog="\b\nExamples:\n  xbench supports --model timm:resnet50\n"
    "  xbench supports --model convnet --model timm:vgg16 --explainer lrp-epsilon --explainer gradcam\n"
    "  xbench supports --model timm:densenet121 --channels 3 --size 224 --markdown table.md",
)
@click.option("--model", "models", multiple=True, required=True, metavar="REF", help="Try this classifier; repeatable.")
@click.option("--explainer", "explainers", multiple=True, metavar="REF", help="Try this explainer; repeatable. [all]")
@click.option(
    "--size", type=click.IntRange(min=1), default=64, show_default=True, help="Make images with this side, in pixels."
)
@click.option(
    "--channels",
    multiple=True,
    type=click.IntRange(min=1),
    default=(1,),
    help="Make images with so many channels; repeatable. [1]",
)
@click.option(
    "--classes", type=click.IntRange(min=2), default=2, show_default=True, help="Give the classifier so many classes."
)
@click.option("--markdown", type=click.Path(path_type=Path), help="Write the table into a file too.")
def command(
    models: tuple[str, ...],
    explainers: tuple[str, ...],
    size: int,
    channels: tuple[int, ...],
    classes: int,
    markdown: Path | None,
) -> None:
    """Try which explainers can explain which models.

    They are tried on random images, and nothing is trained. If an explainer can't explain a model, its reason is given.
    """
    from rich.markup import escape

    from xbench.contracts.dataset import DatasetInfo
    from xbench.errors import UserError
    from xbench.registry.discovery import discover
    from xbench.registry.references import choose
    from xbench.request.selection import all_explainers
    from xbench.run.compatibility import markdown as as_markdown
    from xbench.run.compatibility import verdicts
    from xbench.runtime.files import write_text
    from xbench.terminal import results_console

    if markdown is not None and not markdown.absolute().parent.is_dir():
        raise UserError(f"{markdown} can't be written: there is no folder {markdown.parent}", "make it first")
    registry = discover()
    named = [choose("explainer", reference, registry) for reference in explainers if reference != "all"]
    chosen = named or all_explainers(registry)
    subjects = [choose("model", reference, registry) for reference in models]
    names = tuple(f"class {index}" for index in range(classes))
    console, found = results_console(), []
    for count in channels:
        info = DatasetInfo("random", names, count, (size, size))
        for subject in subjects:
            title = f"{subject.label}, {count} x {size} x {size}, {classes} classes"
            console.print(title, style="bold", markup=False, highlight=False)
            for verdict in verdicts(chosen, [subject], info):
                found.append(verdict)
                word = "[green]yes[/]" if verdict.works else "[yellow]no [/]"
                line = f"{verdict.explainer:<32} {verdict.reason}".rstrip()
                console.print(" ", word, escape(line), highlight=False, soft_wrap=True)
    if markdown is not None:
        words = [*(f"--model {model}" for model in models), *(f"--explainer {name}" for name in explainers)]
        words += [f"--size {size}", *(f"--channels {count}" for count in channels), f"--classes {classes}"]
        page = as_markdown(found, " ".join(["xbench supports", *words, f"--markdown {markdown}"]))
        write_text(markdown, page)
