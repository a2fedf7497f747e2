"""Options of the class activation family."""

from __future__ import annotations

from xbench import Field, Options


class LayerOptions(Options):
    """Options of `gradcam-plus-plus`, `respond-cam`, `layercam` and `guided-gradcam`."""

    layer: str = Field(
        "",
        description="module whose output is explained, such as network.layer3; empty: the last feature map before the "
        "head",
    )


class CamOptions(LayerOptions):
    """Options of `cam`."""

    relu: bool = Field(False, description="whether negative values are cut off; the paper's formula keeps them")


class GradCamOptions(LayerOptions):
    """Options of `gradcam`."""

    relu: bool = Field(True, description="whether negative values are cut off, as in equation 2 of the paper")
