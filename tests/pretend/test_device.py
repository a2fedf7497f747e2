"""The pretend accelerator is a device: what it is for would be hidden by a device that forgives everything."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent


def say(source: str, **environment: str) -> list[str]:
    """What a script prints in a process with the pretend accelerator."""
    begin = "import pretend, torch\nfrom torch import nn\n"
    line = [sys.executable, "-c", begin + textwrap.dedent(source)]
    done = subprocess.run(line, capture_output=True, text=True, timeout=120, cwd=HERE, env=os.environ | environment)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_tensors_of_two_devices_do_not_mix() -> None:
    source = """
        device = torch.ones(3, device="pretend")
        for work in (lambda: device + torch.ones(3), lambda: torch.cat([device, torch.ones(3)]),
                     lambda: nn.Conv2d(1, 1, 3).to("pretend")(torch.ones(1, 1, 4, 4)),
                     lambda: torch.ones(3)[torch.tensor([1]).to("pretend")],
                     lambda: device.index_put_((torch.tensor([1, 2]).to("pretend"),), torch.ones(2)),
                     lambda: device.__setitem__(torch.tensor([1, 2]), torch.ones(2))):
            try:
                work()
            except RuntimeError as error:
                print("two devices" in str(error))
        print((device + torch.tensor(1.0)).tolist() == [2, 2, 2])
    """
    assert say(source) == ["True"] * 7


def test_waits_are_noted() -> None:
    source = """
        values, index = torch.arange(4.0).to("pretend"), torch.tensor([1])
        waiting = (lambda: float(values.sum()), lambda: values.cpu(), lambda: values.tolist(),
                   lambda: values[values > 1], lambda: bool((values > 1).any()),
                   lambda: torch.tensor([1.0], device="pretend"))
        going_on = (lambda: values * 2 + values.sum(), lambda: values[index.to("pretend", non_blocking=True)])
        for work in (*waiting, *going_on):
            pretend.waits.clear()
            work()
            print(sum(pretend.waits.values()))
    """
    assert say(source) == ["1", "1", "1", "1", "1", "1", "0", "0"]


def test_gradients_and_steps_are_those_of_the_cpu() -> None:
    source = """
        import copy
        torch.manual_seed(0)
        host = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2))
        device = copy.deepcopy(host).to("pretend")
        images = torch.rand(5, 1, 8, 8)
        torch.backends.cudnn.allow_tf32 = False
        for network, given in ((host, images), (device, images.to("pretend"))):
            optimizer = torch.optim.Adam(network.parameters())
            for _ in range(3):
                optimizer.zero_grad()
                network(given).square().sum().backward()
                optimizer.step()
        pairs = zip(host.state_dict().values(), device.state_dict().values())
        print(all(torch.allclose(one, other.cpu(), atol=1e-6) for one, other in pairs))
        print(type(next(device.parameters())).__name__, next(device.parameters()).device)
    """
    assert say(source) == ["True", "PretendTensor", "pretend:0"]


@pytest.mark.parametrize(("environment", "said"), [({}, "torch.float64"), ({"PRETEND_FLOAT64": "no"}, "torch.float32")])
def test_the_widest_float_is_found_by_trying(environment: dict[str, Any], said: str) -> None:
    assert say("from xbench.runtime.devices import widest; print(widest('pretend'))", **environment) == [said]
