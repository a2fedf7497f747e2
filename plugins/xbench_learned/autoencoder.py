"""Explainers with auto-encoders of normal images: what they can't reproduce, and what the classifier loses without."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save
from torch import nn

from xbench import Batch, DatasetInfo, Explainer, Session, Split, UserError
from xbench.compute.passes import chunks, forward
from xbench.compute.training import Objective, train_network
from xbench.runtime.randomness import isolated, normal_field
from xbench.runtime.seeding import derive
from xbench_learned.options import AutoencoderOptions, PerturbationOptions, VariationalOptions

WEIGHTS = "autoencoder.safetensors"
_VALIDATION_STREAM = derive(0, "codes of validation images")
_CONVOLUTION = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
_BATCH_NORM = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
_BOTTLENECK = 8  # the longest side of the features that the code is made from, in pixels
_DOUBLINGS = 2  # doublings of the width; deeper levels of larger images keep the width


class AutoencoderNetwork(nn.Module):
    """x -> code -> D(code): the image is halved until no side is above 8 pixels, then one dense layer makes the code.

    The convolutions are 3 wide, with batch norm and ReLU. The decoder enlarges by repetition before its convolutions.
    The code has no spatial axes, so that a small finding can't pass through it at its own position.

    Args:
        channels: Number of channels, C.
        spatial: Size of the images, with 1 to 3 axes.
        width: Channels of the first level.
        latent: Length of the code, L.
        variational: Whether the encoder gives the mean and the logarithm of the variance of q(z|x), instead of z alone.
    """

    def __init__(
        self, channels: int, spatial: tuple[int, ...], width: int, latent: int, variational: bool = False
    ) -> None:
        super().__init__()
        levels = max(1, math.ceil(math.log2(max(spatial) / _BOTTLENECK)))
        sizes = [tuple(math.ceil(side / 2**level) for side in spatial) for level in range(levels + 1)]
        widths = [width * 2 ** min(level, _DOUBLINGS) for level in range(levels)]
        axes, flat = len(spatial), widths[-1] * math.prod(sizes[-1])
        down = [_level(a, b, axes, stride=2) for a, b in itertools.pairwise([channels, *widths])]
        self.latent = latent
        self.encoder = nn.Sequential(*down, nn.Flatten(), nn.Linear(flat, latent * (2 if variational else 1)))
        up: list[nn.Module] = []
        narrower = [*reversed(widths[:-1]), widths[0]]
        for size, before, after in zip(reversed(sizes[:-1]), reversed(widths), narrower, strict=True):
            up += [nn.Upsample(size=size), _level(before, after, axes, stride=1)]
        self.decoder = nn.Sequential(
            nn.Linear(latent, flat),
            nn.ReLU(),
            nn.Unflatten(1, (widths[-1], *sizes[-1])),
            *up,
            _CONVOLUTION[axes](widths[0], channels, 3, padding=1),
            nn.Sigmoid(),
        )

    def encode(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return the mean (N, L), and the log variance (N, L) or None, of images (N, C, *spatial)."""
        code = self.encoder(images)
        if code.shape[1] == self.latent:
            return code, None
        mean, log_variance = code.chunk(2, dim=1)
        return mean, log_variance

    def decode(self, code: torch.Tensor) -> torch.Tensor:
        """Return the images of codes: (N, L) -> (N, C, *spatial), in [0, 1]."""
        images: torch.Tensor = self.decoder(code)
        return images

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return D(E(x)), (N, C, *spatial), in [0, 1]; for a variational network, D of the mean of q(z|x)."""
        return self.decode(self.encode(images)[0])


def kl_to_standard_normal(mean: torch.Tensor, log_variance: torch.Tensor) -> torch.Tensor:
    """Return KL(N(mean, variance) || N(0, 1)) in nats, summed over the code (Kingma & Welling, B): (N, L) -> (N,).

    1/2 sum (mean^2 + variance - 1 - log variance)
    """
    return 0.5 * (mean**2 + torch.expm1(log_variance) - log_variance).sum(1)


class ReconstructionObjective(Objective):
    """Mean squared error of a pixel. For a variational network, it is minus the evidence bound of a pixel.

    -ELBO / CP = mean (x - D(z))^2 / (2 noise^2) + beta KL(q(z|x) || N(0, 1)) / CP,  z drawn from q(z|x)

    (Kingma & Welling, equation 10, with one draw, without the Gaussian's constant; an image has CP values.)
    """

    network: AutoencoderNetwork

    def __init__(self, network: AutoencoderNetwork, beta: float = 0.0, noise: float = 0.5**0.5) -> None:
        self.network = network
        self._beta, self._noise = beta, noise

    def loss(self, batch: Batch, noise: torch.Generator) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Return the loss and its terms. z comes from torch's global generator, which training seeds at each epoch."""
        del noise
        terms = self._terms(batch.images, None)
        return terms.pop("loss"), {name: value.detach() for name, value in terms.items()}

    def validate(self, split: Split, session: Session) -> dict[str, float]:
        """Return the loss as the criterion and its terms, with the same draw for an image every time."""
        self.network.eval()
        sums: dict[str, torch.Tensor] = {}

        def terms_of(start: int, stop: int) -> dict[str, torch.Tensor]:
            batch = split.batch(np.arange(start, stop)).to(session.device)
            with torch.inference_mode():
                draw = normal_field(batch.seeds ^ _VALIDATION_STREAM, (self.network.latent,))
                with session.autocast():
                    return self._terms(batch.images, draw)

        for rows, terms in session.batched(len(split), terms_of):
            for name, value in terms.items():
                sums[name] = sums.get(name, torch.zeros_like(value)) + (rows.stop - rows.start) * value
        means = {name: float(value) / len(split) for name, value in sums.items()}
        return {"criterion": means.pop("loss"), **means}

    def _terms(self, images: torch.Tensor, draw: torch.Tensor | None) -> dict[str, torch.Tensor]:
        mean, log_variance = self.network.encode(images)
        if log_variance is None:
            error = _squared_error(images, self.network.decode(mean))
            return {"loss": error, "squared_error": error}
        mean, log_variance = mean.float(), log_variance.float()
        draw = torch.randn_like(mean) if draw is None else draw
        error = _squared_error(images, self.network.decode(mean + (log_variance / 2).exp() * draw))
        divergence = kl_to_standard_normal(mean, log_variance).mean()
        loss = error / (2 * self._noise**2) + self._beta * divergence / images[0].numel()
        return {"loss": loss, "squared_error": error, "divergence": divergence}


class Autoencoder(Explainer):
    """|x - D(E(x))|, summed over channels, of an auto-encoder that is trained only on normal images.

    The network can't draw what it has never seen, so a finding remains in the difference (Baur et al. 2021). The map is
    unsigned, and independent of the target and the model. It is an anomaly map, for comparison with explanations of a
    model. It also marks normal structures that are too fine for the code: noise, edges, vessels.
    """

    signed = False
    variational = False

    options: AutoencoderOptions
    _network: nn.Module | None = None

    def supports(self, model: nn.Module, info: DatasetInfo) -> str | None:
        """Return a reason for a class that the dataset does not have, and for images with more than three axes."""
        del model
        if self.options.normal >= len(info.classes):
            last = len(info.classes) - 1
            return f"{info.name} has no class normal={self.options.normal}: its classes are 0 to {last}"
        if len(info.spatial) not in _CONVOLUTION:
            return f"its network takes images of 1 to 3 axes, {info.name} has {len(info.spatial)}"
        return None

    def fit(self, model: nn.Module, train: Split, validation: Split, info: DatasetInfo, session: Session) -> None:
        """Train on the normal images of both splits. `model` is not used."""
        del model
        with isolated(session.seed, "initialise"):
            network = _laid_out(self._build(info), info)
        options = self.options
        if options.augment is None:
            square = len(info.spatial) > 1 and info.spatial[-1] == info.spatial[-2]
            options = options.model_copy(update={"augment": "dihedral" if square else "none"})
        normal = [_of_class(split, options.normal) for split in (train, validation)]
        history = train_network(self._objective(network), normal[0], normal[1], options, session)
        state = {key: value.contiguous() for key, value in network.state_dict().items()}
        (session.folder / WEIGHTS).write_bytes(save(state))
        session.facts |= {"normal": info.classes[options.normal], "normal_images": len(normal[0])}
        if history:
            best = min(history, key=lambda row: row["validation_criterion"])
            session.facts["validation_squared_error"] = best["validation_squared_error"]

    def restore(self, folder: Path, model: nn.Module, info: DatasetInfo, device: str) -> None:
        """Read back what `fit` wrote."""
        del model
        with isolated(0, "overwritten at once"):
            network = self._build(info)
        try:
            network.load_state_dict(load_file(folder / WEIGHTS))
        except RuntimeError as error:
            raise UserError(f"{folder / WEIGHTS} does not fit the options: {error}", "train again") from error
        self._network = _laid_out(network, info).to(device).eval()

    def attribute(self, model: nn.Module, images: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Return maps (N, *spatial), not negative, the same for every target and model."""
        del model, targets
        return (images - self.reconstruct(images)).abs().sum(1)

    def reconstruct(self, images: torch.Tensor) -> torch.Tensor:
        """Return D(E(x)): (N, C, *spatial) -> the same shape, in [0, 1].

        Raises:
            UserError: The network is not trained yet.
        """
        if self._network is None:
            raise UserError("the auto-encoder is not trained yet", "call fit, then restore")
        with torch.no_grad():
            reconstruction: torch.Tensor = self._network(images)
        return reconstruction

    def _build(self, info: DatasetInfo) -> AutoencoderNetwork:
        options = self.options
        return AutoencoderNetwork(info.channels, info.spatial, options.width, options.latent, self.variational)

    def _objective(self, network: AutoencoderNetwork) -> ReconstructionObjective:
        return ReconstructionObjective(network)


class VariationalAutoencoder(Autoencoder):
    """|x - D(mean of q(z|x))| of a variational auto-encoder (Kingma & Welling 2014) of normal images.

    Its code is noisy in training and kept near N(0, 1), so that every code stands for a normal image. For the meaning
    of the map, see `Autoencoder`. Nothing is drawn for a map.
    """

    variational = True
    options: VariationalOptions

    def _objective(self, network: AutoencoderNetwork) -> ReconstructionObjective:
        return ReconstructionObjective(network, self.options.beta, self.options.noise)


class VaePerturbation(VariationalAutoencoder):
    """Occlusion by the normal-looking reconstruction (after Uzunova et al. 2019).

        A(p) = mean over the windows w that cover p of  S_c(x) - S_c(x with D(E(x)) inside w)

    The map is signed: positive where the classifier found evidence for the target that a normal image would not have
    there. Uzunova et al. optimise a mask that is filled by the reconstruction. Here windows slide, as in Zeiler &
    Fergus 2014, section 4.2, and no mask can adapt to the network. Windows start every `stride` pixels until the far
    border is covered, and are cut off there, as in captum's `Occlusion`. That makes the same maps, but image by image
    and window by window.
    """

    signed = True
    options: PerturbationOptions

    def attribute(self, model: nn.Module, images: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Return A, (N, *spatial)."""
        fill, score = self.reconstruct(images), forward(model, images)
        stride = self.options.stride or max(1, self.options.window // 2)
        inside = [_windows(side, self.options.window, stride, images.device) for side in images.shape[2:]]
        with torch.no_grad():
            drops = score(images).gather(1, targets[:, None]) - _scores_without(score, images, fill, targets, inside)
        drops = drops.view(-1, *(len(axis) for axis in inside))
        return _spread(drops, inside) / _spread(torch.ones_like(drops[:1]), inside)


def _windows(side: int, window: int, stride: int, device: torch.device) -> torch.Tensor:
    """Return which pixels lie in which window, along one axis: bool (windows, side)."""
    count = max(0, math.ceil((side - window) / stride)) + 1
    first = stride * torch.arange(count, device=device)[:, None]
    pixels = torch.arange(side, device=device)
    return (pixels >= first) & (pixels < first + window)


def _scores_without(
    score: Callable[[torch.Tensor], torch.Tensor],
    images: torch.Tensor,
    fill: torch.Tensor,
    targets: torch.Tensor,
    inside: Sequence[torch.Tensor],
) -> torch.Tensor:
    """Return the targets' scores with one window after another replaced by `fill`: (N, windows of all axes)."""
    counts = [len(axis) for axis in inside]
    windows = math.prod(counts)
    scores = images.new_empty(len(images) * windows)

    def work(start: int, stop: int) -> None:
        rows = torch.arange(start, stop, device=images.device)
        which, left = rows // windows, rows % windows
        mask = torch.ones((), dtype=torch.bool, device=images.device)
        for position, (axis, count) in enumerate(zip(inside, counts, strict=True)):
            left_after = math.prod(counts[position + 1 :])
            covered = axis[left // left_after % count]
            mask = mask[..., None] & covered.view(len(rows), *[1] * position, -1)
        changed = torch.where(mask[:, None], fill[which], images[which])
        scores[start:stop] = score(changed).gather(1, targets[which, None]).squeeze(1)

    chunks(len(scores), images, work)
    return scores.view(len(images), windows)


def _spread(values: torch.Tensor, inside: Sequence[torch.Tensor]) -> torch.Tensor:
    """Return the sum of the values of the windows that cover each pixel: (N, *windows) -> (N, *spatial)."""
    for axis in inside:
        values = torch.tensordot(values, axis.to(values.dtype), dims=([1], [0]))
    return values


def _laid_out(network: AutoencoderNetwork, info: DatasetInfo) -> AutoencoderNetwork:
    # Channels last saves four tenths of the time of a training step on a CPU.
    if len(info.spatial) == 2:
        network.to(memory_format=torch.channels_last)
    return network


def _of_class(split: Split, label: int) -> Split:
    return split.select(np.flatnonzero(split.labels == label))


def _squared_error(images: torch.Tensor, reconstructions: torch.Tensor) -> torch.Tensor:
    return ((images - reconstructions.float()) ** 2).mean()


def _level(channels: int, width: int, axes: int, stride: int) -> nn.Sequential:
    # No bias, because the batch norm would remove it.
    convolution = _CONVOLUTION[axes](channels, width, 3, stride=stride, padding=1, bias=False)
    return nn.Sequential(convolution, _BATCH_NORM[axes](width), nn.ReLU())
