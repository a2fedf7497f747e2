"""The jobs of a model: its weights, the calibration of its scoring copy, and predictions of the scored samples."""

from __future__ import annotations

import functools
import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from xbench.contracts.explainer import check_target
from xbench.contracts.model import Model, class_scores
from xbench.contracts.session import Session
from xbench.errors import PluginError, UserError, XbenchError
from xbench.jobs.base import Job, Settings
from xbench.jobs.data import DataJob
from xbench.jobs.store import Store
from xbench.provenance import content_digest
from xbench.registry.references import Choice
from xbench.runtime.devices import upload
from xbench.runtime.mapped import stacked
from xbench.runtime.randomness import isolated

if TYPE_CHECKING:
    import torch
    from torch import nn

    from xbench.compute.scorer import Scorer

WEIGHTS = "weights.safetensors"
_PICKLES = (".pt", ".pth", ".bin", ".ckpt", ".pkl")


class Subject(Protocol):
    """A classifier that maps are scored against: the shared model, or a self-explaining explainer's own."""

    @property
    def label(self) -> str:
        """The name shown in tables."""
        ...

    @property
    def job(self) -> Job:
        """The artifact that holds the classifier."""
        ...

    @property
    def module(self) -> nn.Module:
        """Module from images in [0, 1] to logits, in eval mode on the device."""
        ...


class ModelJob(Job):
    """The weights of a shared model, trained or loaded."""

    kind = "model"

    def __init__(self, store: Store, settings: Settings, choice: Choice, data: DataJob) -> None:
        super().__init__(store, settings)
        self.choice = choice
        self.data = data

    @property
    def label(self) -> str:
        return self.choice.label

    @property
    def job(self) -> Job:
        """This job, as a `Subject` needs it."""
        return self

    @property
    def upstream(self) -> tuple[Job, ...]:
        return (self.data,)

    @functools.cached_property
    def model(self) -> Model:
        """The plugin's object."""
        model: Model = self.choice.create()
        return model

    @property
    def own_weights(self) -> Path | None:
        """The user's weights, if any."""
        return getattr(self.choice.options, "weights", None)

    def identity(self) -> dict[str, Any]:
        identity = self.choice.identity()
        if self.own_weights is not None:
            check_weights(self.own_weights, self.settings.allow_pickle)
            return identity  # the options hold their content
        return identity | self.machine() | {"seed": self.settings.seed} | self._files()

    def _files(self) -> dict[str, Any]:
        """Return the contents of the files that the model reads; nothing for one that reads none."""
        try:
            digests = [content_digest(path) for path in self.model.files()]
        except OSError as error:
            raise UserError(f"model {self.label}: a file that it reads can't be read: {error}") from error
        return {"files": digests} if digests else {}

    def fresh(self) -> nn.Module:
        """Return the untrained module, initialised with the run's seed.

        Raises:
            PluginError: The plugin raised.
        """
        try:
            with isolated(self.settings.seed, "initialise"):
                return self.model.build(self.data.info)
        except XbenchError:
            raise
        except Exception as error:
            raise PluginError(f"{self.choice.entry.owner} can't be built: {type(error).__name__}: {error}") from error

    def build(self, session: Session) -> None:
        from safetensors.torch import save

        from xbench.compute.training import train_classifier

        module = self.fresh()
        if self.own_weights is not None:
            load_weights(module, self.own_weights, self.settings.allow_pickle)
        else:
            train, validation = self.data.split("train"), self.data.split("validation")
            if self.model.fits_itself:
                self.model.fit(module, train, validation, session)
            else:
                train_classifier(module, train, validation, self.model.options, session)
        state = {key: value.detach().cpu().contiguous().clone() for key, value in module.state_dict().items()}
        (session.folder / WEIGHTS).write_bytes(save(state))

    @functools.cached_property
    def module(self) -> nn.Module:
        """The trained module, in eval mode on the device."""
        module = self.fresh()
        load_weights(module, self.folder / WEIGHTS)
        return module.to(self.settings.device).eval()

    def forget(self) -> None:
        """Drop the plugin's object and the trained module."""
        for name in ("model", "module"):
            vars(self).pop(name, None)


def check_weights(path: Path, allow_pickle: bool) -> None:
    """Refuse a missing file, and a pickle that the user did not allow.

    Raises:
        UserError: The file is refused. The error names the file and says what to do.
    """
    if not path.is_file():
        raise UserError(f"weights {path} do not exist", "weights=<path of a .safetensors file>")
    if path.suffix != ".safetensors" and not allow_pickle:
        raise UserError(
            f"weights {path} are not safetensors; a pickle can run any code when it is read",
            "convert them with safetensors.torch.save_file, or say --allow-pickle if you trust the file",
        )


def load_weights(module: nn.Module, path: Path, allow_pickle: bool = False) -> None:
    """Load a state dict into `module`, strictly.

    Raises:
        UserError: The file can't be read, or does not fit the module. The error names the first differences.
    """
    import torch
    from safetensors.torch import load_file

    check_weights(path, allow_pickle)
    try:
        if path.suffix == ".safetensors":
            state = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=False)  # the user said --allow-pickle
            state = state.get("state_dict", state)
    except Exception as error:
        raise UserError(f"weights {path} can't be read: {error}") from error
    own = module.state_dict()
    wrong = [f"missing {key}" for key in own.keys() - state.keys()]
    wrong += [f"unexpected {key}" for key in state.keys() - own.keys()]
    wrong += [
        f"{key} is {tuple(state[key].shape)}, expected {tuple(own[key].shape)}"
        for key in own.keys() & state.keys()
        if state[key].shape != own[key].shape
    ]
    if wrong:
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise UserError(f"weights {path} do not fit the model: {'; '.join(sorted(wrong)[:3])}{more}")
    module.load_state_dict(state)


class CalibrationJob(Job):
    """The recipe of the fastest equivalent copy of a classifier, and its batch size.

    It is kept so that a resumed run computes the same numbers.
    """

    kind = "calibration"

    def __init__(self, store: Store, settings: Settings, subject: Subject, data: DataJob) -> None:
        super().__init__(store, settings)
        self.subject = subject
        self.data = data

    @property
    def label(self) -> str:
        return self.subject.label

    @property
    def upstream(self) -> tuple[Job, ...]:
        return (self.subject.job, self.data)

    def identity(self) -> dict[str, Any]:
        return self.machine() | {"batch_size": self.settings.batch_size}

    def build(self, session: Session) -> None:
        from xbench.compute.scorer import calibrate

        validation = self.data.split("validation")
        probe = validation.batch(np.arange(min(len(validation), 64))).images
        with session.progress.task("calibrating the scoring batch"):
            recipe = calibrate(
                self.subject.module, probe, self.settings.device, self.settings.precision, self.settings.batch_size
            )
        (session.folder / "recipe.json").write_text(json.dumps(asdict(recipe)))
        session.facts |= asdict(recipe)

    @functools.cached_property
    def scorer(self) -> Scorer:
        """The scoring copy on the device."""
        from xbench.compute.scorer import Scorer, ScoringRecipe

        recipe = ScoringRecipe(**json.loads((self.folder / "recipe.json").read_text()))
        return Scorer(self.subject.module, recipe, self.settings.device)

    def forget(self) -> None:
        """Drop the scoring copy."""
        vars(self).pop("scorer", None)

    @property
    def batch_size(self) -> int:
        """The calibrated batch size."""
        return int(self.facts["batch_size"])


class PredictionsJob(Job):
    """Logits of the scored samples.

    Args:
        store: The cache.
        settings: Settings of the run.
        calibration: Calibration of the classifier.
        data: The dataset whose scored samples are predicted. By default, the dataset of the calibration.
    """

    kind = "predictions"

    def __init__(
        self, store: Store, settings: Settings, calibration: CalibrationJob, data: DataJob | None = None
    ) -> None:
        super().__init__(store, settings)
        self.calibration = calibration
        self.data = calibration.data if data is None else data

    @property
    def label(self) -> str:
        return f"{self.calibration.label} on {self.data.label}"

    @property
    def upstream(self) -> tuple[Job, ...]:
        return (self.calibration,)

    def identity(self) -> dict[str, Any]:
        return {"split": self.settings.split, "limit": self.settings.limit}

    def build(self, session: Session) -> None:
        scored, scorer = self.data.scored, self.calibration.scorer

        def predicted(start: int, stop: int) -> torch.Tensor:
            return scorer(upload(scored.batch(np.arange(start, stop)).images, self.settings.device))

        parts = session.resized(self.calibration.batch_size).batched(len(scored), predicted, "predicting")
        logits = stacked((logits for _, logits in parts), len(scored))
        np.save(session.folder / "logits.npy", logits)

    @functools.cached_property
    def of_training(self) -> PredictionsJob:
        """Predictions of the whole training split by the same copy of the classifier."""
        data = self.data.of_training
        return PredictionsJob(self.store, data.settings, self.calibration, data)

    @functools.cached_property
    def logits(self) -> np.ndarray:
        """Logits, float32 (N, K)."""
        logits: np.ndarray = np.load(self.folder / "logits.npy")
        return logits

    @functools.cached_property
    def targets(self) -> np.ndarray:
        """The class that the map of each sample explains, by the run's `target`, int64 (N,)."""
        import torch

        scores = class_scores(torch.from_numpy(self.logits))
        rule = check_target(self.settings.target, scores.shape[1])
        if rule == "predicted":
            return np.asarray(scores.argmax(1).numpy(), dtype=np.int64)
        if rule == "true":
            return self.data.scored.labels.copy()
        return np.full(len(self.data.scored), rule, dtype=np.int64)
