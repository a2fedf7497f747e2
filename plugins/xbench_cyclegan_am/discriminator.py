"""The discriminators, which tell which of two patches is the real one (Katzmann et al., section 2.3, Fig. 5)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F

from xbench_cyclegan_am.generator import WIDTHS, Encoder

_SCALES = 2  # number of last stages of the encoder that are judged


class PairDiscriminator(nn.Module):
    """D_k, which sees a real and a generated image in random order. 4,405,252 parameters for one channel, full width.

    The same encoder reads both images. At every position of stages 2 and 3 (receptive fields of 37 and 77 pixels), the
    two feature vectors are concatenated, and a 1 x 1 convolution, the paper's "two-neuron dense layer", says in which
    slot the real one is. The order is drawn for every sample, position and scale, which is equivalent to "shuffled and
    reordered after classification"; Fig. 5's "randomized order" leaves open whether images or patches are shuffled.
    Section 2.3 compares "likelihood maps", Fig. 5 features; here it is features.

    Real and generated images pass the encoder in one batch. The paper does not mention this, but a stage ends with a
    batch norm. With separate statistics, both would have the same mean features, the difference of their scores would
    have the mean 0, and the discriminator could never do better than chance. The batch norms always use the batch's
    statistics, because the discriminator is never used outside of training.

    Args:
        channels: Number of channels, C.
        widths: Channels of the encoder's stages.
    """

    def __init__(self, channels: int, widths: Sequence[int] = WIDTHS) -> None:
        super().__init__()
        self.encoder = Encoder(channels, widths, track=False)
        self.heads = nn.ModuleList(nn.Conv2d(2 * width, 2, 1) for width in widths[-_SCALES:])

    def loss(self, real: torch.Tensor, fake: torch.Tensor, fooled: bool = False) -> torch.Tensor:
        """Return the cross entropy of the slot, a mean over samples and positions, then over scales. Chance is ln 2.

        Equation 3 lacks its minus sign. The label "0" in equation 4 has no meaning for a shuffled pair. A generator's
        target is the slot of the generated patch ("inverted label information").

        Args:
            real: Real images, (N, C, H, W).
            fake: Generated images, (N, C, H, W).
            fooled: Whether the target is the slot of the generated patch, as for a generator's loss.
        """
        features = self.encoder(torch.cat([real, fake]))[-_SCALES:]
        losses = [_judged(head, both, fooled) for head, both in zip(self.heads, features, strict=True)]
        return torch.stack(losses).mean()


def _judged(head: nn.Module, features: torch.Tensor, fooled: bool) -> torch.Tensor:
    """Return the loss at one scale, from features (2 N, W, h, w) with the real images first."""
    real, fake = features.chunk(2)
    second = torch.rand((len(real), 1, *real.shape[2:]), device=real.device) < 0.5  # where the real one is in slot 1
    pair = torch.cat([torch.where(second, fake, real), torch.where(second, real, fake)], dim=1)
    target = second[:, 0].long()
    return F.cross_entropy(head(pair).float(), 1 - target if fooled else target)
