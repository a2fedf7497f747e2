"""`xbench --help`, and what it takes to add a command."""

import importlib
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

import xbench.cli
from xbench.cli import command_names
from xbench.results.rows import write_scores

GUIDE = (Path(__file__).parents[3] / "docs" / "extending-the-core.md").read_text()
NO_VERBS = {"All", "At", "Cache", "Class", "For", "Of", "Only", "The", "To", "Whether"}
COMMAND = re.search(r"```python\n# xbench/cli/mine_command.py\n(.*?)```", GUIDE, re.S)[1]


@pytest.fixture
def one_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The command of the guide as a file in the folder of the commands, for one test."""
    (tmp_path / "mine_command.py").write_text(COMMAND)
    (tmp_path / "mine_private.py").write_text("raise AssertionError('this is no command')")
    monkeypatch.setattr(xbench.cli, "__path__", [*xbench.cli.__path__, str(tmp_path)])
    yield
    sys.modules.pop("xbench.cli.mine_command", None)


def run(*words: str) -> Result:
    return CliRunner().invoke(xbench.cli.xbench, words)


def overview() -> dict[str, str]:
    lines = run("--help").output.partition("Commands:")[2].splitlines()
    return dict(re.split(r"\s{2,}", line.strip(), maxsplit=1) for line in lines if line.strip())


def test_one_file_is_a_command(one_more: None, tmp_path: Path) -> None:
    assert overview()["mine"] == "Count the rows of a run."
    write_scores([], tmp_path / "scores.csv")
    assert run("mine", str(tmp_path)).output == "0 rows\n"
    assert "The first sentence is also" in run("mine", "--help").output
    assert "did you mean mine?" in run("mina").output


def test_the_overview_says_the_first_sentence_of_each_commands_help_whole() -> None:
    shown = overview()
    assert list(shown) == command_names()
    for name, words in shown.items():
        command = importlib.import_module(f"xbench.cli.{name}_command").command
        first = " ".join(command.help.split("\n\n")[0].split())
        assert words == re.match(r".*?\.(?= |$)", first)[0]
        assert command.name == name


def _leaves(command: click.Command) -> list[click.Command]:
    return (
        [leaf for one in command.commands.values() for leaf in _leaves(one)]
        if hasattr(command, "commands")
        else [command]
    )


def test_the_help_of_every_option_is_a_sentence_with_a_verb_first() -> None:
    options = [
        (command.name, option)
        for name in command_names()
        for command in _leaves(importlib.import_module(f"xbench.cli.{name}_command").command)
        for option in command.params
        if isinstance(option, click.Option)
    ]
    assert len(options) > 40
    for name, option in options:
        sentence = re.match(r"([A-Z][a-z]+) .*\.( \[.+\])?$", option.help or "")
        assert sentence, f"{name} {option.opts}: {option.help}"
        assert sentence[1] not in NO_VERBS, f"{name} {option.opts}: {option.help}"


def test_calling_a_command_imports_no_other_one() -> None:
    code = "import sys; from xbench.cli import main\ntry: main(['cache', '--help'])\nexcept SystemExit: pass\n"
    code += "print(*(name for name in sys.modules if name.endswith('_command')))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "xbench.cli.cache_command"
