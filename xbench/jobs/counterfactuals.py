"""Film strips from an image to the counterfactual that an explainer makes for another class."""

from __future__ import annotations

import functools
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from xbench.contracts.model import probabilities
from xbench.contracts.session import Session
from xbench.jobs.base import Job, Settings
from xbench.jobs.explanation import LiveExplainer
from xbench.jobs.gallery import gallery_samples
from xbench.jobs.maps import MapsJob
from xbench.jobs.store import Store
from xbench.runtime.batching import Batches
from xbench.runtime.devices import upload
from xbench.runtime.files import whole_file

if TYPE_CHECKING:
    import torch

STRIPS = "strips.npz"
_SAMPLES = 8
_STEPS = 4  # from the image to its counterfactual


@dataclass(frozen=True)
class FilmStrips:
    """Frames on the way from images to their counterfactuals.

    For two classes there is one strip of t in [-1, 1]: x + |t| (G_c(x) - x) with c = 0 where t < 0 and c = 1 where t >
    0. For more classes there is one strip of t in [0, 1] for each class c.

    Attributes:
        samples: Indices of the images among the scored samples, int64 (n,).
        t: Positions of the frames, float32 (T,).
        frames: float16 (n, S, T, C, *spatial), S = 1 for two classes, else K.
        probabilities: Class probabilities of the frames, float32 (n, S, T, K).
    """

    samples: np.ndarray
    t: np.ndarray
    frames: np.ndarray
    probabilities: np.ndarray


class CounterfactualsJob(Job):
    """The film strips of a few samples by an explainer that makes counterfactual images.

    They show the same images that metrics score.

    Args:
        store: The cache.
        settings: Settings of the run.
        maps: Maps of the explainer. They need not be built.
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
        """Drop the explainer."""
        self.maps.forget()

    def identity(self) -> dict[str, Any]:
        return self.maps.resolved.identity() | self.machine() | {"seed": self.settings.seed}

    def build(self, session: Session) -> None:
        import torch

        from xbench.compute.passes import unchanging

        logits, scored = self.maps.predictions.logits, self.maps.data.scored
        chances = probabilities(torch.from_numpy(logits)).numpy()
        samples = gallery_samples(scored.labels, chances, _SAMPLES)
        images = upload(scored.batch(samples).images, self.settings.device)
        # The same promise as for the metrics, so that passes through the model round in the same way.
        with session.progress.task("transferring"), unchanging(self.maps.model.module):
            t, frames = _strips(images, self._transferred(images, samples, chances.shape[1]))
            strips = FilmStrips(samples, t, frames.half().cpu().numpy(), self._probabilities(frames))
        with whole_file(session.folder / STRIPS) as file:
            np.savez_compressed(file, **asdict(strips))

    def _transferred(self, shown: torch.Tensor, samples: np.ndarray, classes: int) -> list[torch.Tensor]:
        """Return the images changed toward each class, with the seed and in the batches in which they are scored.

        The draws of an explainer from torch's global generators depend on both (`xbench.runtime.seeding`), so the other
        samples of each batch are changed too.

        Args:
            shown: Images, (n, C, *spatial).
            samples: Their indices in the split, int64 (n,).
            classes: Number of classes, K.

        Returns:
            K tensors (n, C, *spatial), one per class.
        """
        import torch

        scored, size = self.maps.data.scored, self.maps.calibration.batch_size
        fitting = Batches(size)  # one for all: what did not fit once is not tried again
        moved = [torch.empty_like(shown) for _ in range(classes)]
        for number in np.unique(samples // size):
            rows = np.arange(number * size, min((number + 1) * size, len(scored)))
            images = upload(scored.batch(rows).images, self.settings.device)
            here = np.flatnonzero(samples // size == number)
            for index, of_class in enumerate(moved):
                changed = self._toward(images, index, fitting)
                of_class[torch.from_numpy(here)] = changed[torch.from_numpy(samples[here] - rows[0])]
        return moved

    def _toward(self, images: torch.Tensor, index: int, fitting: Batches) -> torch.Tensor:
        """Change images toward one class."""
        import torch

        explanation = LiveExplainer(self.maps, absolute=False)
        toward = torch.full((len(images),), index, dtype=torch.int64, device=images.device)

        def moved(start: int, stop: int) -> torch.Tensor:
            return explanation.transfer(images[start:stop], toward[start:stop])

        return torch.cat([part for _, part in fitting.results(len(images), moved)])

    def _probabilities(self, frames: torch.Tensor) -> np.ndarray:
        """Return the class probabilities (n, S, T, K) of frames (n, S, T, C, *spatial), float32."""
        by_frame = probabilities(self.maps.calibration.scorer(frames.flatten(0, 2))).float().cpu()
        by_strip: np.ndarray = by_frame.view(*frames.shape[:3], -1).numpy()
        return by_strip

    @functools.cached_property
    def strips(self) -> FilmStrips:
        """The strips, read from their files."""
        with np.load(self.folder / STRIPS, allow_pickle=False) as arrays:
            return FilmStrips(**{key: arrays[key] for key in arrays.files})


def _strips(images: torch.Tensor, moved: list[torch.Tensor]) -> tuple[np.ndarray, torch.Tensor]:
    """Return t (T,) and frames (n, S, T, C, *spatial) of images (n, C, *spatial) and their counterfactuals by class."""
    import torch

    share = torch.linspace(0, 1, _STEPS + 1).to(images).view(1, -1, *[1] * (images.ndim - 1))
    ways = [images[:, None] + share * (counterfactuals - images)[:, None] for counterfactuals in moved]
    t = share.flatten().cpu().numpy()
    if len(moved) > 2:
        return t, torch.stack(ways, dim=1)
    down, up = ways
    return np.concatenate([-t[:0:-1], t]), torch.cat([down.flip(1), up[:, 1:]], dim=1)[:, None]
