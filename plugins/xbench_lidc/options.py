"""Options of the datasets made from LIDC-IDRI; importable without torch."""

from __future__ import annotations

from typing import Literal

from pydantic import ValidationInfo, field_validator

from xbench import Field, Options


class LidcPhantomOptions(Options):
    """Options of `lidc-phantom`: rendering, labels and splits."""

    size: int = Field(64, ge=32, le=512, description="side of the patch, in pixels")
    field_of_view: float = Field(45.0, ge=15, le=200, description="side of the patch, in mm")
    slice: Literal["middle", "largest"] = Field(
        "middle", description="middle: nearest to the readers' mean centre; largest: where the consensus covers most"
    )
    labels: Literal["binary", "five"] = Field(
        "binary", description="binary: median malignancy above or below 3; five: mean malignancy, halves rounded up"
    )
    median3: Literal["discard", "benign", "malignant"] = Field(
        "discard", description="label of a median malignancy of exactly 3, with labels=binary"
    )
    split: Literal["ratio", "paper"] = Field(
        "ratio", description="ratio: 70/15/15 of the nodules; paper: 70/30, a tenth of the 70 for validation (Katzmann)"
    )
    split_seed: int = Field(0, ge=0, description="seed of the assignment of patients to splits")
    min_readers: int = Field(3, ge=1, le=4, description="leave out nodules outlined by fewer readers")
    keep_glued: bool = Field(
        False, description="keep groups of more than 4 outlines: neighbouring nodules that the outlines do not separate"
    )
    max_slice_thickness: float | None = Field(
        None, gt=0, description="leave out scans with thicker slices, in mm (2.5: as LUNA16)"
    )

    @field_validator("median3")
    @classmethod
    def _no_option_is_ignored(cls, value: str, options: ValidationInfo) -> str:
        if value != "discard" and options.data.get("labels") == "five":
            raise ValueError("it has a meaning only with labels=binary")
        return value
