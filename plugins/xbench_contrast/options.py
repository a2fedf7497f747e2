"""Options of the contrast phantom; importable without torch."""

from __future__ import annotations

from typing import Literal

from pydantic import ValidationInfo, field_validator

from xbench import Field, Options


class ContrastPhantomOptions(Options):
    """Options of `contrast-phantom`: patients and slices, their size, the contrast agent, and a planted confounder.

    Brocki et al. have 1037 patients with 2 slices each for training and 259 patients with 16 slices each for the test.
    They do not give the size of the slices.
    """

    size: int = Field(64, ge=32, le=512, description="side of the slice, in pixels")
    field_of_view: float = Field(400.0, ge=380, le=600, description="side of the slice, in mm")
    patients_train: int = Field(400, ge=2, le=100_000, description="patients to train on; half of them have the agent")
    patients_validation: int = Field(80, ge=2, le=100_000, description="patients to validate on")
    patients_test: int = Field(80, ge=2, le=100_000, description="patients to test on")
    slices_train: int = Field(2, ge=1, le=200, description="slices of each training and validation patient (paper: 2)")
    slices_test: int = Field(5, ge=1, le=200, description="slices of each test patient (paper: 16)")
    enhancement_low: float = Field(100.0, ge=20, le=600, description="lowest enhancement of a patient's blood, in HU")
    enhancement_high: float = Field(300.0, ge=20, le=600, description="highest enhancement of a patient's blood, in HU")
    calibre: float = Field(
        4.0, ge=0, le=20, description="diameter in mm from which the vessels of the lung visibly take up the agent"
    )
    confounder: float | None = Field(
        None,
        ge=0,
        le=1,
        description="share of the training and validation slices with agent that have a letter in the corner; of those "
        "without agent, 1 - share have one; none: no letters",
    )
    confounder_test: float = Field(
        0.5,
        ge=0,
        le=1,
        description="the same share in the test split: 0.5 is uninformative, 0 and 1 fully informative",
    )
    truth: Literal["agent", "letter"] = Field(
        "agent",
        description="what the masks mark: the blood that takes up the agent, or the letter if the slice has one",
    )
    seed: int = Field(0, ge=0, description="seed of patients, levels, noise and letters")

    @field_validator("enhancement_high")
    @classmethod
    def _an_interval(cls, value: float, options: ValidationInfo) -> float:
        low = options.data.get("enhancement_low")
        if low is not None and value < low:
            raise ValueError(f"it must not be below enhancement_low ({low:g})")
        return value

    @field_validator("confounder")
    @classmethod
    def _room_for_a_letter(cls, value: float | None, options: ValidationInfo) -> float | None:
        if value is not None and options.data.get("size", 64) < 64:
            raise ValueError("a letter beside the body needs a size of 64 or more")
        return value

    @field_validator("truth")
    @classmethod
    def _a_letter_to_mark(cls, value: str, options: ValidationInfo) -> str:
        if value == "letter" and options.data.get("confounder") is None:
            raise ValueError("there are letters only if confounder is set")
        return value

    @field_validator("confounder_test")
    @classmethod
    def _no_option_is_ignored(cls, value: float, options: ValidationInfo) -> float:
        if value != cls.model_fields["confounder_test"].default and options.data.get("confounder") is None:
            raise ValueError("it has a meaning only if confounder is set")
        return value
