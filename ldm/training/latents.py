"""Latents of zero mean and unit variance in every channel, folded into the autoencoder's own weights."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from diffusers import AutoencoderKL
from einops import rearrange
from torch import Tensor


@torch.no_grad()
def latent_statistics(vae: AutoencoderKL, batches: Iterable[Tensor]) -> tuple[Tensor, Tensor]:
    """Images [b,3,H,W] => mean and standard deviation [c] of the posterior means."""
    modes = [vae.encode(x).latent_dist.mode().float() for x in batches]
    latents = torch.cat([rearrange(mode, "b c h w -> (b h w) c") for mode in modes])
    return latents.mean(0), latents.std(0)


@torch.no_grad()
def normalise_latents(vae: AutoencoderKL, mean: Tensor, std: Tensor) -> None:
    """z => (z - mean) / std inside `quant_conv` and back inside `post_quant_conv`: decoded as before."""
    quant, post = vae.quant_conv, vae.post_quant_conv
    c = len(mean)
    quant.bias[:c] = (quant.bias[:c] - mean) / std
    quant.weight[:c] /= std[:, None, None, None]
    quant.bias[c:] -= 2 * std.log()  # the other half are log-variances
    post.bias += post.weight[:, :, 0, 0] @ mean
    post.weight *= std[:, None, None]
