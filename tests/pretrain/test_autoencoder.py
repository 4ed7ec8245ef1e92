"""Latent statistics folded into a VAE's own weights."""

from __future__ import annotations

import torch
from torch import Tensor

from ldm.pretrain.autoencoder import latent_statistics, normalise_latents
from tests.fixtures import tiny


def image(b: int = 3) -> Tensor:
    return torch.rand(b, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1


@torch.no_grad()
def test_normalised_latents_have_unit_statistics_and_decode_as_before() -> None:
    vae, x = tiny.loaded_vae(), image()
    before = vae.encode(x).latent_dist
    decoded = vae.decode(before.mode()).sample
    mean, std = latent_statistics(vae, [x[:2], x[2:]])
    assert mean.shape == std.shape == (4,)
    assert mean.abs().max() > 0.05 and (std - 1).abs().max() > 0.05, "else the test shows nothing"
    normalise_latents(vae, mean, std)
    after = vae.encode(x).latent_dist
    new_mean, new_std = latent_statistics(vae, [x])
    assert torch.allclose(new_mean, torch.zeros(4), atol=1e-4)
    assert torch.allclose(new_std, torch.ones(4), atol=1e-4)
    assert torch.allclose(after.std * std.view(4, 1, 1), before.std, rtol=1e-4), "its noise shrinks with it"
    assert torch.allclose(vae.decode(after.mode()).sample, decoded, atol=1e-4)
