"""What the documents say is true: examples run, hooks and commands exist."""

from __future__ import annotations

import ast
import configparser
import importlib
import pkgutil
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import xbench
from xbench import DatasetSpec
from xbench.cli import command_names
from xbench.contracts import hookspecs
from xbench.request.config import read_config
from xbench.request.suites import paper_rows, read_suite
from xbench.testing import check

if TYPE_CHECKING:
    from tests.conftest import Shelf


ROOT = Path(__file__).parent.parent


def _pages(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.md" if folder == ROOT else "**/*.md"))


PLUGINS = (ROOT / "docs" / "writing-plugins.md").read_text()
RUNNING = (ROOT / "docs" / "running.md").read_text()
SUITES = (ROOT / "docs" / "suites.md").read_text()
README = (ROOT / "README.md").read_text()
DOCUMENTS = [
    path.relative_to(ROOT) for name in (".", "docs", "leaderboard", "benchmarks") for path in _pages(ROOT / name)
]


def _public_names() -> dict[str, set[str]]:
    """What the guide says may be imported beside the names of `xbench`: module -> names."""
    section = PLUGINS.split("## What you may import\n")[1].split("\n## ")[0]
    bullets = re.findall(r"^- `(xbench\.[\w.]+)`: (.*?)\.\s", section, re.S | re.M)
    return {module: set(re.findall(r"`(\w+)`", names)) for module, names in bullets}


def _imports_of_plugins() -> dict[str, set[str]]:
    """What the built-in plugins import of the core beside the names of `xbench`: module -> names."""
    found = {}
    for path in (ROOT / "plugins").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                assert not [name for name in node.names if name.name.startswith("xbench.")], path
            elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("xbench."):
                found.setdefault(node.module, set()).update(name.name for name in node.names)
    return found


def _block(text: str, marker: str) -> str:
    return next(block for block in re.findall(r"```\w*\n(.*?)```", text, re.S) if marker in block)


def test_the_explainer_of_the_guide_is_installed_as_written_and_passes_every_check(shelf: Shelf) -> None:
    shelf.install("my_package", _block(PLUGINS, "my_package/__init__.py").replace('"my_package.mine:', '"mine_module:'))
    (shelf.folder / "mine_module.py").write_text(_block(PLUGINS, "my_package/mine.py"))
    package = shelf.folder / "my_package.py"
    options = _block(PLUGINS, "my_package/options.py")
    (shelf.folder / "mine_options.py").write_text(options)
    package.write_text(package.read_text().replace('"my_package.options:', '"mine_options:'))
    from xbench.registry.discovery import discover

    spec = discover().get("explainer", "mine").spec
    assert spec.load_options()(steps=3).steps == 3
    failed = [result for result in check(spec) if not result.passed]
    assert not failed, failed


def test_the_options_of_the_guide_that_hang_on_the_device_resolve(shelf: Shelf) -> None:
    shelf.install("sized", _block(PLUGINS, "my_package/sized.py"))
    from sized import SizedOptions

    assert [SizedOptions().resolved_on(device).width for device in ("cpu", "cuda:1")] == [32, 256]
    assert SizedOptions(width=8).resolved_on("cuda").width == 8


def test_the_presets_of_the_guide_are_filled_in(shelf: Shelf) -> None:
    shelf.install("presets", _block(PLUGINS, "my_package/presets.py"))
    from presets import MineOptions

    assert [MineOptions().filled_on(device).width for device in ("cpu", "cuda:1")] == [16, 256]
    assert MineOptions(width=8).filled_on("cuda").width == 8


def test_the_dataset_of_the_guide_passes_every_check(shelf: Shelf) -> None:
    shelf.install("spots", _block(PLUGINS, "my_package/spots.py"))
    failed = [result for result in check(DatasetSpec("spots", "drawn", factory="spots:Spots")) if not result.passed]
    assert not failed, failed


def test_every_hook_is_in_the_guide() -> None:
    hooks = [name for name in vars(hookspecs) if name.startswith("xbench_")]
    assert len(hooks) == 5
    for hook in hooks:
        assert f"`{hook}`" in PLUGINS or f"def {hook}" in PLUGINS


def test_the_configuration_of_the_guide_is_read(tmp_path: Path) -> None:
    path = tmp_path / "study.toml"
    path.write_text(_block(RUNNING, "# study.toml"))
    config = read_config(path, {"seed": 2})
    assert config.seed == 2
    assert len(config.explainer) == 3


def test_the_suite_of_the_guide_is_read_with_its_numbers(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(_block(SUITES, "# mine.toml") + _block(SUITES, "[[paper]]"))
    (tmp_path / "table2.csv").write_text(
        'Method,F x 10,from,to,"F x 10, abs",liked by\nGrad,1,0,2,3,\nOurs,4,,,5,0.5\nNo explanation,,,,,0.1\n'
    )
    suite = read_suite(tmp_path / "mine.toml")
    assert [table.cells for table in suite.tables] == [8, 1]
    numbers = [(row.explainer, row.metric, row.sign, round(row.value, 3)) for row in paper_rows(suite)]
    assert numbers == [
        ("gradient", "fidelity", "original", 0.1),
        ("gradient", "fidelity", "absolute", 0.3),
        ("vinet", "fidelity", "original", 0.4),
        ("vinet", "fidelity", "absolute", 0.5),
        ("vinet", "readers who liked it", "", 0.5),
        ("", "readers who liked it", "", 0.1),
    ]


def test_every_shipped_suite_is_in_the_guide() -> None:
    from xbench.registry.discovery import discover

    named = re.findall(r"^\| `(\w+)` \|", SUITES, re.M)
    assert sorted(named) == [entry.spec.name for entry in discover().of_kind("suite") if entry.distribution == "xbench"]


def _commands_in(page: Path) -> set[str]:
    """The commands of `xbench` that a page has in code: "run" of `xbench run --suite quick`."""
    code = re.findall(r"```\w*\n(.*?)```|`([^`\n]+)`", (ROOT / page).read_text(), re.S)
    return {name for pair in code for part in pair for name in re.findall(r"(?<!from )\bxbench ([a-z]+)", part)}


@pytest.mark.parametrize("page", DOCUMENTS, ids=str)
def test_every_command_named_exists(page: Path) -> None:
    assert _commands_in(page) <= set(command_names()) | {"mine"}  # that of whoever follows a guide


def test_every_command_is_in_a_document() -> None:
    assert set().union(*map(_commands_in, DOCUMENTS)) >= set(command_names())


@pytest.mark.parametrize("page", DOCUMENTS, ids=str)
def test_every_link_leads_somewhere(page: Path) -> None:
    text = re.sub(r"```.*?```|`[^`\n]+`", "", (ROOT / page).read_text(), flags=re.S)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in target:
            continue
        path, _, heading = target.partition("#")
        linked = (ROOT / page).parent / path if path else ROOT / page
        assert linked.exists(), target
        titles = re.findall(r"^#+ (.+)$", linked.read_text(), re.M) if heading else []
        slugs = {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}
        assert not heading or heading in slugs, target


@pytest.mark.parametrize("page", DOCUMENTS, ids=str)
def test_no_line_is_longer_than_the_sources_may_be(page: Path) -> None:
    """Tables have no other form, and neither have a picture's words or an address."""
    for line in (ROOT / page).read_text().splitlines():
        assert len(line) <= 120 or line.startswith(("|", "![")) or "://" in line, line


def test_what_the_changelog_says_has_moved_is_where_it_says() -> None:
    section = (ROOT / "CHANGELOG.md").read_text().split("### Moved\n")[1].split("\n### ")[0]
    rows = re.findall(r"^\| `(.+?)` \| (.+) \|$", section, re.M)
    assert len(rows) > 100
    for old, words in rows:
        for new in re.findall(r"`(xbench\w*\.[\w.]+)`", words):
            assert _exists(new), f"{old} has moved to {new}, which does not exist"


def _exists(path: str) -> bool:
    """Whether a dotted path is a module, or a name in one."""
    try:
        importlib.import_module(path)
    except ModuleNotFoundError:
        module, _, name = path.rpartition(".")
        return hasattr(importlib.import_module(module), name)
    return True


def test_the_readme_has_the_two_commands() -> None:
    commands = re.findall(r"```\n(.*?)\n```", README, re.S)
    assert commands == ["pip install . && xbench run --explainer vinet --metric fidelity", "pip install tox && tox"]
    for picture in re.findall(r"!\[.+?\]\((.+?)\)", README):
        assert (ROOT / picture).exists()
    for page in re.findall(r"\]\(([\w/-]+\.md)\)", README):
        assert (ROOT / page).exists()


def test_the_rules_of_the_guide_are_refused_and_accepted_where_they_should_be() -> None:
    import torch

    from xbench import DatasetInfo
    from xbench.contracts.options import Options
    from xbench.testing.networks import ConvNetwork, LinearNetwork
    from xbench_baselines.gradients.backpropagation import Deconvolution
    from xbench_baselines.gradients.options import BackpropagationOptions

    made = {}
    exec(compile(_block(PLUGINS, "my_package/rules.py"), "rules.py", "exec"), made)
    explainer, info = made["Mine"](Options()), DatasetInfo("toy", ("a", "b"), 1, (16, 16))
    assert explainer.supports(ConvNetwork(1, 2, relu="functional").eval(), info) is None
    assert explainer.supports(LinearNetwork(1, (16, 16), 2), info) == "it has no ReLU"
    network, images = ConvNetwork(1, 2, relu="functional").eval(), torch.rand(1, 1, 16, 16)
    arguments = (network, images, torch.tensor([1]))
    torch.testing.assert_close(
        explainer.attribute(*arguments), Deconvolution(BackpropagationOptions()).attribute(*arguments)
    )


def test_the_public_names_of_the_guide_exist() -> None:
    public = _public_names()
    assert len(public) > 10
    for module, names in public.items():
        assert names, module
        for name in names:
            assert hasattr(importlib.import_module(module), name), f"{module} has no {name}"
    assert public["xbench.testing"] == set(importlib.import_module("xbench.testing").__all__)


def test_built_in_plugins_import_public_names_only() -> None:
    public, imported = _public_names(), _imports_of_plugins()
    secret = {f"{module}.{name}" for module, names in imported.items() for name in names - public.get(module, set())}
    assert not secret, "name them under 'What you may import', or import something public"
    assert set(public) - set(imported) == {"xbench.testing", "xbench.runtime.precision"}, "promised, and nobody uses it"


def test_the_contract_of_imports_closes_every_room_without_a_public_name() -> None:
    contracts = configparser.ConfigParser()
    contracts.read(ROOT / ".importlinter")
    closed = set(contracts["importlinter:contract:public"]["forbidden_modules"].split())
    rooms = {f"xbench.{module.name}" for module in pkgutil.iter_modules(xbench.__path__)}
    public = {".".join(module.split(".")[:2]) for module in _public_names()}
    assert closed == rooms - public - {"xbench.errors", "xbench.version"}  # whose names `xbench` itself has
