"""The built-in items that are trained or rendered pass the checks that plugin authors are given.

The quick ones do so in the tests of their plugins.
"""

from typing import Any

import pytest

from xbench.registry.discovery import discover
from xbench.testing import check

# Small enough for two cores: what is checked is the contract, not what is learned.
ITEMS: dict[str, tuple[str, str, str, dict[str, Any]]] = {
    "vinet": ("explainer", "vinet", "", {"epochs": 1, "width": 0.1, "train_batch": 8}),
    "convnet": ("model", "convnet", "", {"epochs": 1}),
    "timm": ("model", "timm", "test_resnet", {"epochs": 1}),
    "lidc-phantom": ("dataset", "lidc-phantom", "", {"size": 32, "max_slice_thickness": 1.0}),
}


@pytest.mark.slow
@pytest.mark.parametrize("item", ITEMS)
def test_built_ins_conform(item: str) -> None:
    kind, name, argument, options = ITEMS[item]
    results = check(discover().get(kind, name).spec, argument, **options)
    assert len(results) >= 5
    failed = [f"{result.name}: {result.message}" for result in results if not result.passed]
    assert not failed, "\n".join(failed)
