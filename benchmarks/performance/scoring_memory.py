"""Peak memory of scoring fidelity for 200 and for 2,000 images, each in a process of its own.

python benchmarks/performance/scoring_memory.py [--device cpu]

Only the host's memory is measured. The device's memory depends on the batch size, not on the number of images.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

SIDE, STEP = 64, 0.25


def score(folder: Path, count: int, device: str) -> None:
    """Score the maps as a run does, with memory-mapped images and maps."""
    from xbench.compute.scorer import Scorer, ScoringRecipe
    from xbench.contracts.dataset import DatasetInfo, Split
    from xbench.contracts.metric import Case
    from xbench.contracts.session import Session
    from xbench.runtime.mapped import MappedArray, stacked
    from xbench_metrics.fidelity.fidelity import Fidelity
    from xbench_metrics.fidelity.options import FidelityOptions
    from xbench_models.convnet import ConvNet
    from xbench_models.options import ConvNetOptions

    info = DatasetInfo("noise", ("a", "b"), 1, (SIDE, SIDE))
    images = np.load(folder / "images.npy", mmap_mode="r")[:count]
    maps = MappedArray(np.load(folder / "maps.npy", mmap_mode="r")[:count])
    names = [str(index) for index in range(count)]
    module = ConvNet(ConvNetOptions()).build(info).eval()
    scorer = Scorer(module, ScoringRecipe(16, True, True, "32", 0.0, 0.0), device)
    split = Split.from_arrays(images, np.arange(count) % 2, names, names)
    logits = stacked((scorer(batch.images.to(device)).cpu() for batch in split.batches(16)), count)
    case = Case(
        info=info,
        split=split,
        train_mean=np.array([0.5], dtype=np.float32),
        logits_of=scorer,
        logits=logits,
        targets=np.zeros(count, dtype=np.int64),
        session=Session(folder, device, batch_size=16),
        maps=maps,
        prepared={"removed_logits": logits},
    )
    Fidelity(FidelityOptions(step=STEP)).observe(case)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def main() -> None:
    """Print both peaks and their ratio."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        score(Path(given.one[0]), int(given.one[1]), given.device)
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        draws = np.random.default_rng(0)
        np.save(folder / "images.npy", draws.random((2000, 1, SIDE, SIDE), dtype=np.float32))
        np.save(folder / "maps.npy", draws.random((2000, SIDE, SIDE), dtype=np.float32))
        peaks = []
        for count in (200, 2000):
            words = [sys.executable, __file__, "--device", given.device, "--one", name, str(count)]
            peaks.append(float(subprocess.run(words, check=True, capture_output=True, text=True).stdout.split()[-1]))
            print(f"{count:5d} images: peak {peaks[-1]:.0f} MB")
        print(f"ratio {peaks[1] / peaks[0]:.3f}")


if __name__ == "__main__":
    main()
