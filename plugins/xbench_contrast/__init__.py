"""The dataset of rendered chest slices with and without contrast agent. Hook implementations only."""

from __future__ import annotations

from collections.abc import Iterable

from xbench import DatasetSpec, hookimpl


@hookimpl
def xbench_datasets() -> Iterable[DatasetSpec]:
    """Yield the contrast agent task, in which the true evidence is known."""
    yield DatasetSpec(
        "contrast-phantom",
        "phantom: rendered axial chest slices without or with contrast agent; the classes differ in the mask alone",
        factory="xbench_contrast.phantom:ContrastPhantom",
        options="xbench_contrast.options:ContrastPhantomOptions",
        reference="task: Brocki et al., section 1; the slices are rendered",
    )
