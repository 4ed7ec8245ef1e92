"""The autoencoder of residual convolutions: what it is before training, its interface, its statistics."""

from __future__ import annotations

import torch
from torch import Tensor

from ldm.models.autoencoder import Autoencoder


def images(count: int = 24, side: int = 32, seed: int = 0) -> Tensor:
    """Smooth random pictures [count,3,side,side] in [-1,1]."""
    coarse = torch.rand(count, 3, 5, 5, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    return torch.nn.functional.interpolate(coarse, size=(side, side), mode="bicubic").clamp(-1, 1)


def test_shapes_and_factor() -> None:
    net = Autoencoder((12, 48), channels=5, layers=1)
    latents = net.encode(images(2))
    assert net.factor == 4 and latents.shape == (2, 5, 8, 8) and net.decode(latents).shape == (2, 3, 32, 32)


def test_untrained_with_all_components_it_gives_the_image_back() -> None:
    net = Autoencoder((12, 48), channels=48, layers=2)
    net.start_from(images() + 0.1 * torch.randn(24, 3, 32, 32, generator=torch.Generator().manual_seed(1)))
    x = images(3, seed=2)
    assert (net.decode(net.encode(x)) - x).abs().max() < 1e-4


def test_untrained_with_few_components_no_other_linear_code_is_better() -> None:
    """The error equals what the left-out eigenvalues of the pixels' second moments say."""
    net, x = Autoencoder((12, 48), channels=6, layers=1), images()
    net.start_from(x)
    blocks = torch.nn.functional.pixel_unshuffle(torch.nn.functional.pixel_unshuffle(x, 2), 2)
    pixels = blocks.movedim(1, -1).flatten(0, -2).double()
    lost = torch.linalg.eigvalsh(pixels.T @ pixels / len(pixels))[:-6].sum() / 48
    error = (net.decode(net.encode(x)) - x).square().mean()
    assert abs(error.item() / lost.item() - 1) < 0.01


def test_normalised_latents_have_unit_variance_and_decode_as_before() -> None:
    net, x = Autoencoder((12, 48), channels=6, layers=1), images()
    before = net.decode(net.encode(x))
    net.normalise(x)
    latents = net.encode(x)
    assert latents.mean((0, 2, 3)).abs().max() < 1e-4 and (latents.std((0, 2, 3)) - 1).abs().max() < 1e-3
    assert (net.decode(latents) - before).abs().max() < 1e-4
    net.normalise(x)
    assert torch.allclose(net.encode(x), latents, atol=1e-4), "normalising twice is normalising once"
