import pytest
import torch
from torch import nn

from xbench.runtime.devices import float32, release, rounds_products, upload, widest


def test_float32_is_true_float32_although_convolutions_may_round_by_default(device: str) -> None:
    with float32("32"):
        assert not rounds_products(device)


def test_tf32_rounds_when_it_is_asked_for_and_only_then(device: str) -> None:
    with float32("tf32"):
        assert rounds_products(device)
        with float32("32"):
            assert not rounds_products(device)
        assert rounds_products(device)


@pytest.mark.parametrize("asked", ["high", "medium"])
def test_what_another_library_has_set_does_not_matter_inside(asked: str, device: str) -> None:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(asked)
    try:
        with float32("32"):
            assert not rounds_products(device)
    finally:
        torch.set_float32_matmul_precision(before)


def test_an_upload_gives_the_same_values_there(device: str) -> None:
    values = torch.rand(3, 5, 7)
    there = upload(values, device)
    assert there.device.type == torch.device(device).type
    assert torch.equal(there.cpu(), values)


def test_sums_are_taken_in_float64(device: str) -> None:
    assert widest(device) == torch.float64


def test_what_torch_keeps_for_later_is_given_back(device: str) -> None:
    nn.Linear(2048, 2048).to(device)
    torch.empty(2**26, device=device)  # freed at once, and kept
    kept = torch.cuda.memory_reserved()
    release()
    assert torch.cuda.memory_reserved() < kept
