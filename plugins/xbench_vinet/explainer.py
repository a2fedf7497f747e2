"""VINet as an explainer: its importance map explains, first of all, its own classifier."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save
from torch import nn

from xbench import DatasetInfo, Explainer, Session, Split, UserError
from xbench.compute.training import train_network
from xbench_vinet.importance import too_small
from xbench_vinet.network import OwnClassifier, VINetNetwork, build_network, unknown_classifier
from xbench_vinet.objective import VINetObjective
from xbench_vinet.options import VINetOptions, resolve

WEIGHTS = "vinet.safetensors"
CONFIG = "vinet.json"
_GIVEN = "classifier."  # weights of a frozen classifier, which are stored with the run's model


class VINet(Explainer):
    """Gu et al., VINet: A Visually Interpretable Image Diagnosis Network.

    An importance network and a classifier are trained together. The classifier sees noise where the map is low. The map
    does not depend on the target class, and shows what VINet's own classifier uses. Scored against another model
    (`subject=shared`), it is a guess at what any classifier of these images needs.

    Beware that the mask itself can carry the answer. The importance network may solve the task and encode the answer in
    the shape of the map, without showing the evidence. A high accuracy on kept pixels proves nothing; look at where the
    map lies.
    """

    signed = False
    self_explaining = True

    options: VINetOptions
    _network: VINetNetwork | None = None

    def supports(self, model: nn.Module, info: DatasetInfo) -> str | None:
        """Return a reason for images that are not two-dimensional or too small, and for an unknown classifier."""
        del model
        if len(info.spatial) != 2:
            return f"its networks take two-dimensional images, {info.name} has {len(info.spatial)} spatial axes"
        if self.options.classifier is not None and not self.options.frozen_classifier:
            reason = unknown_classifier(self.options.classifier)
            if reason is not None:
                return reason
        return too_small(self.options.importance, info.spatial)

    def fit(self, model: nn.Module, train: Split, validation: Split, info: DatasetInfo, session: Session) -> None:
        """Train both networks jointly, and write weights and configuration into the session's folder.

        `model` is only used with `frozen_classifier`, and then a copy of it.
        """
        options = resolve(self.options, session.device, info.spatial)
        network = _laid_out(build_network(options, info, session.seed, self._given(model)))
        objective = VINetObjective(network, options.alpha)
        history = train_network(objective, train, validation, options, session)
        weights = {key: value for key, value in network.state_dict().items() if _ours(key, network)}
        content = save({key: value.contiguous() for key, value in weights.items()})
        (session.folder / WEIGHTS).write_bytes(content)
        config = {"options": options.model_dump(mode="json"), "seed": session.seed}
        (session.folder / CONFIG).write_text(json.dumps(config, indent=2))
        session.facts |= _facts(options, network, history)

    def restore(self, folder: Path, model: nn.Module, info: DatasetInfo, device: str) -> None:
        """Read back what `fit` wrote. The preset is that of the training, whatever the device is now."""
        config = json.loads((folder / CONFIG).read_text())
        network = _laid_out(build_network(VINetOptions(**config["options"]), info, config["seed"], self._given(model)))
        _load_weights(network, folder / WEIGHTS)
        self._network = network.to(device).eval()

    def attribute(self, model: nn.Module, images: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Return the importance map M, float32 (N, H, W), in (0, 1], the same for every target."""
        del model, targets
        with torch.no_grad():
            return self._trained().importance_map(images)

    def classifier(self) -> nn.Module:
        """Return VINet's own classifier behind its destruction: images -> logits (N, K), deterministic."""
        return OwnClassifier(self._trained()).eval()

    def masked_logits(self, images: torch.Tensor, maps: torch.Tensor) -> torch.Tensor:
        """Return its own classifier's logits (N, K) of images destroyed by the given maps.

        With the images' own maps, these are the logits of `classifier`.

        Args:
            images: float32 (N, C, H, W), in [0, 1].
            maps: float32 (N, H, W), in (0, 1]: importance maps of these images, or of others.
        """
        with torch.no_grad():
            return self._trained().read(images, maps)

    def _trained(self) -> VINetNetwork:
        if self._network is None:
            raise UserError("vinet is not trained yet", "call fit, then restore")
        return self._network

    def _given(self, model: nn.Module) -> nn.Module | None:
        return copy.deepcopy(model) if self.options.frozen_classifier else None


def _laid_out(network: VINetNetwork) -> VINetNetwork:
    # Channels last saves a quarter of the time of a training step on a CPU.
    return network.to(memory_format=torch.channels_last)


def _load_weights(network: VINetNetwork, path: Path) -> None:
    try:
        missing, unexpected = network.load_state_dict(load_file(path), strict=False)
    except RuntimeError as error:
        raise UserError(f"{path} does not fit its configuration: {error}", "train again") from error
    strangers = [key for key in missing if _ours(key, network)] + unexpected
    if strangers:
        raise UserError(f"{path} does not fit its configuration: {strangers[0]}", "train again")


def _ours(key: str, network: VINetNetwork) -> bool:
    return not (network.frozen and key.startswith(_GIVEN))


def _facts(options: VINetOptions, network: VINetNetwork, history: list[dict[str, float]]) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "preset": options.preset,
        "importance_network": options.importance,
        "classifier": "the run's model" if network.frozen else options.classifier,
        "destroyed": ["input", *(stage.module for stage in network.stages)],
    }
    if history:
        best = min(history, key=lambda row: row["validation_criterion"])
        facts |= {
            "validation_accuracy": best["validation_accuracy"],
            "validation_importance_loss": best["validation_importance"],
            "validation_kept_pixels": best["validation_kept"],
        }
    return facts
