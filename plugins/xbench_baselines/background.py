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
    """Training images that are drawn once and kept with the explainer, so that all maps of a run share a reference."""

    @staticmethod
    def draw(train: Split, size: int, session: Session) -> torch.Tensor:
        """Draw the pool by the session's seed, uniformly and without repetition, and write it into its folder.

        Args:
            train: The training split.
            size: Number of images to draw. If the split has fewer, all of them are drawn.
            session: Its seed decides the draw. Its folder keeps the pool.

        Returns:
            The pool in random order, float32 (B, C, *spatial) on the CPU, with B = min(size, len(train)).
        """
        where = rng(session.seed, "background").permutation(len(train))[:size]
        order = np.argsort(where)  # a split on disk is read from front to back
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
        """Return the pool that `draw` wrote, float32 (B, C, *spatial)."""
        return upload(load_file(folder / FILE)["images"], device)
