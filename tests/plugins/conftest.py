"""Batches, maps of them, and networks for the tests of several families of explainers."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from torch import nn

from xbench import Batch, Explainer, Split
from xbench.runtime.seeding import rng, sample_seeds
from xbench.testing.networks import ConvNetwork, LinearNetwork


@pytest.fixture
def batch_of() -> Callable[..., Batch]:
    """A batch of unlabelled images without masks."""

    def build(
        images: torch.Tensor | np.ndarray, ids: Sequence[str] | None = None, feature: np.ndarray | None = None
    ) -> Batch:
        images, ids = torch.as_tensor(images), tuple(ids or (f"sample-{index}" for index in range(len(images))))
        return Batch(
            images=images,
            labels=torch.zeros(len(images), dtype=torch.int64),
            ids=ids,
            groups=ids,
            masks=torch.zeros((len(images), *images.shape[2:]), dtype=torch.bool),
            has_mask=torch.zeros(len(images), dtype=torch.bool),
            seeds=torch.from_numpy(sample_seeds(0, ids)),
            feature=None if feature is None else torch.as_tensor(feature, dtype=torch.int32),
        )

    return build


@pytest.fixture
def explain(batch_of: Callable[..., Batch]) -> Callable[..., torch.Tensor]:
    """Maps of images, or of a batch; of class 0 without targets."""

    def run(
        explainer: Explainer,
        model: nn.Module,
        images: torch.Tensor | np.ndarray | Batch,
        targets: Sequence[int] | torch.Tensor | None = None,
        ids: Sequence[str] | None = None,
    ) -> torch.Tensor:
        batch = images if isinstance(images, Batch) else batch_of(images, ids)
        targets = torch.zeros(len(batch), dtype=torch.int64) if targets is None else torch.as_tensor(targets)
        return explainer.explain(model, batch, targets, "under test")

    return run


@pytest.fixture
def styled_network() -> Callable[..., ConvNetwork]:
    """The same weights whatever the style of its ReLUs, batch norms with statistics and scales of their own."""

    def build(relu: str = "module", channels: int = 3, outputs: int = 3) -> ConvNetwork:
        torch.manual_seed(0)
        model = ConvNetwork(channels, outputs, relu=relu, batch_norm=True)
        for norm in model.norms:
            nn.init.uniform_(norm.weight, 0.5, 1.5)  # type: ignore[arg-type]
            nn.init.uniform_(norm.bias, -0.3, 0.3)  # type: ignore[arg-type]
            nn.init.uniform_(norm.running_mean, -0.1, 0.1)  # type: ignore[arg-type]
        return model.eval()

    return build


@pytest.fixture
def trained_like() -> Callable[..., nn.Module]:
    """Batch norms and biases as after a training: merging them, or forgetting to, makes a difference."""

    def changed(model: nn.Module, seed: int = 0) -> nn.Module:
        drawn = torch.Generator().manual_seed(seed)
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.copy_(0.3 * torch.randn(module.running_mean.shape, generator=drawn))
                module.running_var.copy_(0.5 + torch.rand(module.running_var.shape, generator=drawn))
                module.weight.data.copy_(1 + 0.3 * torch.randn(module.weight.shape, generator=drawn))
            if getattr(module, "bias", None) is not None:
                module.bias.data.copy_(0.2 * torch.randn(module.bias.shape, generator=drawn))  # type: ignore[arg-type]
        return model.eval().requires_grad_(False)

    return changed


@pytest.fixture
def positional_network() -> Callable[..., nn.Module]:
    """A network that looks at where things are: the drops are not lost in the rounding of the scores."""

    def build(channels: int = 1, outputs: int = 2) -> nn.Sequential:
        torch.manual_seed(0)
        return nn.Sequential(
            *(nn.Conv2d(channels, 8, 3, stride=2), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU()),
            *(nn.AdaptiveMaxPool2d(3), nn.Flatten(), nn.Linear(72, outputs)),
        ).eval()

    return build


@pytest.fixture
def weights_of() -> Callable[..., torch.Tensor]:
    """dS_c/dx of a LinearNetwork: (N, C, *spatial)."""

    def derivative(model: LinearNetwork, targets: Sequence[int], shape: tuple[int, ...]) -> torch.Tensor:
        weight = model.linear.weight.detach()
        weight = torch.cat([-weight, weight]) if len(weight) == 1 else weight
        return weight[torch.as_tensor(targets)].view(len(targets), *shape)

    return derivative


class Chain(nn.Module):
    """Features, something between, a head."""

    def __init__(
        self, features: Sequence[nn.Module], between: Callable[[torch.Tensor], torch.Tensor], head: nn.Module
    ) -> None:
        super().__init__()
        self.features = nn.Sequential(*features)
        self.between = between
        self.head = head

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(self.between(self.features(images)))


@pytest.fixture
def chain() -> Callable[..., nn.Module]:
    """Builds a network of features, something between, and a head."""
    return Chain


class Normalised(nn.Module):
    """A network that normalises its images first."""

    def __init__(self, network: nn.Module, mean: float, std: float) -> None:
        super().__init__()
        self.network, self.mean, self.std = network, mean, std

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.network((images - self.mean) / self.std)


@pytest.fixture
def normalised() -> Callable[..., nn.Module]:
    """Puts a normalisation before a network."""
    return Normalised


@pytest.fixture
def blobs() -> Callable[..., Split]:
    """A split of smooth slopes; class 1 has a bright disk at a random place, which is its mask."""

    def draw(count: int, name: str, size: int = 32) -> Split:
        random = rng(0, name)
        labels = np.arange(count) % 2
        y, x = np.mgrid[:size, :size]
        centre = random.uniform(7, size - 7, (count, 2, 1, 1))
        masks = (np.hypot(y - centre[:, 0], x - centre[:, 1]) <= 4) & (labels == 1)[:, None, None]
        slope = random.uniform(-0.1, 0.1, (count, 2, 1, 1))
        images = 0.3 + slope[:, 0] * (y / size - 0.5) + slope[:, 1] * (x / size - 0.5) + 0.5 * masks
        images += random.normal(0, 0.03, images.shape)
        ids = [f"{name}{index}" for index in range(count)]
        return Split.from_arrays(images[:, None].clip(0, 1).astype(np.float32), labels, ids, ids, masks)

    return draw
