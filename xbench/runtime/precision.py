"""The precisions of a run, and the devices without TF32."""

from __future__ import annotations

PRECISIONS = ("32", "tf32", "bf16", "16")
"""True float32; TF32 (products of 10-bit mantissas on NVIDIA GPUs); autocast to bfloat16; autocast to float16."""


NO_TF32 = ("cpu", "mps")
"""Types of devices without TF32."""
