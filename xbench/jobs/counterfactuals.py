"""What an explainer makes of an image when it is asked for another class; and the way there."""

from __future__ import annotations

import functools
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from xbench.contracts.model import probabilities
from xbench.contracts.session import Session
from xbench.jobs.base import Job, Settings
from xbench.jobs.gallery import gallery_samples
from xbench.jobs.maps import MapsJob
from xbench.jobs.store import Store
from xbench.runtime.batching import Batches
from xbench.runtime.devices import upload

if TYPE_CHECKING:
    import torch

STRIPS = "strips.npz"
_SAMPLES = 8
_STEPS = 4  # from the image to its counterfactual


@dataclass(frozen=True)
class FilmStrips:
    """Images on their way to their counterfactuals.

    For two classes one strip of t in [-1, 1], x + |t| (G_c(x) - x) with c = 0 where t < 0 and c = 1 where t > 0; for
    more, one strip of t in [0, 1] for each class c.

    Attributes:
        samples: int64 (n,), which of the scored samples.
        t: float32 (T,).
        frames: float16 (n, S, T, C, *spatial), S = 1 for two classes, else K.
        probabilities: float32 (n, S, T, K), of the frames.
    """

    samples: np.ndarray
    t: np.ndarray
    frames: np.ndarray
    probabilities: np.ndarray


class CounterfactualsJob(Job):
    """The film strips of a few samples by an explainer that makes counterfactual images; no metric sees them.

    Args:
        store: The cache.
        settings: Of the run.
        maps: Of the explainer; they need not be there.
    """

    kind = "counterfactuals"

    def __init__(self, store: Store, settings: Settings, maps: MapsJob) -> None:
        super().__init__(store, settings)
        self.maps = maps
        self.choice = maps.choice

    @property
    def label(self) -> str:
        return self.maps.label

    @property
    def upstream(self) -> tuple[Job, ...]:
        state = (self.maps.state,) if self.maps.state is not None else ()
        return (self.maps.model, self.maps.predictions, *state)

    def forget(self) -> None:
        """The explainer."""
        self.maps.forget()

    def identity(self) -> dict[str, Any]:
        return self.maps.resolved.identity() | self.machine() | {"seed": self.settings.seed}

    def build(self, session: Session) -> None:
        import torch

        logits, scored = self.maps.predictions.logits, self.maps.data.scored
        chances = probabilities(torch.from_numpy(logits)).numpy()
        samples = gallery_samples(scored.labels, chances, _SAMPLES)
        images = upload(scored.batch(samples).images, self.settings.device)
        with session.progress.task("transferring"):
            batches = Batches(len(images))  # one for all classes: what did not fit once is not tried again
            moved = [self._transferred(images, index, session.seed, batches) for index in range(chances.shape[1])]
            t, frames = _strips(images, moved)
            found = FilmStrips(samples, t, frames.half().cpu().numpy(), self._probabilities(frames))
        with (session.folder / STRIPS).open("wb") as file:
            np.savez_compressed(file, **asdict(found))

    def _transferred(self, images: torch.Tensor, index: int, seed: int, batches: Batches) -> torch.Tensor:
        """The images changed toward one class."""
        import torch

        ready, module, owner = self.maps.ready, self.maps.model.module, self.choice.entry.owner
        toward = torch.full((len(images),), index, dtype=torch.int64, device=images.device)

        def moved(start: int, stop: int) -> torch.Tensor:
            return ready.counterfactuals(module, images[start:stop], toward[start:stop], owner, seed)

        parts = [part for _, part in batches.results(len(images), moved)]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _probabilities(self, frames: torch.Tensor) -> np.ndarray:
        """float32 (n, S, T, K) of frames (n, S, T, C, *spatial)."""
        found = probabilities(self.maps.calibration.scorer(frames.flatten(0, 2))).float().cpu()
        result: np.ndarray = found.view(*frames.shape[:3], -1).numpy()
        return result

    @functools.cached_property
    def found(self) -> FilmStrips:
        """The strips, once they are made."""
        with np.load(self.folder / STRIPS, allow_pickle=False) as arrays:
            return FilmStrips(**{key: arrays[key] for key in arrays.files})


def _strips(images: torch.Tensor, moved: list[torch.Tensor]) -> tuple[np.ndarray, torch.Tensor]:
    """Images (n, C, *spatial) and their counterfactuals by class -> t (T,), frames (n, S, T, C, *spatial)."""
    import torch

    share = torch.linspace(0, 1, _STEPS + 1).to(images).view(1, -1, *[1] * (images.ndim - 1))
    ways = [images[:, None] + share * (one - images)[:, None] for one in moved]
    t = share.flatten().cpu().numpy()
    if len(moved) > 2:
        return t, torch.stack(ways, dim=1)
    down, up = ways
    return np.concatenate([-t[:0:-1], t]), torch.cat([down.flip(1), up[:, 1:]], dim=1)[:, None]
