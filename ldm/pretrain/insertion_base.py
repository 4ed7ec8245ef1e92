"""Third stage of a base on insertion samples: what it starts from, and its validation.

It may start from the UNet and the conditioner of another base whose autoencoder has the same number of cells
but other channels.
"""

from __future__ import annotations

from typing import Any

import torch
from einops import einsum, rearrange
from torch import Tensor, nn

from ldm.models.base import Base
from ldm.pretrain.base import BaseTraining
from ldm.pretrain.insertion_measure import PARTS, InsertionMeasure
from ldm.pretrain.insertion_samples import InsertionBatch

OUTER = ("conv_in.weight", "conv_in.bias", "conv_out.weight", "conv_out.bias")


@torch.no_grad()
def latent_map(ours: Tensor, theirs: Tensor) -> Tensor:
    """The linear map from latents [n,c] to those of another autoencoder [n,d] of the same cells, [d,c]."""
    return torch.linalg.lstsq(ours.double(), theirs.double()).solution.T.float()


@torch.no_grad()
def start_from(base: Base, other: Base, images: Tensor) -> None:
    """Take over another base's conditioner, and its UNet: the inner layers as they are.

    First and last layer see and give the other base's latents by a linear map, found on images [n,3,S,S] in
    [-1,1]. Raises ValueError if the inner layers or the latents differ in size.
    """
    a, b = base.architecture, other.architecture
    if a.latent_size != b.latent_size or a.unet_channels != b.unet_channels:
        raise ValueError(
            f"the {a.name} base cannot start from {b.name}: latents of {a.latent_size} and {b.latent_size} a "
            f"side, UNet channels {list(a.unet_channels)} and {list(b.unet_channels)}; these must be the same"
        )
    small = nn.functional.interpolate(images, size=b.image_size, mode="area")
    pairs = [(base.encode(x), other.encode(y)) for x, y in zip(images.split(8), small.split(8), strict=True)]
    ours, theirs = (torch.cat([rearrange(pair[i], "b c h w -> (b h w) c") for pair in pairs]) for i in (0, 1))
    to_theirs, to_ours = latent_map(ours, theirs), latent_map(theirs, ours)
    state, own = other.unet.state_dict(), base.unet.state_dict()
    base.unet.load_state_dict(state | {key: own[key] for key in OUTER})
    base.conditioner.load_state_dict(other.conditioner.state_dict())
    d, first = len(to_theirs), state["conv_in.weight"]
    x_t, masked = (einsum(first[:, i : i + d], to_theirs, "o d x y, d c -> o c x y") for i in (0, d))
    base.unet.conv_in.weight.copy_(torch.cat([x_t, masked, first[:, 2 * d :]], 1))
    base.unet.conv_in.bias.copy_(state["conv_in.bias"])
    base.unet.conv_out.weight.copy_(einsum(state["conv_out.weight"], to_ours, "d i x y, c d -> c i x y"))
    base.unet.conv_out.bias.copy_(to_ours @ state["conv_out.bias"])


class InsertionTraining(BaseTraining):
    """`BaseTraining` that is validated on a batch of fixed samples for each of PARTS."""

    def __init__(self, base: Base, lr: float, steps: int, measure: InsertionMeasure, **more: Any) -> None:
        super().__init__(base, lr, steps, **more)
        self.measure = measure

    def validation_step(self, batch: InsertionBatch, i: int) -> None:
        found = self.measure(self.base, PARTS[i], batch, self.global_step)
        self.log_dict(found, batch_size=len(batch.image))
