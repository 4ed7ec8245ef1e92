"""The formulas against diffusers' scheduler, and Paint-by-Example's conventions."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler
from PIL import Image
from torch import Tensor

from ldm.models.diffusion import (
    STEPS,
    add_noise,
    alpha_bar,
    classifier_free_guidance,
    differs_from_grey,
    eps_loss,
    eps_of_change,
    eps_of_v,
    latent_mask,
    masked_image,
    unet_input,
    v_weight,
)


def oracle() -> DDPMScheduler:
    return DDPMScheduler(1000, beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")


def test_alpha_bar_is_the_schedulers() -> None:
    ours, theirs = alpha_bar(), oracle().alphas_cumprod
    assert ours.shape == (STEPS,) and ours.dtype == torch.float32
    assert torch.allclose(ours, theirs, rtol=2e-5, atol=0)  # theirs is a float32 product
    assert (ours[1:] < ours[:-1]).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_noise_is_added_as_the_scheduler_does(dtype: torch.dtype) -> None:
    g = torch.Generator().manual_seed(0)
    x_0, eps = torch.randn(2, 3, 4, 8, 8, generator=g, dtype=dtype)
    t = torch.tensor([0, 500, 999])
    x_t = add_noise(x_0, eps, t)
    assert x_t.dtype == dtype
    assert torch.allclose(x_t, oracle().add_noise(x_0, eps, t).to(dtype), atol=1e-4)
    assert torch.allclose(x_t[0], x_0[0], atol=0.15) and torch.allclose(x_t[2], eps[2], atol=0.35)


def test_v_gives_back_the_noise() -> None:
    g = torch.Generator().manual_seed(0)
    x_0, eps = torch.randn(2, 3, 4, 8, 8, generator=g)
    t = torch.tensor([0, 500, 999])
    x_t, v = add_noise(x_0, eps, t), oracle().get_velocity(x_0, eps, t)
    assert torch.allclose(eps_of_v(v, x_t, t), eps, atol=1e-4)
    assert torch.allclose(eps_of_v(v[1:2], x_t[1:2], t[1]), eps[1:2], atol=1e-4), "one step for all"


def test_unet_input_is_in_paint_by_examples_order_and_polarity() -> None:
    x_t, masked = torch.full((2, 4, 3, 3), 7.0), torch.full((2, 4, 3, 3), 9.0)
    mask = torch.zeros(2, 1, 3, 3)
    mask[:, :, 1, 1] = 1  # ours: fill the centre
    stacked = unet_input(x_t, masked, mask)
    assert stacked.shape == (2, 9, 3, 3)
    assert (stacked[:, :4] == 7).all() and (stacked[:, 4:8] == 9).all()
    assert (stacked[:, 8, 1, 1] == 0).all(), "0 = fill in the UNet's channel"
    assert (stacked[:, 8].sum((1, 2)) == 8).all(), "1 = keep in the UNet's channel"


def test_masked_image_is_grey_where_the_object_goes() -> None:
    image, mask = torch.full((1, 3, 4, 4), -0.7), torch.zeros(1, 1, 4, 4)
    mask[..., :2] = 1
    out = masked_image(image, mask)
    assert (out[..., :2] == 0).all() and torch.equal(out[..., 2:], image[..., 2:])


def fractional(mask: Tensor) -> int:
    """How many values lie between 0 and 1."""
    return int(((mask > 0) & (mask < 1)).sum())


def test_an_antialiased_latent_mask_averages() -> None:
    mask = torch.zeros(1, 1, 64, 64)
    mask[..., 32:] = 1
    small = latent_mask(mask, (8, 8), antialias=True)
    assert small.shape == (1, 1, 8, 8)
    assert (small[..., :3] == 0).all() and (small[..., 5:] == 1).all()
    assert small.mean() == pytest.approx(0.5, abs=1e-6)
    assert ((small[..., 3:5] > 0) & (small[..., 3:5] < 1)).all(), "antialiased at the border"


def test_without_antialiasing_a_latent_is_the_mean_of_its_middle_four_pixels() -> None:
    """Known answer: of f = 8 pixels a side, 3 and 4 count, so an edge is fractional at 8k + 4 only."""
    mask = torch.zeros(1, 1, 512, 512)
    mask[..., 100:203, 204:301] = 1  # 100 = 8 x 12 + 4 and 204 = 8 x 25 + 4 cut cells; 203, 301 do not
    small = latent_mask(mask, (64, 64))[0, 0]
    expected = torch.zeros(64, 64)
    expected[12:25, 25:38] = 1
    expected[12, 25:38] = expected[12:25, 25] = 0.5
    expected[12, 25] = 0.25
    assert torch.equal(small, expected) and fractional(small) == 25
    assert fractional(latent_mask(mask, (64, 64), antialias=True)) == 14 * 14 - 11 * 11
    g = torch.Generator().manual_seed(0)
    soft = torch.rand(2, 1, 512, 256, generator=g)
    middles = soft.reshape(2, 1, 64, 8, 32, 8)[:, :, :, 3:5, :, 3:5].mean((3, 5))
    assert torch.allclose(latent_mask(soft, (64, 32)), middles, atol=1e-6)


@pytest.mark.skipif("TEST_BENCH" not in os.environ, reason="TEST_BENCH: InsertSet's bench, with mask/")
def test_a_mask_of_the_paper_has_17_fractional_cells() -> None:
    with Image.open(Path(os.environ["TEST_BENCH"]) / "mask/0001_mask.png") as file:
        mask = torch.from_numpy(np.array(file.convert("L"))).float()[None, None] / 255
    assert mask.shape[2:] == (512, 512)
    assert fractional(latent_mask(mask, (64, 64))) == 17
    assert fractional(latent_mask(mask, (64, 64), antialias=True)) == 255


def test_guidance_extrapolates_from_the_unconditional() -> None:
    null, cond = torch.tensor([1.0, 2.0]), torch.tensor([2.0, 0.0])
    assert classifier_free_guidance(null, cond, 0).tolist() == [1, 2]
    assert classifier_free_guidance(null, cond, 1).tolist() == [2, 0]
    assert classifier_free_guidance(null, cond, 5).tolist() == [6, -8]


def test_loss_is_the_mean_square_in_float32() -> None:
    eps, predicted = torch.zeros(1, 4, 2, 2), torch.full((1, 4, 2, 2), 3.0, dtype=torch.bfloat16)
    loss = eps_loss(eps, predicted)
    assert loss.item() == 9 and loss.dtype == torch.float32


def test_cells_without_weight_do_not_count() -> None:
    where = torch.zeros(2, 1, 4, 4)
    where[:, :, :2] = 1
    error = torch.rand(2, 4, 4, 4)
    expected = error[:, :, :2].square().mean()
    assert torch.allclose(eps_loss(torch.zeros_like(error), error, where=where), expected)


def test_weights_make_the_loss_that_of_v() -> None:
    g = torch.Generator().manual_seed(0)
    x_0, eps, error = torch.randn(3, 4, 4, 8, 8, generator=g)
    t = torch.tensor([400, 600, 800, 999])
    x_t, v = add_noise(x_0, eps, t), oracle().get_velocity(x_0, eps, t)
    predicted = eps_of_v(v + error, x_t, t)
    loss = eps_loss(eps, predicted, v_weight(t))
    assert torch.allclose(loss, error.square().mean(), rtol=1e-3)


def test_an_output_of_zero_keeps_what_is_shown_and_mid_grey_is_predicted_as_v() -> None:
    g = torch.Generator().manual_seed(0)
    x_0, masked, eps = (torch.randn(2, 4, 6, 6, generator=g) for _ in range(3))
    grey, t = torch.tensor([0.3, -0.2, 0.1, 0.0]), torch.tensor([40, 700])
    masked[:, :, :3], masked[:, :, 3:] = grey[:, None, None], masked[:, :, 3:] + 2
    shown = differs_from_grey(masked, grey)
    assert shown.shape == (2, 1, 6, 6) and not shown[:, :, :3].any() and shown[:, :, 3:].all()
    a = alpha_bar()[t][:, None, None, None]
    x_t = add_noise(x_0, eps, t)
    v = a.sqrt() * eps - (1 - a).sqrt() * x_0
    found = eps_of_change(torch.cat([v, torch.zeros_like(v)], 1), x_t, t, masked, shown)
    clean = (x_t - (1 - a).sqrt() * found) / a.sqrt()
    assert torch.allclose(clean[:, :, :3], x_0[:, :, :3], atol=1e-4)
    assert torch.allclose(clean[:, :, 3:], masked[:, :, 3:], atol=1e-4)
    moved = eps_of_change(torch.cat([v, v], 1), x_t, t, masked, shown)
    assert torch.allclose(
        ((x_t - (1 - a).sqrt() * moved) / a.sqrt())[:, :, 3:], (masked + v)[:, :, 3:], atol=1e-4
    )
