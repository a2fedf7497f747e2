import copy

import pytest
import timm
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import weight_norm

from xbench.compute.folding import fold_batch_norms


def scrambled(module: nn.Module) -> nn.Module:
    """In eval mode, with statistics and affine parameters as if trained: fresh ones hide a wrong folding."""
    generator = torch.Generator().manual_seed(3)
    for norm in module.modules():
        if isinstance(norm, nn.modules.batchnorm._BatchNorm) and norm.track_running_stats:
            norm.running_mean.normal_(0, 0.3, generator=generator)
            norm.running_var.uniform_(0.5, 2.0, generator=generator)
            if norm.affine:
                nn.init.uniform_(norm.weight, 0.5, 1.5, generator=generator)
                nn.init.normal_(norm.bias, 0, 0.3, generator=generator)
    return module.eval().requires_grad_(False)


def folded(module: nn.Module, images: torch.Tensor) -> tuple[int, torch.Tensor, torch.Tensor]:
    """How many batch norms were folded, and the logits before and after."""
    before = module(images)
    private = copy.deepcopy(module)
    count = fold_batch_norms(private)
    return count, before, private(images)


def assert_same(before: torch.Tensor, after: torch.Tensor) -> None:
    assert (after - before).abs().max() <= 1e-6 + 1e-5 * before.abs().max()


@pytest.fixture
def images() -> torch.Tensor:
    return torch.rand(2, 1, 16, 16, generator=torch.Generator().manual_seed(0))


class Block(nn.Module):
    def __init__(
        self, layer: nn.Module | None = None, norm: nn.Module | None = None, activation: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.conv = layer if layer is not None else nn.Conv2d(1, 4, 3)
        self.norm = norm if norm is not None else nn.BatchNorm2d(4)
        self.act = activation if activation is not None else nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.act(self.norm(self.conv(x)))


@pytest.mark.parametrize(
    ("name", "norms"),
    [
        ("resnet18", 20),
        ("resnet50", 53),
        ("seresnet50", 53),
        ("densenet121", 59),  # of 121: the others come before their convolution
        ("vgg16_bn", 13),
        ("efficientnet_b0", 49),
        ("convnext_tiny", 0),
    ],
)
def test_known_architectures_keep_their_logits(name: str, norms: int) -> None:
    torch.manual_seed(0)
    size = 32 if name == "vgg16_bn" else 64
    module = scrambled(timm.create_model(name, in_chans=1, num_classes=3))
    count, before, after = folded(module, torch.rand(2, 1, size, size))
    assert count == norms
    assert_same(before, after)


@pytest.mark.parametrize(
    ("layer", "norm", "shape"),
    [
        (nn.Conv1d(2, 4, 3), nn.BatchNorm1d(4), (2, 2, 16)),
        (nn.Conv2d(2, 4, 3, bias=False), nn.BatchNorm2d(4, affine=False), (2, 2, 8, 8)),
        (nn.Conv2d(2, 4, 3, groups=2), nn.BatchNorm2d(4, eps=0.1), (2, 2, 8, 8)),
        (nn.Conv3d(2, 4, 3), nn.BatchNorm3d(4), (2, 2, 6, 6, 6)),
        (nn.ConvTranspose2d(2, 4, 3), nn.BatchNorm2d(4), (2, 2, 6, 6)),
        (nn.Linear(2, 4), nn.BatchNorm1d(4), (5, 2)),
    ],
)
def test_every_kind_of_layer_is_folded(layer: nn.Module, norm: nn.Module, shape: tuple[int, ...]) -> None:
    count, before, after = folded(scrambled(Block(layer, norm)), torch.rand(shape))
    assert count == 1
    assert_same(before, after)


def test_a_folded_batch_norm_is_gone_and_the_activation_works_in_place() -> None:
    module = scrambled(Block())
    fold_batch_norms(module)
    assert not any(isinstance(layer, nn.BatchNorm2d) for layer in module.modules())
    assert module.act.inplace


class UsedTwice(Block):
    """The convolution's output is read by the batch norm and by a sum."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.conv(x)
        return self.act(self.norm(y)) + y


class NormUsedTwice(Block):
    """The batch norm's output is read by an activation and by a sum: folded, but not activated in place."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.norm(self.conv(x))
        return self.act(y) * y.mean()


class SharedConvolution(Block):
    """One convolution before two batch norms."""

    def __init__(self) -> None:
        super().__init__()
        self.other = nn.BatchNorm2d(4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(self.conv(x)) - self.other(self.conv(1 - x))


class SharedNorm(Block):
    def __init__(self) -> None:
        super().__init__()
        self.other = nn.Conv2d(1, 4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(self.conv(x)) - self.norm(self.other(x))


class TwoNames(Block):
    """The convolution is called once by its name and once behind tracing's back."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = Untraceable(self.conv)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(self.conv(x)) - self.hidden(x)


class Untraceable(nn.Module):
    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x) if x.mean() > 0 else -self.layer(x)


class FunctionalConvolution(Block):
    """The convolution's weights are used without calling it."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(F.conv2d(x, self.conv.weight, self.conv.bias))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("module", "norms"),
    [
        (UsedTwice(), 0),
        (NormUsedTwice(), 1),
        (SharedConvolution(), 0),
        (SharedNorm(), 0),
        (TwoNames(), 0),
        (FunctionalConvolution(), 0),
        (Block(norm=nn.BatchNorm2d(4, track_running_stats=False)), 0),
        (Block(layer=weight_norm(nn.Conv2d(1, 4, 3))), 0),
        (Block(layer=nn.ConvTranspose2d(4, 4, 3, groups=2)), 0),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "",
)
def test_what_must_not_be_folded_is_left_alone(module: nn.Module, norms: int, images: torch.Tensor) -> None:
    channels = module.conv.in_channels
    count, before, after = folded(scrambled(module), images.expand(-1, channels, -1, -1))  # type: ignore[arg-type]
    assert count == norms
    assert_same(before, after)


def test_a_layer_with_a_hook_is_left_alone(images: torch.Tensor) -> None:
    module = scrambled(Block())
    module.conv.register_forward_hook(lambda layer, args, output: 2 * output)
    count, before, after = folded(module, images)
    assert count == 0
    assert_same(before, after)


class PartlyTraceable(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = Block()
        self.second = Gate()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(self.first(x))


class Gate(Block):
    """Data-dependent control flow, with a foldable pair in it."""

    def __init__(self) -> None:
        super().__init__(nn.Conv2d(4, 4, 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = super().forward(x)
        return y if y.mean() > 0.5 else -y


def test_what_can_be_traced_is_folded_and_the_rest_stays(images: torch.Tensor) -> None:
    count, before, after = folded(scrambled(PartlyTraceable()), images)
    assert count == 1
    assert_same(before, after)


def test_an_untraceable_module_stays_as_it_is() -> None:
    module = scrambled(Gate())
    state = copy.deepcopy(module.state_dict())
    assert fold_batch_norms(module) == 0
    assert all(torch.equal(value, module.state_dict()[name]) for name, value in state.items())


class KeepsItsInput(Block):
    """Stores what passes through it: a proxy, if it were traced itself."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen = x
        return super().forward(x)


def test_tracing_leaves_nothing_in_the_module(images: torch.Tensor) -> None:
    module = scrambled(KeepsItsInput())
    assert fold_batch_norms(module) == 1
    assert not hasattr(module, "seen")
