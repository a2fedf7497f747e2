"""The configuration of a run: options of the command line, over those of a TOML file, over defaults."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import field_validator

from xbench.contracts.options import Field, Options, parse_options
from xbench.errors import UserError
from xbench.runtime.precision import NO_TF32

Reference = str | dict[str, Any]
CELL_LISTS = ("explainer", "metric", "model", "dataset")
"""The lists whose combinations are the cells, in the order in which they are shown."""
DEVICES = "auto, cpu, cuda, cuda:1, mps"


class TableConfig(Options):
    """Options that determine the cells. They may differ between the tables of a suite."""

    explainer: tuple[Reference, ...] = Field((), description="explainers to score")
    metric: tuple[Reference, ...] = Field(("fidelity",), description="metrics to score them with")
    model: tuple[Reference, ...] = Field(("convnet",), description="classifiers to explain")
    dataset: tuple[Reference, ...] = Field(("lidc-phantom",), description="datasets")
    controls: bool = Field(True, description="whether to add the controls to the run")
    sign: Literal["original", "absolute", "both"] = Field(
        "original", description="sign of the scored maps: original, absolute (|map|), or both"
    )

    @field_validator(*CELL_LISTS, mode="before")
    @classmethod
    def _as_list(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str | Mapping) else value


class ScoringConfig(Options):
    """Options that determine the scores. They are the same for all tables of a suite."""

    target: str = Field("predicted", description="class to explain: predicted, true, or a class index")
    split: Literal["train", "validation", "test"] = Field("test", description="split to score")
    resamples: int = Field(2000, ge=100, description="number of bootstrap resamples for each interval")

    @field_validator("target", mode="before")
    @classmethod
    def _target_as_text(cls, value: Any) -> Any:
        return str(value)


class RunConfig(TableConfig, ScoringConfig):
    """The options of a run, as on the command line. Lists hold references, or tables with `name` and options."""

    limit: int | None = Field(None, ge=1, description="maximum number of samples to score (for trials)")
    seed: int = Field(0, ge=0, description="seed of everything random")
    device: str = Field("auto", description=DEVICES)
    precision: Literal["32", "tf32", "bf16", "16"] = Field(
        "32",
        description="precision of passes; 32: true float32 on every device; tf32: faster products of 10-bit mantissas "
        "on NVIDIA GPUs; bf16, 16: autocast of forward passes",
    )
    batch_size: int | None = Field(None, ge=1, description="size of batches without gradients; default: calibrated")
    workers: int = Field(1, ge=1, description="number of processes that share the work and the processors")
    conventions: Path | None = Field(
        None,
        description="TOML file with a grid of metric options, signs and blurs: which ranks hold under all of them",
    )
    model_view: bool = Field(True, description="whether to draw the image that maximises each class score of a model")
    out: Path | None = Field(None, description="run folder; default: xbench-runs/<time>")
    cache: Path | None = Field(None, description="cache folder; default: $XBENCH_CACHE or the user's cache folder")
    allow_pickle: bool = Field(False, description="read the user's own weights even if they are a pickle")

    @field_validator("precision", mode="before")
    @classmethod
    def _as_text(cls, value: Any) -> Any:
        return str(value)


def read_config(path: Path | None, cli_values: Mapping[str, Any]) -> RunConfig:
    """Merge a TOML file and the command line.

    Args:
        path: The file, or None.
        cli_values: The options that were given on the command line, without defaults.

    Raises:
        UserError: The file can't be read, a key is unknown or wrong, or no explainer was named.
    """
    values = read_toml(path, "configuration") if path is not None else {}
    owner = f"configuration {path}" if path is not None else "xbench run"
    config = parse_options(
        RunConfig, {key.replace("-", "_"): value for key, value in values.items()} | dict(cli_values), owner
    )
    if not config.explainer:
        raise UserError("no explainer was named", "xbench run --explainer vinet; xbench list shows them all")
    for word in CELL_LISTS:
        if not getattr(config, word):
            raise UserError(f"no {word} was named", f"xbench run --{word} ...; xbench list shows them all")
    return config


def read_toml(path: Path, what: str) -> dict[str, Any]:
    """Return the tables of a TOML file.

    Args:
        path: Path of the file.
        what: Name of the kind of file, for messages.

    Raises:
        UserError: The file does not exist, can't be read, or is not TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{what} {path} does not exist") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UserError(f"{what} {path} can't be read: {error}") from None


def resolve_device(wanted: str, precision: str = "32") -> str:
    """Return the device to use. "auto" means CUDA if there is a CUDA device, else the CPU.

    Raises:
        UserError: The device does not exist here, or does not support the precision.
    """
    import torch

    if wanted == "auto":
        wanted = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(wanted)
        torch.ones(1, device=device).item()  # the device "meta" gives no numbers back
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = re.split(r"[.:](?:\s|$)", str(error).splitlines()[0])[0][:120]
        raise UserError(f"device {wanted!r} can't be used: {reason}", f"try --device cpu; known: {DEVICES}") from None
    if precision == "tf32" and device.type in NO_TF32:
        raise UserError(f"device {wanted!r} has no TF32; only NVIDIA GPUs have it", "use --precision 32")
    return wanted
