"""Class maximisation: closed forms, what it leaves alone, and what it does where there is nothing to climb."""

import numpy as np
import pytest
import torch
from torch import nn

from xbench import DatasetInfo, PluginError
from xbench.compute.class_maximization import class_maximization
from xbench.contracts.model import class_scores, probabilities
from xbench.testing.networks import ConvNetwork, LinearNetwork


def info(channels: int = 1, classes: int = 2, spatial: tuple[int, ...] = (6, 5)) -> DatasetInfo:
    return DatasetInfo("toy", tuple(f"class {index}" for index in range(classes)), channels, spatial)


def linear(channels: int, spatial: tuple[int, ...], outputs: int, scale: float = 0.01) -> nn.Module:
    torch.manual_seed(0)
    model = LinearNetwork(channels, spatial, outputs)
    nn.init.normal_(model.linear.weight, std=scale)
    return model


class TestLinearModel:
    @pytest.mark.parametrize(("channels", "spatial", "outputs"), [(1, (6, 5), 2), (3, (4, 4), 3), (1, (3, 4, 5), 2)])
    def test_the_maximum_is_the_weight_over_twice_the_penalty(
        self, channels: int, spatial: tuple[int, ...], outputs: int
    ) -> None:
        model = linear(channels, spatial, outputs)
        found = class_maximization(model, info(channels, outputs, spatial), penalty=0.01)
        expected = model.linear.weight.detach().view(outputs, channels, *spatial) / 0.02
        np.testing.assert_allclose(found.images, expected, atol=2e-3)
        assert found.images.dtype == np.float32

    def test_what_it_reaches_is_the_closed_form(self) -> None:
        model = linear(1, (6, 5), 2)
        found = class_maximization(model, info(), penalty=0.02)
        weight, bias = (parameter.detach().double() for parameter in model.linear.parameters())
        logits = weight / 0.04 @ weight.T + bias
        np.testing.assert_allclose(found.scores, logits.diagonal(), rtol=1e-3)
        np.testing.assert_allclose(found.probabilities, logits.softmax(1).diagonal(), rtol=1e-3)

    def test_one_logit_has_an_image_for_each_sign(self) -> None:
        model = linear(1, (6, 5), 1)
        found = class_maximization(model, info())
        np.testing.assert_allclose(found.images[0], -found.images[1], atol=2e-3)
        np.testing.assert_allclose(found.images[1, 0].ravel(), model.linear.weight[0].detach() / 0.02, atol=2e-3)
        assert found.scores.shape == (2,)

    def test_clamped_it_is_the_nearest_point_of_the_cube(self) -> None:
        model = linear(1, (6, 5), 2, scale=0.03)
        expected = (model.linear.weight.detach() / 0.02).clamp(0, 1).view(2, 1, 6, 5)
        found = class_maximization(model, info(), clamp=True)
        np.testing.assert_allclose(found.images, expected, atol=5e-3)
        assert (class_maximization(model, info()).images < 0).any()

    def test_more_steps_never_end_lower(self) -> None:
        model = linear(1, (6, 5), 2)

        def reached(steps: int) -> torch.Tensor:
            found = class_maximization(model, info(), steps=steps, learning_rate=0.5)
            return found.scores - 0.01 * (found.images**2).sum((1, 2, 3))

        values = np.stack([reached(steps) for steps in range(0, 40, 4)])
        assert (np.diff(values, axis=0) >= -1e-6).all()
        assert (values[-1] > values[0]).all()


class TestNetworks:
    def test_every_class_gets_what_it_would_get_alone(self) -> None:
        torch.manual_seed(0)
        model = ConvNetwork(3, 3, batch_norm=True)
        model.head.weight.data *= 100  # so that every step is a step up, and the last image the best
        found = class_maximization(model, info(3, 3, (12, 10)), steps=15)
        images = torch.zeros(3, 3, 12, 10, requires_grad=True)
        model.eval()
        for index in range(3):
            image = torch.zeros(1, 3, 12, 10, requires_grad=True)
            optimizer = torch.optim.Adam([image], lr=0.05)
            for _ in range(15):
                optimizer.zero_grad()
                (0.01 * image.square().sum() - model(image)[0, index]).backward()
                optimizer.step()
            np.testing.assert_allclose(found.images[index], image[0].detach(), atol=1e-4)
        with torch.no_grad():
            logits = model(torch.from_numpy(found.images))
            start = class_scores(model(images)).diagonal()
        np.testing.assert_allclose(found.scores, logits.diagonal(), rtol=1e-5)
        np.testing.assert_allclose(found.probabilities, probabilities(logits).diagonal(), rtol=1e-5)
        assert (found.scores > start.numpy()).all()

    def test_a_dead_start_is_left_by_noise_of_the_seed(self) -> None:
        class Dead(nn.Module):
            """No bias and ReLUs: zero slope at zeros, for class 1 alone."""

            def __init__(self) -> None:
                super().__init__()
                self.first = LinearNetwork(1, (6, 5), 1)
                self.hidden = nn.Linear(30, 8, bias=False)

            def forward(self, images: torch.Tensor) -> torch.Tensor:
                hidden = self.hidden(images.flatten(1)).relu()
                return torch.cat([self.first(images), (hidden**2).sum(1, keepdim=True)], 1)

        torch.manual_seed(0)
        model = Dead()
        one, again, other = (class_maximization(model, info(), steps=20, seed=seed) for seed in (0, 0, 1))
        assert np.array_equal(one.images, again.images)
        assert np.array_equal(one.images[0], other.images[0])
        assert not np.array_equal(one.images[1], other.images[1])
        assert one.scores[1] > 0.1

    def test_the_model_and_the_generators_are_left_as_they_were(self) -> None:
        model = ConvNetwork(1, 2, batch_norm=True).train()
        before = {name: value.clone() for name, value in model.state_dict().items()}
        state = torch.get_rng_state()
        with torch.no_grad():
            class_maximization(model, info(spatial=(12, 12)), steps=3)
        assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
        assert all(parameter.requires_grad and parameter.grad is None for parameter in model.parameters())
        assert all(part.training for part in model.modules())
        assert torch.equal(torch.get_rng_state(), state)


class TestModelsThatCanNotBeClimbed:
    def test_scores_that_are_no_numbers(self) -> None:
        model = linear(1, (6, 5), 2)
        nn.init.constant_(model.linear.bias, float("nan"))  # type: ignore[arg-type]
        with pytest.raises(PluginError, match="2 finite numbers"):
            class_maximization(model, info())

    def test_other_classes_than_the_datasets(self) -> None:
        with pytest.raises(PluginError, match="3 finite numbers"):
            class_maximization(linear(1, (6, 5), 2), info(classes=3))

    def test_scores_without_a_path_to_the_image(self) -> None:
        class Rounded(nn.Module):
            def forward(self, images: torch.Tensor) -> torch.Tensor:
                return images.detach().flatten(1)[:, :2]

        with pytest.raises(PluginError, match="do not depend on the image"):
            class_maximization(Rounded(), info())
