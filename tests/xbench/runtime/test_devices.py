"""What differs between devices, as far as a CPU can show it; tests/pretend and tests/gpu show the rest."""

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from xbench.runtime.devices import autocast, float32, no_autocast, rounds_products, upload, widest
from xbench.runtime.precision import PRECISIONS


def switches() -> list[str]:
    backends = torch.backends
    owners: tuple[Any, ...] = (backends.cuda.matmul, backends.cudnn.conv, backends.cudnn.rnn)
    owners += (backends.mkldnn.matmul, backends.mkldnn.conv, backends.mkldnn.rnn)
    return [owner.fp32_precision for owner in owners]


@pytest.fixture(autouse=True)
def as_torch_begins() -> Iterator[None]:
    yield
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = True


@pytest.mark.skipif(not hasattr(torch.backends.cudnn, "conv"), reason="the switches of torch before 2.9")
class TestSwitches:
    @pytest.mark.parametrize("precision", PRECISIONS)
    @pytest.mark.parametrize("before", ["highest", "high", "medium"])
    def test_they_are_set_and_put_back(self, before: str, precision: str) -> None:
        torch.set_float32_matmul_precision(before)
        found = switches()
        with float32(precision):
            assert switches()[:3] == ["tf32" if precision == "tf32" else "ieee"] * 3
            assert switches()[3:] == ["ieee"] * 3
            # The old switches can be read: they do not contradict the new.
            assert torch.backends.cudnn.allow_tf32 == torch.backends.cuda.matmul.allow_tf32 == (precision == "tf32")
        assert switches() == found
        assert torch.get_float32_matmul_precision() == before

    def test_they_are_put_back_after_an_error_and_inside_each_other(self) -> None:
        found = switches()
        with float32("tf32"):
            with contextlib.suppress(ZeroDivisionError), float32("32"):
                assert switches() == ["ieee"] * 6
                _ = 1 / 0
            assert switches()[:3] == ["tf32"] * 3
        assert switches() == found

    def test_new_switches_that_contradict_the_old_are_put_back(self) -> None:
        torch.backends.cuda.matmul.fp32_precision = "tf32"
        found = switches()
        with float32("32"):
            assert switches() == ["ieee"] * 6
        assert switches() == found


def test_the_cpu_rounds_no_product() -> None:
    with float32("32"):
        assert not rounds_products("cpu")


def test_an_upload_is_the_same_tensor_where_it_is_there_already() -> None:
    values = torch.rand(3)
    assert upload(values, "cpu") is values


class TestWidest:
    @pytest.fixture(autouse=True)
    def forgotten(self) -> Iterator[None]:
        widest.cache_clear()
        yield
        widest.cache_clear()

    def test_of_the_cpu(self) -> None:
        assert widest("cpu") == torch.float64

    def test_of_a_device_without_float64(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(*args: Any, **kwargs: Any) -> None:
            raise TypeError("Cannot convert a MPS Tensor to float64 dtype")

        monkeypatch.setattr(torch, "empty", refuse)
        assert widest("cpu") == torch.float32

    def test_a_full_device_says_nothing_of_its_floats(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def full(*args: Any, **kwargs: Any) -> None:
            raise torch.OutOfMemoryError("CUDA out of memory")

        with monkeypatch.context() as patch:
            patch.setattr(torch, "empty", full)
            with pytest.raises(torch.OutOfMemoryError):
                widest("cpu")
        assert widest("cpu") == torch.float64


def test_autocast_is_for_two_precisions_and_can_be_left() -> None:
    images, layer = torch.rand(2, 3), torch.nn.Linear(3, 3)
    for precision in PRECISIONS[:3]:
        with autocast(precision, "cpu"):
            assert layer(images).dtype == (torch.bfloat16 if precision == "bf16" else torch.float32)
            with no_autocast(torch.device("cpu")):
                assert layer(images).dtype == torch.float32
