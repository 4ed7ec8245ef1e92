"""DeepCache: deep features of the UNet are reused between steps, where they hardly change.

DeepCache (Ma et al. 2023): every k-th step runs the whole UNet and keeps what goes into the last layers of
its highest resolution; the steps between run only those and the first layers, whose skips they take.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest
from typing import Any

import torch
from torch import Tensor, nn

from ldm.models.cross_attention import Context
from ldm.models.diffusion import unet_input
from ldm.models.inpainting_model import InpaintingModel

FRESH = 2  # layers at either end that every step runs: conv_in and one, and the last two


class DeepCache:
    """A model that runs its whole UNet at every `every`-th call of one sampling; new for each sampling."""

    def __init__(self, model: InpaintingModel, every: int) -> None:
        self.model, self.every = model, every
        self.deep: Tensor | None = None
        self.age = 0

    def eps(self, x_t: Tensor, t: Tensor, masked: Tensor, mask: Tensor, context: Context) -> Tensor:
        """As `InpaintingModel.eps`; a batch may be the last part of the one before, where guidance ends."""
        model, unet = self.model, self.model.unet
        x = model.to_unet_dtype(unet_input(x_t, masked, mask))
        self.age += 1
        if self.deep is None or self.age >= self.every or len(self.deep) < len(x):
            out, self.deep = model.run(whole, unet, x, t, context)
            self.age = 0
        else:
            out = model.run(shallow, unet, x, t, context, self.deep[-len(x) :])
        return model.as_eps(out, x_t, t, masked)


def whole(unet: nn.Module, x: Tensor, t: Tensor, context: Context) -> tuple[Tensor, Tensor]:
    """The UNet's output [b,c,h,w] of x [b,2c+1,h,w], and the deep features [b,d,h,w] that `shallow` needs."""
    emb = _time(unet, x, t)
    h = unet.conv_in(x)
    skips: tuple[Tensor, ...] = (h,)
    for block in unet.down_blocks:
        h, more = block(h, emb, **_seen(block, context))
        skips += more
    h = unet.mid_block(h, emb, encoder_hidden_states=context)
    for block in unet.up_blocks[:-1]:
        own, skips = skips[-len(block.resnets) :], skips[: -len(block.resnets)]
        size = skips[-1].shape[2:]
        h = block(h, res_hidden_states_tuple=own, temb=emb, upsample_size=size, **_seen(block, context))
    last = _layers(unet.up_blocks[-1])
    for layer, skip in zip(last[:-FRESH], skips[: FRESH - 1 : -1], strict=True):
        h = _run(layer, torch.cat([h, skip], dim=1), emb, context)
    return _finish(unet, h, emb, context, skips[:FRESH]), h


def shallow(unet: nn.Module, x: Tensor, t: Tensor, context: Context, deep: Tensor) -> Tensor:
    """The UNet's output [b,c,h,w] of x [b,2c+1,h,w], with the deep features of another step."""
    emb = _time(unet, x, t)
    skips = [unet.conv_in(x)]
    for layer in _layers(unet.down_blocks[0])[: FRESH - 1]:
        skips.append(_run(layer, skips[-1], emb, context))
    return _finish(unet, deep, emb, context, skips)


def _finish(unet: nn.Module, h: Tensor, emb: Tensor, context: Context, skips: Sequence[Tensor]) -> Tensor:
    """The last FRESH layers and the output."""
    for layer, skip in zip(_layers(unet.up_blocks[-1])[-FRESH:], reversed(skips), strict=True):
        h = _run(layer, torch.cat([h, skip], dim=1), emb, context)
    return unet.conv_out(unet.conv_act(unet.conv_norm_out(h)))


def _time(unet: nn.Module, x: Tensor, t: Tensor) -> Tensor:
    """The embedding of the time step."""
    return unet.time_embedding(unet.get_time_embed(sample=x, timestep=t))


def _layers(block: nn.Module) -> list[tuple[nn.Module, nn.Module | None]]:
    """A block's residual layers, each with the transformer behind it, if there is one."""
    return list(zip_longest(block.resnets, getattr(block, "attentions", ())))


def _run(layer: tuple[nn.Module, nn.Module | None], h: Tensor, emb: Tensor, context: Context) -> Tensor:
    resnet, attention = layer
    h = resnet(h, emb)
    return attention(h, encoder_hidden_states=context, return_dict=False)[0] if attention else h


def _seen(block: nn.Module, context: Context) -> dict[str, Any]:
    """The context, for a block that uses it."""
    return {"encoder_hidden_states": context} if hasattr(block, "attentions") else {}
