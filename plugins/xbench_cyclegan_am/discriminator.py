"""The discriminators: which of two patches is the real one? (Katzmann et al., section 2.3, Fig. 5)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F

from xbench_cyclegan_am.generator import WIDTHS, Encoder

_SCALES = 2  # the last two stages of the encoder are judged


class PairDiscriminator(nn.Module):
    """D_k: sees a real and a generated image in random order. 4,405,252 parameters for one channel and full width.

    The same encoder reads both; at every position of stages 2 and 3 (receptive fields of 37 and 77 pixels) the two
    feature vectors are put side by side, and a 1 x 1 convolution, the paper's "two-neuron dense layer", says in which
    slot the real one is. Which goes first is drawn anew for every sample, position and scale, which is what "shuffled
    and reordered after classification" comes to; Fig. 5's "randomized order" leaves open whether images or patches are
    shuffled. Section 2.3 speaks of "likelihood maps" that are compared, Fig. 5 of features: features here.

    Real and generated images pass the encoder in one batch. The paper says nothing of it, but a stage ends in a batch
    norm: with statistics of their own both would have the same mean features, the difference of their scores the mean
    0, and the discriminator could never do better than chance. The batch norms always take the batch's statistics: it
    is never used outside training.

    Args:
        channels: C.
        widths: Channels of the encoder's stages.
    """

    def __init__(self, channels: int, widths: Sequence[int] = WIDTHS) -> None:
        super().__init__()
        self.encoder = Encoder(channels, widths, track=False)
        self.heads = nn.ModuleList(nn.Conv2d(2 * width, 2, 1) for width in widths[-_SCALES:])

    def loss(self, real: torch.Tensor, fake: torch.Tensor, fooled: bool = False) -> torch.Tensor:
        """Cross entropy of the slot, the mean over samples and positions and then over the scales; ln 2 is chance.

        Equation 3 lacks its minus sign. Its label in equation 4, "0", means nothing for a shuffled pair: a generator's
        target is the slot of the generated patch ("inverted label information").

        Args:
            real: (N, C, H, W).
            fake: (N, C, H, W).
            fooled: Ask for the slot of the generated patch: what a generator wants to be answered.
        """
        features = self.encoder(torch.cat([real, fake]))[-_SCALES:]
        losses = [_judged(head, both, fooled) for head, both in zip(self.heads, features, strict=True)]
        return torch.stack(losses).mean()


def _judged(head: nn.Module, features: torch.Tensor, fooled: bool) -> torch.Tensor:
    """The loss at one scale; features (2 N, W, h, w), those of the real images first."""
    real, fake = features.chunk(2)
    second = torch.rand((len(real), 1, *real.shape[2:]), device=real.device) < 0.5  # the real one is in slot 1
    pair = torch.cat([torch.where(second, fake, real), torch.where(second, real, fake)], dim=1)
    target = second[:, 0].long()
    return F.cross_entropy(head(pair).float(), 1 - target if fooled else target)
