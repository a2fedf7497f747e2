"""Gradients over noisy copies of an image: SmoothGrad, SmoothGrad-squared, VarGrad."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from xbench import Batch, Explainer
from xbench.compute.passes import differentiable, gradient_rows, gradients, mean_over_samples
from xbench.runtime.devices import upload
from xbench.runtime.randomness import normal_field
from xbench.runtime.seeding import derive
from xbench_baselines.gradients.gradient import Gradient
from xbench_baselines.gradients.options import NoiseOptions, SmoothGradOptions


class ImageNoise:
    """Normal noise with a strength from each image's range. A field depends only on its image and sample.

    Args:
        batch: The N images.
        samples: Number of samples per image.
        sigma: Standard deviation, as a share of the image's range: sigma (max x - min x).
        stream: Name of the stream of random numbers.
    """

    def __init__(self, batch: Batch, samples: int, sigma: float, stream: str) -> None:
        images = batch.images
        span = images.flatten(1).amax(1) - images.flatten(1).amin(1)
        self._deviations = (sigma * span).view(-1, *[1] * (images.ndim - 1))
        self._shape = images.shape[1:]
        self._seeds = batch.seeds
        streams = torch.tensor([derive(0, stream, number) for number in range(samples)])
        self._streams = upload(streams, images.device)
        self._silent = sigma == 0

    def on(self, images: torch.Tensor, which: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
        """Add the noise of samples `numbers` (R,) of the batch's images `which` (R,) to images (R, C, *spatial)."""
        if self._silent:
            return images
        noise = normal_field(self._seeds[which] ^ self._streams[numbers], self._shape)
        return torch.addcmul(images, noise, self._deviations[which])


class SmoothGrad(Gradient):
    """A = sum over channels of 1/n sum_k g(x + e_k), e_k ~ N(0, s^2), g = dS_c/dx (Smilkov et al. 2017, section 2).

    s = sigma (max x - min x) of each image, n = 15 (Brocki et al., section 2). Signs are as for the gradient: with one
    output neuron, the maps of the two classes are each other's negative. As in the authors' code, noisy images are not
    clipped.

    This is own code because captum's `NoiseTunnel` takes one absolute strength for a whole batch, draws from the global
    generator, so that a map depends on the batch, and holds all n copies in memory.
    """

    options: SmoothGradOptions

    def attribute_batch(self, model: nn.Module, batch: Batch, targets: torch.Tensor) -> torch.Tensor:
        """Return the maps, (N, *spatial)."""
        noisy = _Noisy(model, batch, self.explained(targets), self.options)
        return noisy.mean(lambda which, numbers: noisy.gradients(which, numbers).sum(1))


class SmoothGradSquared(Explainer):
    """A = sum over channels of 1/n sum_k g(x + e_k)^2: `SmoothGrad` of squares (Hooker et al. 2019, section 4).

    Unsigned.
    """

    signed = False
    options: NoiseOptions

    def attribute_batch(self, model: nn.Module, batch: Batch, targets: torch.Tensor) -> torch.Tensor:
        """Return the maps, (N, *spatial), at least 0."""
        noisy = _Noisy(model, batch, targets, self.options)
        return noisy.mean(lambda which, numbers: noisy.gradients(which, numbers).square().sum(1))


class VarGrad(Explainer):
    """A = sum over channels of the variance of g(x + e_k) over k, with the noise of `SmoothGrad`, unsigned.

    Adebayo et al. 2018 (arXiv:1810.03307, section 3). The estimator is the variance of the n samples themselves,
    1/n sum_k (g_k - mean g)^2, as in captum. It is SmoothGrad-squared minus the square of SmoothGrad. Before,
    the first gradient is subtracted from all of them, because the difference of two large numbers would be mostly
    rounding. So the map of a linear model is exactly 0.
    """

    signed = False
    options: NoiseOptions

    def attribute_batch(self, model: nn.Module, batch: Batch, targets: torch.Tensor) -> torch.Tensor:
        """Return the maps, (N, *spatial), at least 0."""
        noisy = _Noisy(model, batch, targets, self.options)
        # The first sample of each image. One extra row takes the other samples, which are not needed.
        first = batch.images.new_zeros((len(batch) + 1, *batch.images.shape[1:]))

        def moments(which: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
            found = noisy.gradients(which, numbers)
            first.index_copy_(0, torch.where(numbers == 0, which, len(batch)), found)
            found = found - first[which]
            return torch.stack([found, found.square()], 1)

        mean, square = noisy.mean(moments).unbind(1)
        return (square - mean.square()).clamp(min=0).sum(1)


class _Noisy:
    """Gradients of the noisy samples of some images."""

    def __init__(self, model: nn.Module, batch: Batch, targets: torch.Tensor, options: NoiseOptions) -> None:
        self._model, self._images, self._targets = model, batch.images, targets
        self._samples = options.samples
        self._network = differentiable(model, batch.images, len(batch) * options.samples)
        # One stream serves all three methods, so that their maps can be compared sample by sample.
        self._noise = ImageNoise(batch, options.samples, options.sigma, "smoothgrad")

    def mean(self, sample: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> torch.Tensor:
        """Return the mean of `sample` over the noise samples of each image: (N, ...)."""
        return mean_over_samples(self._images, self._samples, sample, gradient_rows(self._model, self._images))

    def gradients(self, which: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
        """Return gradients at noisy images: indices of images (R,), numbers of samples (R,) -> (R, C, *spatial)."""
        points = self._noise.on(self._images[which], which, numbers)
        return gradients(self._network, points, self._targets[which])
