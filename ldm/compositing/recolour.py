"""A picture under another light at random: what a model learns to undo.

A base is trained on such pictures, and so is an object: if its cut-out is shown in wrong colours, its true
ones have to come from its tokens and its weights.
"""

from __future__ import annotations

import math

import torch
from torch import Generator, Tensor

from ldm.compositing.composite import VISIBLE


def recoloured(rgb: Tensor, g: Generator, amount: float = 1.0) -> Tensor:
    """[3,h,w] in [0,1] under another light: gamma, gain a channel, a ramp across it, saturation."""
    h, w = rgb.shape[-2:]
    gain = torch.exp(
        0.3 * amount * torch.randn((), generator=g) + 0.12 * amount * torch.randn(3, 1, 1, generator=g)
    )
    y, x = torch.meshgrid(torch.linspace(-1, 1, h), torch.linspace(-1, 1, w), indexing="ij")
    angle = _uniform(0, 2 * math.pi, g)
    steepness = abs(_uniform(-0.5, 0.5, g)) * amount
    ramp = torch.exp(steepness * (x * math.cos(angle) + y * math.sin(angle)))
    curved = rgb.clamp(1e-4, 1) ** torch.exp(0.25 * amount * torch.randn((), generator=g))
    grey = curved.mean(0, keepdim=True)
    coloured = grey + (curved - grey) * _uniform(1 - 0.3 * amount, 1 + 0.3 * amount, g)
    return (coloured * gain * ramp).clamp(0, 1)


def recoloured_cut_out(picture: Tensor, g: Generator) -> Tensor:
    """An object [3,h,w] in [-1,1] on mid-grey, under another light; the mid-grey stays."""
    visible = (picture.abs() > VISIBLE).any(0, keepdim=True)
    changed = recoloured(picture.cpu() / 2 + 0.5, g).to(picture) * 2 - 1
    return torch.where(visible, changed, picture)


def _uniform(low: float, high: float, g: Generator) -> float:
    return low + (high - low) * float(torch.rand((), generator=g))
