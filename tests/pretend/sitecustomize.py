"""With this folder on PYTHONPATH, every Python begins with the pretend accelerator: for scripts that take `--device`.

PYTHONPATH=$PWD/tests/pretend python benchmarks/performance/gpu.py --rehearse --device pretend
"""

import pretend  # noqa: F401
