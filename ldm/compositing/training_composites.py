"""What a base of composites is shown in training: the object in its picture, under a random other light.

What it should look like there has to come from the scene, and from the object's tokens and weights.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from ldm.compositing.composite import placed
from ldm.data.pairs import happens, sample_generator, uniform

RECOLOUR_STREAM = 2**35  # added to the seed: the colours are independent of pictures and noise


@dataclass(frozen=True)
class CompositesInTraining:
    """What the masked regions of training samples show: the picture, its object in part in other colours.

    `recolour`: share of the samples with other, random colours.
    """

    recolour: float = 0.0
    seed: int = 0

    def __call__(self, batch: Mapping[str, Tensor]) -> Tensor:
        """`image`, `own`, `place`, `mask`, `index` of a batch of TrainingPairs => [b,4,S,S].

        The last channel is 1 on the object: its shadow is shown already, so that around it nothing is learnt.
        """
        image, numbers = batch["image"], batch["index"].tolist()
        alpha = placed(batch["own"], batch["place"], batch["mask"])[:, 3:]
        lit = [self._lit(picture, number) for picture, number in zip(image, numbers, strict=True)]
        return torch.cat([image.lerp(torch.stack(lit), alpha), alpha], 1)

    def _lit(self, picture: Tensor, number: int) -> Tensor:
        """A picture [3,S,S] in [-1,1], or the same under another light."""
        g = sample_generator(RECOLOUR_STREAM + self.seed, number)
        if not happens(self.recolour, g):
            return picture
        return recoloured(picture.cpu() / 2 + 0.5, g).to(picture) * 2 - 1


def recoloured(rgb: Tensor, g: Generator, amount: float = 1.0) -> Tensor:
    """[3,h,w] in [0,1] under another light: gamma, gain a channel, a ramp across it, saturation."""
    h, w = rgb.shape[-2:]
    gain = torch.exp(
        0.3 * amount * torch.randn((), generator=g) + 0.12 * amount * torch.randn(3, 1, 1, generator=g)
    )
    y, x = torch.meshgrid(torch.linspace(-1, 1, h), torch.linspace(-1, 1, w), indexing="ij")
    angle = uniform(0, 2 * math.pi, g)
    steepness = abs(uniform(-0.5, 0.5, g)) * amount
    ramp = torch.exp(steepness * (x * math.cos(angle) + y * math.sin(angle)))
    curved = rgb.clamp(1e-4, 1) ** torch.exp(0.25 * amount * torch.randn((), generator=g))
    grey = curved.mean(0, keepdim=True)
    coloured = grey + (curved - grey) * uniform(1 - 0.3 * amount, 1 + 0.3 * amount, g)
    return (coloured * gain * ramp).clamp(0, 1)
