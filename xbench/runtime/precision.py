"""The precisions that there are, and which devices know them."""

from __future__ import annotations

PRECISIONS = ("32", "tf32", "bf16", "16")
"""True float32; TF32, the products of 10-bit mantissas of NVIDIA GPUs; autocast to bfloat16 and to float16."""


NO_TF32 = ("cpu", "mps")
"""Types of devices that know no TF32."""
