"""Check who may import whom: the contracts of `.importlinter`, with every plugin folder put in for "(plugins)".

    python tests/layers.py

import-linter has no wildcards for packages. A list kept by hand would pass over the plugin that nobody added to it.
"""

import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent


def plugins() -> list[str]:
    """Return the names of the plugin packages beside the core."""
    return sorted(path.parent.name for path in (ROOT / "plugins").glob("*/__init__.py"))


def contracts() -> str:
    """Return the contracts as import-linter reads them."""
    text = (ROOT / ".importlinter").read_text()
    return text.replace("    (plugins)", "\n".join(f"    {name}" for name in plugins()))


def main() -> int:
    """Run import-linter and return its exit code."""
    from importlinter.cli import lint_imports

    sys.path[:0] = [str(ROOT), str(ROOT / "plugins")]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "contracts.ini"
        path.write_text(contracts())
        return lint_imports(config_filename=str(path))


if __name__ == "__main__":
    sys.exit(main())
