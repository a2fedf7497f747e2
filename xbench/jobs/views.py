"""The job of a classifier's view: the image that maximises the score of each class."""

from __future__ import annotations

import functools
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from xbench.contracts.session import Session
from xbench.jobs.base import Job, Settings
from xbench.jobs.model import ModelJob
from xbench.jobs.store import Store
from xbench.runtime.files import whole_file

if TYPE_CHECKING:
    from xbench.compute.class_maximization import ClassImages

VIEW = "class_images.npz"


class ViewJob(Job):
    """Class maximisation of a shared model. No metric uses it."""

    kind = "view"

    def __init__(self, store: Store, settings: Settings, model: ModelJob) -> None:
        super().__init__(store, settings)
        self.model = model

    @property
    def label(self) -> str:
        return self.model.label

    @property
    def upstream(self) -> tuple[Job, ...]:
        return (self.model,)

    def identity(self) -> dict[str, Any]:
        return self.machine()

    def build(self, session: Session) -> None:
        from xbench.compute.class_maximization import class_maximization

        with session.progress.task("class maximisation"):
            images = class_maximization(self.model.module, self.model.data.info)
        with whole_file(session.folder / VIEW) as file:
            np.savez(file, **asdict(images))

    @functools.cached_property
    def class_images(self) -> ClassImages:
        """The images, their scores and probabilities."""
        from xbench.compute.class_maximization import ClassImages

        with np.load(self.folder / VIEW, allow_pickle=False) as arrays:
            return ClassImages(**{key: arrays[key] for key in arrays.files})
