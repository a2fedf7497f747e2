"""Explain with every explainer on the CPU and on the pretend accelerator, and count what makes the host wait.

Run as a process of its own: the device stays registered. Writes JSON to the path that is its only argument:

    {explainer: {"reason": why it can't explain the network, or "",
                 "failure": what it raised on the pretend accelerator, or "",
                 "difference": of its maps from the CPU's, as a share of their largest value,
                 "waits": [[line, operation, count], ...] of one batch,
                 "longer": the same with twice the samples}}
"""

import copy
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pretend
import torch
from torch import nn

from xbench import Batch, DatasetInfo, Explainer, Session, Split
from xbench.compute.passes import unchanging
from xbench.contracts.explainer import MapTransform
from xbench.registry.discovery import discover
from xbench.registry.entries import Registry
from xbench.registry.references import Choice, choose
from xbench.runtime.randomness import normal_field
from xbench.runtime.seeding import rng
from xbench.testing.fakes import TinyModel, TinyOptions

SIDE, IMAGES = 32, 3
INFO = DatasetInfo("blobs", ("dim", "bright"), 1, (SIDE, SIDE), has_masks=True)
# Few of what a method repeats; twice as many must not make the host wait more often.
REPEATED = {"samples": 12, "masks": 130, "steps": 6, "background": 6}
ONCE = {"epochs": 1, "iterations": 2}
# Whose model is another than `convnet`.
MODELS = {"attention": "attention", "cam": "tiny"}


def split(count: int) -> Split:
    """Noise with a bright disk where the class is 1."""
    draws = rng(0, "pretend")
    images = draws.random((count, 1, SIDE, SIDE), dtype=np.float32) / 2
    rows, columns = np.mgrid[:SIDE, :SIDE]
    labels = np.arange(count) % 2
    masks = np.broadcast_to(np.hypot(rows - 14, columns - 18) < 6, (count, SIDE, SIDE))
    images[:, 0] += 0.4 * masks * labels[:, None, None]
    names = [str(index) for index in range(count)]
    return Split.from_arrays(images, labels, names, names, masks)


def network(registry: Registry, name: str = "convnet") -> nn.Module:
    """A classifier with batch norms as after a training."""
    torch.manual_seed(2)
    plugin = TinyModel(TinyOptions(batch_norm=True)) if name == "tiny" else choose("model", name, registry).create()
    model = plugin.build(INFO).eval().requires_grad_(False)
    for part in model.modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            part.running_mean.uniform_(-0.3, 0.3)
            part.running_var.uniform_(0.5, 1.5)
            part.weight.data.uniform_(0.5, 1.5)
            part.bias.data.uniform_(-0.2, 0.2)
    return model


def chosen(name: str, registry: Registry, factor: int = 1) -> tuple[Choice, Any]:
    """The explainer with few samples, or with `factor` times as many."""
    choice = choose("explainer", name, registry)
    known = type(choice.options).model_fields
    values = {key: factor * value for key, value in REPEATED.items() if key in known}
    values |= {key: value for key, value in ONCE.items() if key in known}
    return choice, choice.options.model_copy(update=values)


class Trial:
    """One explainer on both devices."""

    def __init__(self, name: str, registry: Registry, train: Split) -> None:
        self.choice, _ = chosen(name, registry)
        self.registry, self.train, self.name = registry, train, name
        self.folder = None

    def explainer(self, model: nn.Module, device: str, folder: str, factor: int = 1) -> Explainer:
        """Ready on a device. What is trained is trained on the CPU, once."""
        _, options = chosen(self.name, self.registry, factor)
        made = self.choice.entry.spec.load()(options)
        if made.trained:
            fresh = Path(folder) / str(factor if options != chosen(self.name, self.registry)[1] else 1)
            if not fresh.exists():
                fresh.mkdir()
                made.fit(model, self.train, self.train, INFO, Session(fresh, batch_size=8))
            made.restore(fresh, network_on(model, device), INFO, device)
        return made

    def maps(self, made: Any, model: nn.Module, device: str) -> tuple[np.ndarray, list[list[Any]]]:
        """Of one batch, on the host, and the waits they took."""
        batch = made.ready(self.train.batch(np.arange(IMAGES))).to(device)
        targets = torch.tensor([0, 1, 1]).to(device)
        explained = network_on(model, device)
        with unchanging(explained):  # as a run promises; the first batch makes what the others use
            self.work(made, explained, batch, targets)
            pretend.waits.clear()
            found = self.work(made, explained, batch, targets)
            waits = [[where, what, count] for (where, what), count in sorted(pretend.waits.items())]
        return found.cpu().numpy(), waits

    def work(self, made: Any, explained: nn.Module, batch: Batch, targets: torch.Tensor) -> torch.Tensor:
        """Maps, or what becomes of maps of noise."""
        if not isinstance(made, MapTransform):
            return made.explain(explained, batch, targets, self.name)
        noise = normal_field(batch.seeds, (SIDE, SIDE))
        return made.checked_transform(noise, batch, self.name)


_networks = {}


def network_on(model: nn.Module, device: str) -> nn.Module:
    """One copy a device."""
    if (model, device) not in _networks:
        _networks[model, device] = copy.deepcopy(model).to(device)
    return _networks[model, device]


def measured(name: str, registry: Registry, model: nn.Module, train: Split) -> dict[str, Any]:
    """The entry of one explainer."""
    trial = Trial(name, registry, train)
    entry: dict[str, Any] = {"reason": "", "failure": "", "difference": None, "waits": [], "longer": []}
    with tempfile.TemporaryDirectory() as folder:
        made = trial.explainer(model, "cpu", folder)
        entry["reason"] = made.supports(network_on(model, "cpu"), INFO) or ""
        if entry["reason"]:
            return entry
        expected, _ = trial.maps(made, model, "cpu")
        try:
            found, entry["waits"] = trial.maps(trial.explainer(model, pretend.NAME, folder), model, pretend.NAME)
            longer = trial.explainer(model, pretend.NAME, folder, factor=2)
            _, entry["longer"] = trial.maps(longer, model, pretend.NAME)
        except Exception as error:
            entry["failure"] = f"{type(error).__name__}: {error}"
            return entry
    entry["difference"] = float(abs(found - expected).max() / max(abs(expected).max(), 1e-12))
    return entry


def main(path: str) -> None:
    """Every explainer that comes with xbench."""
    registry, train = discover(), split(16)
    models = {model: network(registry, model) for model in ("convnet", *MODELS.values())}
    specs = [each.spec for each in registry.of_kind("explainer") if each.distribution == "xbench"]
    names = [
        f"{spec.name}:gradient" if spec.argument == "explainer" and not spec.default else spec.name for spec in specs
    ]
    torch.set_num_threads(1)
    found = {name: measured(name, registry, models[MODELS.get(name, "convnet")], train) for name in names}
    Path(path).write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    from xbench.runtime.devices import float32

    with float32("32"):
        main(sys.argv[1])
