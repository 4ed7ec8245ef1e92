"""The inpainting model: UNet and VAE behind encode / decode / eps, for given contexts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ldm.models.architecture import Architecture, build_unet, build_vae
from ldm.models.cross_attention import Context, Contexts, cross_attentions, fold, use_few_token_attention
from ldm.models.diffusion import STEPS, differs_from_grey, eps_of_change, eps_of_v, latent_mask, unet_input

GREY_PIXEL = 1e-4  # in [-1,1]: 8 bits have no mid-grey, so no picture's pixel is as near to it


class InpaintingModel(nn.Module):
    """UNet and VAE of a base. Images are [b,3,H,W] in [-1,1], masks [b,1,H,W] with 1 = fill."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.architecture = architecture
        self.unet = build_unet(architecture)
        self.vae = build_vae(architecture)
        use_few_token_attention(self.unet)
        self._grey: Tensor | None = None  # latents of mid-grey, once they are needed
        self.run = call  # how functions of the UNet are called; `ldm.models.runtime` may compile them

    @property
    def device(self) -> torch.device:
        return self.unet.device

    @torch.no_grad()
    def encode(self, image: Tensor, noise: Tensor | None = None) -> Tensor:
        """Image [b,3,H,W] => latents [b,c,H/f,W/f] of about unit variance: the posterior's mean.

        With standard normal `noise` [b,c,H/f,W/f]: the posterior's sample for this noise. A deterministic
        autoencoder has no posterior and ignores it.
        """
        encoded = self.vae.encode(image.to(self.vae.dtype))
        if isinstance(encoded, Tensor):
            return encoded * self.architecture.vae_scale
        posterior = encoded.latent_dist
        latents = posterior.mode() if noise is None else posterior.mean + posterior.std * noise
        return latents * self.architecture.vae_scale

    def mark_grey(self, latents: Tensor, masked: Tensor, mask: Tensor) -> Tensor:
        """Latents [b,c,h,w] of a masked image [b,3,H,W] => the same, with one constant where it is mid-grey.

        An autoencoder with attention encodes mid-grey differently in every picture; by the constant
        `differs_from_grey` knows these cells. Only for a base that predicts changes; `mask` [b,1,H,W].
        """
        if self.architecture.prediction != "change":
            return latents
        grey = ((masked.abs().amax(1, keepdim=True) < GREY_PIXEL) & (mask > 0.5)).float()
        cells = F.avg_pool2d(grey, self.architecture.vae_factor) > 0.5
        return torch.where(cells, self._grey_latents(latents.device)[:, None, None].to(latents), latents)

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Latents [b,c,h,w] => image [b,3,f*h,f*w] in [-1,1]."""
        decoded = self.vae.decode((latents / self.architecture.vae_scale).to(self.vae.dtype))
        image = decoded if isinstance(decoded, Tensor) else decoded.sample
        return image.float().clamp(-1, 1)

    def latent_mask(self, mask: Tensor) -> Tensor:
        """Mask [b,1,H,W] (1 = fill) => [b,1,H/f,W/f] in [0,1], as in this base's training."""
        f, antialias = self.architecture.vae_factor, self.architecture.mask_antialias
        return latent_mask(mask, (mask.shape[-2] // f, mask.shape[-1] // f), antialias)

    def eps(self, x_t: Tensor, t: Tensor, masked: Tensor, mask: Tensor, context: Context) -> Tensor:
        """The predicted noise [b,c,h,w]; t [b] or scalar, mask [b,1,h,w], context [b,n,d] or folded."""
        out = self.run(forward, self.unet, self.to_unet_dtype(unet_input(x_t, masked, mask)), t, context)
        return self.as_eps(out, x_t, t, masked)

    def as_eps(self, out: Tensor, x_t: Tensor, t: Tensor, masked: Tensor) -> Tensor:
        """The UNet's output => the predicted noise [b,c,h,w] in the precision of x_t, at least fp32."""
        out = out.to(torch.promote_types(torch.float32, x_t.dtype))
        if self.architecture.prediction == "change":
            return eps_of_change(out, x_t, t, masked, self.differs_from_grey(masked))
        return out if self.architecture.prediction == "eps" else eps_of_v(out, x_t, t)

    def differs_from_grey(self, masked: Tensor) -> Tensor:
        """Where masked-image latents [b,c,h,w] show more than mid-grey, bool [b,1,h,w]."""
        return differs_from_grey(masked.float(), self._grey_latents(masked.device))

    def _grey_latents(self, device: torch.device) -> Tensor:
        """The latents [c] of mid-grey, fp32."""
        if self._grey is None:
            side = 8 * self.architecture.vae_factor  # the middle does not see the border
            self._grey = self.encode(torch.zeros(1, 3, side, side, device=device))[0, :, 4, 4].float()
        return self._grey.to(device)

    def training_timesteps(self, t: Tensor, masked: Tensor, mask: Tensor) -> Tensor:
        """Steps t [b] as this base is trained on them.

        It is the last one if most of the mask [b,1,h,w] shows something: what is shown need not be drawn, and
        its change of light is predicted from noise alone in one step.
        """
        if self.architecture.prediction != "change":
            return t
        inside = mask > 0.5  # of mid-grey, cells at the edge see what is beside it
        shown = (self.differs_from_grey(masked) & inside).sum((1, 2, 3))
        return torch.where(2 * shown > inside.sum((1, 2, 3)), STEPS - 1, t)

    def to_unet_dtype(self, x: Tensor) -> Tensor:
        """Cast to the UNet's dtype."""
        return x.to(self.unet.conv_in.weight.dtype)

    def folded(self, conditional: Tensor, unconditional: Context) -> Contexts:
        """Contexts [b,n,d] folded with the current weights; `unconditional` may be folded already."""
        return Contexts(self.fold(conditional), self.fold(unconditional))

    def fold(self, context: Context) -> Context:
        """A context [b,n,d] folded with the current weights, in the UNet's dtype; a folded one as it is."""
        if not isinstance(context, Tensor):
            return context
        return fold(dict(cross_attentions(self.unet)), context).to(self.unet.conv_in.weight)


def call(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function as it is, without compiling it."""
    return function(*arguments)


def forward(unet: nn.Module, x: Tensor, t: Tensor, context: Context) -> Tensor:
    """The UNet's output [b,c,h,w] for its input x [b,2c+1,h,w] at time steps t."""
    return unet(x, t, context).sample
