"""What a base of composites is shown in training: the object's cut-out, in part under a random other light.

If a cut-out is shown in wrong colours, its true ones have to come from the object's tokens and weights.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from ldm.compositing.composite import VISIBLE, placed
from ldm.data.pairs import happens, sample_generator, uniform

RECOLOUR_STREAM = 2**35  # added to the seed: the colours are independent of pictures and noise


@dataclass(frozen=True)
class CompositesInTraining:
    """What the masked regions of training samples show: the reference's cut-out at the object's place.

    `recolour`: share of the samples whose cut-out has other, random colours.
    """

    recolour: float = 0.0
    seed: int = 0

    def __call__(self, batch: Mapping[str, Tensor]) -> Tensor:
        """`reference` [b,3,R,R], `place` [b,4], `mask` [b,1,S,S], sample numbers `index` [b] => [b,3,S,S]."""
        pictures = batch["reference"][:, :3]
        if self.recolour:
            numbered = zip(pictures, batch["index"].tolist(), strict=True)
            pictures = torch.stack([self._recoloured(picture, number) for picture, number in numbered])
        return placed(pictures, batch["place"], batch["mask"])

    def _recoloured(self, picture: Tensor, number: int) -> Tensor:
        generator = sample_generator(RECOLOUR_STREAM + self.seed, number)
        chosen = happens(self.recolour, generator)
        return recoloured_cut_out(picture, generator) if chosen else picture


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


def recoloured_cut_out(picture: Tensor, g: Generator) -> Tensor:
    """An object [3,h,w] in [-1,1] on mid-grey, under another light; the mid-grey stays."""
    visible = (picture.abs() > VISIBLE).any(0, keepdim=True)
    changed = recoloured(picture.cpu() / 2 + 0.5, g).to(picture) * 2 - 1
    return torch.where(visible, changed, picture)
