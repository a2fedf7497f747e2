"""Feature destruction (Gu et al., section III-C) and the importance activation (eqs. 1 and 2), in closed form."""

import pytest
import torch
from torch import nn

from xbench_vinet.destruction import Destruction, FixedNoise, destroy, fresh_noise, resize_mask
from xbench_vinet.network import normalised_softplus
from xbench_vinet.stages import Stage


def features(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * 3 + 1


def uniform(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("spatial", [(9,), (8, 6), (4, 5, 6)])
def test_destroy_is_equations_3_to_5(spatial: tuple[int, ...]) -> None:
    P, N, m = features(2, 3, *spatial), uniform(2, 3, *spatial), uniform(2, 1, *spatial, seed=2)
    expected = torch.empty_like(P)
    for n in range(2):
        for c in range(3):
            low, high = P[n, c].min(), P[n, c].max()
            scaled = (P[n, c] - low) / (high - low + 1e-8)
            blended = scaled * m[n, 0] + N[n, c] * (1 - m[n, 0])
            expected[n, c] = low + (high - low + 1e-8) * blended
    torch.testing.assert_close(destroy(P, m, N), expected, atol=1e-5, rtol=1e-5)


def test_full_importance_leaves_every_bit() -> None:
    P = features(2, 3, 8, 8)
    assert torch.equal(destroy(P, torch.ones(2, 1, 8, 8), uniform(2, 3, 8, 8)), P)


def test_no_importance_leaves_only_the_range() -> None:
    P = features(2, 3, 8, 8)
    low, high = P.amin((2, 3), keepdim=True), P.amax((2, 3), keepdim=True)
    N = uniform(2, 3, 8, 8)
    nothing = torch.zeros(2, 1, 8, 8)
    result = destroy(P, nothing, N)
    torch.testing.assert_close(result, low + (high - low) * N)
    shuffled = P.flatten(2)[:, :, torch.randperm(64, generator=torch.Generator().manual_seed(3))].view_as(P)
    assert torch.equal(destroy(shuffled, nothing, N), result)  # where the values were is lost


def test_a_constant_channel_is_unchanged() -> None:
    P = torch.full((1, 2, 5, 5), 0.7)
    torch.testing.assert_close(destroy(P, torch.zeros(1, 1, 5, 5), uniform(1, 2, 5, 5)), P, atol=1e-7, rtol=0)


def test_noise_follows_the_scale_of_the_features() -> None:
    P, N, m = features(2, 3, 8, 8), uniform(2, 3, 8, 8), uniform(2, 1, 8, 8, seed=2)
    torch.testing.assert_close(destroy(P + 5, m, N), destroy(P, m, N) + 5)
    torch.testing.assert_close(destroy(7 * P, m, N), 7 * destroy(P, m, N), atol=1e-5, rtol=1e-5)


def test_the_mask_weighs_importance_against_noise_in_the_gradient() -> None:
    P, N = features(1, 1, 4, 4), uniform(1, 1, 4, 4)
    m = torch.full((1, 1, 4, 4), 0.5, requires_grad=True)
    destroy(P, m, N).sum().backward()
    rubble = P.min() + (P.max() - P.min()) * N
    torch.testing.assert_close(m.grad, P - rubble)


def test_mask_resizing() -> None:
    mask = torch.zeros(1, 1, 8, 8)
    mask[0, 0, 0, 0] = 1
    assert resize_mask(mask, (8, 8), "bilinear") is mask
    assert resize_mask(mask, (2, 2), "area")[0, 0].tolist() == [[1 / 16, 0], [0, 0]]
    assert resize_mask(mask, (2, 2), "max")[0, 0].tolist() == [[1, 0], [0, 0]]
    assert resize_mask(mask, (2, 2), "bilinear").max() == 0  # between centres 1.5 and 5.5: the pixel is missed
    assert resize_mask(mask, (4, 4), "bilinear")[0, 0, 0, 0] == 0.25


def test_fixed_noise_is_one_pattern_for_all_samples_sites_apart() -> None:
    noise = FixedNoise(seed=4)
    one, many = noise(torch.zeros(1, 3, 8, 8), "a"), noise(torch.zeros(5, 3, 8, 8), "a")
    assert one.shape == (1, 3, 8, 8)
    assert torch.equal(one, many)
    assert torch.equal(one, FixedNoise(seed=4)(torch.zeros(1, 3, 8, 8), "a"))
    for other in (FixedNoise(4)(one, "b"), FixedNoise(5)(one, "a"), FixedNoise(4, draw=1)(one, "a")):
        assert (other - one).abs().mean() > 0.2  # independent uniforms differ by 1/3 on average
    assert float(one.min()) >= 0
    assert float(one.max()) < 1


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(4, 2, 3, padding=1))


def hooks(module: nn.Module) -> int:
    return sum(len(part._forward_hooks) + len(part._forward_pre_hooks) for part in module.modules())


def test_hooks_live_as_long_as_the_block() -> None:
    classifier, images = network(), uniform(2, 1, 8, 8)
    plain = classifier(images)
    destruction = Destruction(torch.zeros(2, 1, 8, 8), FixedNoise(0))
    with destruction.inside(classifier, [Stage("0", 2)]):
        assert hooks(classifier) == 1
        destroyed = classifier(images)
    assert hooks(classifier) == 0
    assert torch.equal(classifier(images), plain)
    assert not torch.allclose(destroyed, plain)

    def fail() -> None:
        with destruction.inside(classifier, [Stage("0", 2), Stage("1", 2)]):
            raise RuntimeError("on the way")

    with pytest.raises(RuntimeError, match="on the way"):
        fail()
    assert hooks(classifier) == 0


def test_each_pass_sees_its_own_mask() -> None:
    classifier, images = network(), uniform(2, 1, 8, 8)
    stages = [Stage("0", 2)]
    plain = classifier(images)
    nothing, everything = torch.zeros(2, 1, 8, 8), torch.ones(2, 1, 8, 8)
    with Destruction(nothing, fresh_noise).inside(classifier, stages):
        with Destruction(everything, fresh_noise).inside(classifier, stages):
            assert torch.equal(classifier(images), plain)
        assert not torch.allclose(classifier(images), plain)


def test_channels_last_features_are_destroyed_over_their_pixels() -> None:
    P, mask = features(2, 3, 8, 8), uniform(2, 1, 8, 8)
    holder = nn.Sequential(nn.Identity())
    with Destruction(mask, FixedNoise(0)).inside(holder, [Stage("0", 1, channels_last=True)]):
        result = holder(P.movedim(1, -1))
    torch.testing.assert_close(result.movedim(-1, 1), destroy(P, mask, FixedNoise(0)(P, "0")))


def test_a_single_pixel_is_left_alone() -> None:
    P = features(2, 3, 1, 1)
    assert Destruction(torch.zeros(2, 1, 8, 8), fresh_noise)(P, "pooled") is P


def test_normalised_softplus_is_equation_1() -> None:
    raw = features(3, 7, 5) * 4
    for sample, found in zip(raw, normalised_softplus(raw), strict=True):
        expected = torch.log(1 + torch.exp(sample.double()))
        torch.testing.assert_close(found.double(), expected / expected.max(), atol=1e-6, rtol=1e-5)
    assert normalised_softplus(raw).flatten(1).amax(1).tolist() == [1, 1, 1]


@pytest.mark.parametrize("level", [-1000.0, -30.0, 0.0, 5.0, 1000.0])
def test_constant_maps_are_all_important_and_never_nothing(level: float) -> None:
    raw = torch.full((2, 4, 4), level, requires_grad=True)
    M = normalised_softplus(raw)
    assert torch.equal(M, torch.ones(2, 4, 4))
    M.mean().backward()
    assert bool(raw.grad.isfinite().all())


def test_activation_gradient_passes_through_the_maximum() -> None:
    raw = features(2, 3, 3).double().requires_grad_()
    softplus = nn.functional.softplus(raw)
    expected = torch.autograd.grad((softplus / softplus.amax((1, 2), keepdim=True)).square().sum(), raw)[0]
    found = torch.autograd.grad(normalised_softplus(raw).square().sum(), raw)[0]
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


def test_a_shift_starts_with_everything_important() -> None:
    raw = uniform(1, 8, 8) - 0.5
    assert float(normalised_softplus(raw, shift=20.0).min()) > 0.9 > float(normalised_softplus(raw).min())
