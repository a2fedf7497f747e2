"""Describe this machine as JSON: its accelerator, driver, libraries and their versions.

python benchmarks/performance/machine.py [--device cuda] [--json FILE]
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

import measuring
import torch


def driver() -> str | None:
    """Return the version of the NVIDIA GPU's driver, or None if nvidia-smi is missing or fails."""
    words = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.split()[0] if done.stdout.split() else None


def described(device: str) -> dict[str, Any]:
    """Return the facts about the machine that a reader of figures needs."""
    gpu = torch.cuda.is_available()
    return {
        "device": device,
        "GPU": torch.cuda.get_device_name() if gpu else "none that CUDA can use",
        "GPU memory, GB": round(torch.cuda.get_device_properties(0).total_memory / 2**30) if gpu else None,
        "driver": driver(),
        "CUDA of torch": torch.version.cuda,
        "cuDNN": torch.backends.cudnn.version() if gpu else None,
        "precision": "32: true float32, without TF32, where nothing else is said",
        **{name: metadata.version(name) for name in ("xbench", "torch", "timm", "numpy")},
        "Python": platform.python_version(),
        "processors": os.cpu_count(),
        "threads of torch": torch.get_num_threads(),
    }


def main() -> None:
    """Print and write the description of the machine."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    found = described(options.device)
    print(*(f"{key}: {value}" for key, value in found.items()), sep="\n")
    measuring.write(found, options.json)


if __name__ == "__main__":
    main()
