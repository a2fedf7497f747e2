"""Options of XRAI's regions, which are scaled to the size of the image."""

from __future__ import annotations

from pydantic import field_validator

from xbench import Field, Options

# The size for which the paper's authors chose their parameters, and to which they resize images before segmenting.
REFERENCE_SIDE = 224
_DILATION, _MIN_PIXEL_DIFF = 5, 50


class RegionOptions(Options):
    """Options of an image's regions. The authors' own values, without scaling, are dilation=5, min_pixel_diff=50."""

    dilation: int | None = Field(
        None,
        ge=0,
        description="radius of the disk that dilates each region, in pixels; none: 5 per 224 of the side",
    )
    min_pixel_diff: int | None = Field(
        None, ge=1, description="skip regions that add fewer pixels; none: 50 per 224 x 224 pixels of the image"
    )
    scale: float = Field(1.0, gt=0, description="factor of Felzenszwalb's six scales: larger for larger regions")
    sigma: float = Field(0.8, ge=0, description="blur before the segmentation, in pixels of 224 x 224")
    min_size: int = Field(150, ge=1, description="smallest region, in pixels of 224 x 224")

    def radius(self, spatial: tuple[int, ...]) -> int:
        """Return `dilation` for images of (H, W) pixels."""
        return round(_DILATION * min(spatial) / REFERENCE_SIDE) if self.dilation is None else self.dilation

    def min_new_pixels(self, spatial: tuple[int, ...]) -> int:
        """Return `min_pixel_diff` for images of (H, W) pixels."""
        if self.min_pixel_diff is not None:
            return self.min_pixel_diff
        height, width = spatial
        return max(1, round(_MIN_PIXEL_DIFF * height * width / REFERENCE_SIDE**2))


class XraiOptions(RegionOptions):
    """Options of `xrai`."""


class DiceOptions(RegionOptions):
    """Options of `dice`, whose regions are those of `xrai`."""

    areas: str = Field(
        "1,2,3,4,5,6,7,8,9,10,12,15,20,30,50,70,100",
        description="shares of the image to display, in percent; the best one gives the value",
    )

    @field_validator("areas")
    @classmethod
    def _in_order(cls, areas: str) -> str:
        try:
            grid = sorted({float(area) for area in areas.split(",")})
        except ValueError:
            grid = []
        if not grid or not 0 < grid[0] <= grid[-1] <= 100:  # NaN is refused too
            raise ValueError("give numbers above 0, up to 100, with commas between them: 5,10,20")
        return ",".join(f"{area:g}" for area in grid)

    @property
    def grid(self) -> tuple[float, ...]:
        """`areas` as ascending numbers."""
        return tuple(float(area) for area in self.areas.split(","))
