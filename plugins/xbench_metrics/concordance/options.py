"""Options of the metrics against the experts' masks."""

from __future__ import annotations

from typing import Literal

from xbench import Field, Options


class RocAucOptions(Options):
    """Options of `roc_auc`."""

    protocol: Literal["exact", "trapezoid", "heights"] = Field(
        "exact",
        description="exact = mean over images of the area under each image's curve; trapezoid = area under the curve "
        "averaged over images at 201 thresholds of rank; heights = mean height of that curve, as in the paper",
    )


class PointingGameOptions(Options):
    """Options of `pointing_game`."""

    tolerance: int = Field(0, ge=0, description="largest distance of a hit from the mask, in pixels")
