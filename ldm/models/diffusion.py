"""The formulas of diffusion with Paint-by-Example's inputs, as pure functions."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

STEPS = 1000  # T
BETA_START, BETA_END = 0.00085, 0.012
GREY_TOLERANCE = 1e-3  # mean squared difference of latents: a cell that shows more than mid-grey


def betas() -> Tensor:
    """The noise schedule's betas [T]: scaled linear, 0.00085 .. 0.012; float64."""
    return torch.linspace(BETA_START**0.5, BETA_END**0.5, STEPS, dtype=torch.float64) ** 2


def alpha_bar(device: torch.device | str = "cpu") -> Tensor:
    """Cumulative signal power [T] in (0,1), fp32, computed in float64."""
    return torch.cumprod(1 - betas(), dim=0).float().to(device)


def add_noise(x_0: Tensor, eps: Tensor, t: Tensor) -> Tensor:
    """x_t = sqrt(alpha_bar_t) x_0 + sqrt(1 - alpha_bar_t) eps (DDPM, eq. 4); [b,c,h,w], t [b] in 0 .. T-1."""
    a = alpha_bar(x_0.device)[t].to(x_0.dtype)[:, None, None, None]
    return a.sqrt() * x_0 + (1 - a).sqrt() * eps


def eps_of_v(v: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
    """v = sqrt(alpha_bar_t) eps - sqrt(1 - alpha_bar_t) x_0 => eps [b,c,h,w], fp32; t [b] or scalar."""
    a = alpha_bar(x_t.device)[t].reshape(-1, 1, 1, 1)
    return a.sqrt() * v.float() + (1 - a).sqrt() * x_t.float()


def differs_from_grey(masked: Tensor, grey: Tensor) -> Tensor:
    """Where masked-image latents [b,c,h,w] are not those of mid-grey, `grey` [c] => bool [b,1,h,w]."""
    return (masked - grey[:, None, None]).square().mean(1, keepdim=True) > GREY_TOLERANCE


def eps_of_change(out: Tensor, x_t: Tensor, t: Tensor, masked: Tensor, shown: Tensor) -> Tensor:
    """v and change [b,2c,h,w] => eps [b,c,h,w], fp32: of v, but where `shown`, of x_0 = masked + change.

    So detail that is shown need not pass through the UNet, and an output of 0 keeps it.
    """
    v, change = out.float().chunk(2, 1)
    a = alpha_bar(x_t.device)[t].reshape(-1, 1, 1, 1)
    kept = (x_t.float() - a.sqrt() * (masked.float() + change)) / (1 - a).sqrt()
    return torch.where(shown, kept, eps_of_v(v, x_t, t))


def latent_mask(mask: Tensor, size: tuple[int, int], antialias: bool = False) -> Tensor:
    """Mask [b,1,H,W] (1 = fill) => [b,1,h,w] in [0,1]; bilinear.

    Without antialiasing, as in Paint-by-Example's code (torchvision 0.12 did not antialias tensors), a cell
    is the mean of the four pixels at its centre, so that most cells are 0 or 1.
    """
    return F.interpolate(mask, size=size, mode="bilinear", antialias=antialias)


def masked_image(image: Tensor, mask: Tensor, shown: Tensor | None = None) -> Tensor:
    """Image [b,3,H,W] in [-1,1] with its masked region (1 = fill) replaced by mid-grey, 0, or by `shown`.

    `shown`: [b,3,H,W]; further channels are ignored.
    """
    kept = image * (1 - mask)
    return kept if shown is None else kept + shown[:, :3] * mask


def unet_input(x_t: Tensor, masked: Tensor, mask: Tensor) -> Tensor:
    """The UNet's input: x_t, masked-image latents [b,c,h,w], mask [b,1,h,w] (1 = fill) => [b,2c+1,h,w]."""
    return torch.cat([x_t, masked, 1 - mask], dim=1)  # Paint-by-Example feeds 1 = keep


def classifier_free_guidance(eps_null: Tensor, eps_cond: Tensor, guidance_scale: float) -> Tensor:
    """Classifier-free guidance: eps_null + s (eps_cond - eps_null)."""
    return eps_null + guidance_scale * (eps_cond - eps_null)


def v_weight(t: Tensor) -> Tensor:
    """Weights [b] by which the squared error of eps at steps t [b] becomes that of v (Salimans and Ho 2022).

    With equal weights of eps the noisiest steps, which determine composition and hue, are hardly learnt.
    """
    return 1 / alpha_bar(t.device)[t]


def eps_loss(
    eps: Tensor, predicted: Tensor, weight: Tensor | None = None, where: Tensor | None = None
) -> Tensor:
    """Mean squared error of the predicted noise, [b,c,h,w] => scalar.

    `weight` [b]: of each sample; `where` [b,1,h,w]: of each cell.
    """
    error = (predicted.float() - eps.float()) ** 2
    if where is not None:
        error = error * where / where.mean().clamp_min(1e-3)
    return error.mean() if weight is None else (weight[:, None, None, None] * error).mean()
