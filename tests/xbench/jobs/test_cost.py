"""Peak memory of a piece of work: of its own networks and what it makes, without what others left on the device."""

import math
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from xbench.jobs import cost

MB = 2**20


class Accelerator:
    """A device's memory, as `torch.cuda` tells of it."""

    def __init__(self) -> None:
        self.now = self.most = 0

    def take(self, size: int) -> None:
        self.now += size
        self.most = max(self.most, self.now)

    def memory_allocated(self, device: object) -> int:
        return self.now

    def max_memory_allocated(self, device: object) -> int:
        return self.most

    def reset_peak_memory_stats(self, device: object) -> None:
        self.most = self.now


@pytest.fixture
def accelerator(monkeypatch: pytest.MonkeyPatch) -> Accelerator:
    device = Accelerator()
    monkeypatch.setattr(torch, "get_device_module", lambda which: device)
    empty = torch.empty
    monkeypatch.setattr(torch, "empty", lambda *size, **more: empty(*size))  # there is no such device here
    return device


def test_what_others_left_on_the_device_does_not_count_and_the_own_networks_do(accelerator: Accelerator) -> None:
    accelerator.take(500 * MB)  # of others
    accelerator.take(40 * MB)  # the classifier explained
    accelerator.take(900 * MB)  # somebody's peak before
    accelerator.take(-900 * MB)
    memory = cost.PeakMemory("cuda", own=40 * MB)
    accelerator.take(64 * MB)
    accelerator.take(-64 * MB)
    accelerator.take(16 * MB)
    assert memory.bytes() == 104 * MB
    assert cost.allocated("cuda") == 556 * MB


def test_a_device_that_does_not_tell_is_nan(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_device_module", lambda which: SimpleNamespace(current_allocated_memory=int))
    assert math.isnan(cost.PeakMemory("mps").bytes())
    assert math.isnan(cost.allocated("mps"))


def test_on_the_cpu_it_is_that_of_the_process() -> None:
    # In a process of its own: another one may have freed so much before that its mark does not move.
    source = """
import torch
from xbench.jobs.cost import PeakMemory
memory = PeakMemory("cpu")
before = memory.bytes()
torch.ones(2**24).sum()
print(before, memory.bytes(), PeakMemory("cpu").bytes())
"""
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, check=True)
    before, most, again = map(float, done.stdout.split())
    if math.isnan(before):
        pytest.skip("this system does not tell")
    assert most - before > 40 * MB
    assert again < most or again == pytest.approx(before, rel=0.5)  # where the mark can't begin anew


def test_bytes_of_a_network_count_shared_weights_once() -> None:
    network = nn.Sequential(nn.Linear(10, 10, bias=False), nn.BatchNorm1d(10))
    network.append(network[0])
    assert cost.network_bytes(network) == 4 * (100 + 4 * 10) + 8


def test_the_largest_of_what_is_known() -> None:
    assert cost.largest(1.0, math.nan, 3.0) == 3.0
    assert math.isnan(cost.largest(math.nan))
