"""A pool of training images: the reference distribution D of expected gradients and DeepSHAP."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save

from xbench import Session, Split
from xbench.runtime.devices import upload
from xbench.runtime.seeding import rng

FILE = "background.safetensors"


class Background:
    """Some training images, drawn once and kept beside the explainer, so that all maps of a run have one reference."""

    @staticmethod
    def draw(train: Split, size: int, session: Session) -> torch.Tensor:
        """Draw the pool by the session's seed, all images alike likely and none twice, and write it into its folder.

        Args:
            train: The training split.
            size: Images wanted; all of the split if it has fewer.
            session: Its seed decides; its folder keeps the pool.

        Returns:
            float32 (B, C, *spatial) on the CPU, B = min(size, len(train)), in random order.
        """
        where = rng(session.seed, "background").permutation(len(train))[:size]
        order = np.argsort(where)  # a split that lies on disk is read front to back
        images = torch.empty((len(where), *train.batch(where[:1]).images.shape[1:]))

        def read(start: int, stop: int) -> None:
            chunk = order[start:stop]
            images[torch.from_numpy(chunk)] = train.batch(where[chunk]).images.float()

        for _ in session.batched(len(order), read):
            pass
        (session.folder / FILE).write_bytes(save({"images": images}))
        return images

    @staticmethod
    def load(folder: Path, device: str) -> torch.Tensor:
        """Read the pool that `draw` wrote: float32 (B, C, *spatial)."""
        return upload(load_file(folder / FILE)["images"], device)
