"""CycleGAN activation maximization as an explainer."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors.torch import load_file, save
from torch import nn

from xbench import DatasetInfo, Explainer, Session, Split, UserError, undisturbed
from xbench.compute.training import predict, train_network
from xbench.runtime.randomness import isolated
from xbench_cyclegan_am.losses import Dssim, log_probabilities
from xbench_cyclegan_am.objective import CycleGAN, CycleGANObjective, Weights, build_generators
from xbench_cyclegan_am.options import CycleGANOptions, resolve
from xbench_cyclegan_am.relevance import relevance, transferred
from xbench_cyclegan_am.validation import distrust

WEIGHTS = "cyclegan_am.safetensors"
CONFIG = "cyclegan_am.json"
Module = TypeVar("Module", bound=nn.Module)
_SMALLEST = 8  # pixels of a side, of which one is left at the deepest stage


class CycleGANActivationMaximization(Explainer):
    """Katzmann et al., Explaining clinical decision support systems using cycle-consistent activation maximization.

    One generator per class learns, without labels, to change any image a little so that the classifier sees that class.
    A discriminator must not be able to tell the changed image from real ones, and another generator must be able to
    undo the change. The outputs of two generators differ where the classifier looks: R = G+(x) - G-(x) (equation 6).
    For a target c of K classes

        R_c = G_c(x) - mean over j != c of G_j(x)

    which for two classes is R for class 1 and -R for class 0. Channels are summed. R is a signed difference of
    *intensity*: positive where a brighter image would look more like class c, not where there is evidence for c. |R|,
    the absolute column, can be compared with other explainers. `transfer` returns G_k(x).

    The training is judged on the validation split. If it has failed (no shift, a shift that slight blur undoes, all
    images made alike, no similarity, no way back), the run and every score row say so.
    """

    options: CycleGANOptions
    _generators: Sequence[nn.Module] | None = None

    def supports(self, model: nn.Module, info: DatasetInfo) -> str | None:
        """Return a reason for images that are not two-dimensional or too small, and a classifier without gradient."""
        if len(info.spatial) != 2:
            return f"its networks take two-dimensional images, {info.name} has {len(info.spatial)} spatial axes"
        if min(info.spatial) < _SMALLEST:
            size = " x ".join(map(str, info.spatial))
            return f"its networks need {_SMALLEST} pixels a side, images of {info.name} have {size}"
        return no_gradient(model, info)

    def fit(self, model: nn.Module, train: Split, validation: Split, info: DatasetInfo, session: Session) -> None:
        """Train generators and discriminators in turn, and write the generators into the session's folder."""
        options = resolve(self.options, session.device, info.spatial)
        with isolated(session.seed, "initialise"):
            network = _laid_out(CycleGAN(info.channels, len(info.classes), options))
        weights = Weights(options.w_cycle, options.w_sim, options.w_adv, options.w_am)
        with undisturbed(model):
            objective = CycleGANObjective(network, model, weights, _dssim(options))
            history = train_network(objective, train, validation, options, session)
            logits, _ = predict(model, validation, session)
        state = {key: value.contiguous() for key, value in network.generators.state_dict().items()}
        (session.folder / WEIGHTS).write_bytes(save(state))
        (session.folder / CONFIG).write_text(json.dumps({"options": options.model_dump(mode="json")}, indent=2))
        original = log_probabilities(logits).exp().mean(0).tolist()
        session.facts |= _facts(options, history, original)

    def restore(self, folder: Path, model: nn.Module, info: DatasetInfo, device: str) -> None:
        """Read back what `fit` wrote. The preset is that of the training, whatever the device is now."""
        del model
        options = CycleGANOptions(**json.loads((folder / CONFIG).read_text())["options"])
        with isolated(0, "restore"):
            generators = build_generators(info.channels, len(info.classes), options)
        try:
            generators.load_state_dict(load_file(folder / WEIGHTS))
        except RuntimeError as error:
            raise UserError(f"{folder / WEIGHTS} does not fit its configuration: {error}", "train again") from error
        self._generators = list(_laid_out(generators).to(device).eval().requires_grad_(False))

    def attribute(self, model: nn.Module, images: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Return R of the target, or the `variant`: float32 (N, H, W), signed intensity differences."""
        del model
        with torch.no_grad():
            changed = [generator(images) for generator in self._trained()]
            return relevance(images, changed, targets, self.options.variant)

    def transfer(self, model: nn.Module, images: torch.Tensor, toward: torch.Tensor) -> torch.Tensor:
        """Return G_k(x) for the class k = `toward` of each image: (N, C, H, W), in [0, 1]."""
        del model
        with torch.no_grad():
            return transferred(images, toward, self._trained())

    def _trained(self) -> Sequence[nn.Module]:
        if self._generators is None:
            raise UserError("cyclegan-am is not trained yet", "call fit, then restore")
        return self._generators


def no_gradient(model: nn.Module, info: DatasetInfo) -> str | None:
    """Return a reason if the classifier's logits do not depend on the image for autograd, else None."""
    with undisturbed(model), torch.enable_grad():
        device = next((tensor.device for tensor in model.parameters()), torch.device("cpu"))
        logits = model(torch.zeros(1, info.channels, *info.spatial, device=device, requires_grad=True))
    return None if logits.requires_grad else "the classifier's logits have no gradient with respect to the image"


def _laid_out(network: Module) -> Module:
    # Channels last saves time of a training step on a CPU.
    return network.to(memory_format=torch.channels_last)


def _dssim(options: CycleGANOptions) -> Dssim:
    return Dssim(options.ssim_window, options.ssim_constants, options.ssim_scales, options.dssim_offset)


def _facts(options: CycleGANOptions, history: list[dict[str, float]], original: list[float]) -> dict[str, Any]:
    facts: dict[str, Any] = {"preset": options.preset, "validation_original": original}
    if not history:
        return facts | {"warning": "cyclegan-am was not trained: its generators are as they were initialised"}
    best = min(history, key=lambda row: row["validation_criterion"])
    figures = {key.removeprefix("validation_"): value for key, value in best.items() if key.startswith("validation_")}
    facts |= {f"validation_{name}": figures[name] for name in ("shift", "smoothed_shift", "ssim", "cycle_l1")}
    reason = distrust(figures, original)
    return facts | ({"warning": f"cyclegan-am did not converge: {reason}"} if reason else {})
