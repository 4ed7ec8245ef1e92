"""A base model: UNet, VAE and conditioner behind encode / decode / context / eps; loading and saving it."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor, nn

from ldm.models.architecture import Architecture, build_unet, build_vae
from ldm.models.attention import use_few_token_attention
from ldm.models.checkpoint import read_state, write_folder
from ldm.models.conditioner import Conditioner, clip_normalised
from ldm.models.diffusion import unet_input
from ldm.models.ldm_keys import is_ldm, ldm_to_house, spell_clip
from ldm.models.weights import fingerprint, load_strictly

PRIOR_ENCODER = "conditioner.prior_encoder."  # the paper's own; belongs to an object, not to a base


class Base(nn.Module):
    """Everything that inserting needs. Images are [b,3,H,W] in [-1,1], masks [b,1,H,W] with 1 = fill."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.architecture = architecture
        self.unet = build_unet(architecture)
        self.vae = build_vae(architecture)
        self.conditioner = Conditioner(architecture)
        use_few_token_attention(self.unet)

    @property
    def device(self) -> torch.device:
        return self.conditioner.learnable_vector.device

    @torch.no_grad()
    def encode(self, image: Tensor) -> Tensor:
        """Image [b,3,H,W] => latents [b,4,H/f,W/f] of unit variance: the posterior's mean, not a draw."""
        return self.vae.encode(image.to(self.vae.dtype)).latent_dist.mode() * self.architecture.vae_scale

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Latents [b,4,h,w] => image [b,3,f*h,f*w] in [-1,1]."""
        scaled = latents / self.architecture.vae_scale
        return self.vae.decode(scaled.to(self.vae.dtype)).sample.float().clamp(-1, 1)

    def context(self, reference: Tensor) -> Tensor:
        """Reference images [b,3,R,R] in [-1,1] => context [b,1+N,d]: reference, then few-shot tokens."""
        c = self.conditioner
        return c(c.pooled(clip_normalised(reference)), c.few_shot())

    def eps(self, x_t: Tensor, t: Tensor, masked: Tensor, mask: Tensor, context: Tensor) -> Tensor:
        """The predicted noise [b,4,h,w]; t [b] or scalar, mask [b,1,h,w], context [b,n,d]."""
        return self.unet(unet_input(x_t, masked, mask), t, context).sample


def house_state(base: Base) -> dict[str, Tensor]:
    """The base's weights under house names, without anything that belongs to an object."""
    own = spell_clip(base.state_dict())
    return {
        k: v for k, v in own.items() if not k.startswith(PRIOR_ENCODER) and not k.endswith(".few_shot_tokens")
    }


def base_fingerprint(base: Base) -> str:
    """16 hex digits of the weights that an object file builds on."""
    return fingerprint(house_state(base))


def load_base(path: Path, architecture: Architecture, what: str = "") -> Base:
    """Build the base and fill it from Paint-by-Example's `model.ckpt`, LDM safetensors or our own folder.

    `what` names the base in errors, with its config: "the base of configs/v.yaml". Raises FileNotFoundError /
    ValueError in one line if the file is missing, damaged or of another shape.
    """
    state = read_state(path)
    state = ldm_to_house(state) if is_ldm(state) else state
    state = {key: value for key, value in state.items() if not key.startswith(PRIOR_ENCODER)}
    base = Base(architecture)
    load_strictly(base, spell_clip(state, base.state_dict()), what or f"the {architecture.name} base")
    return base.eval().requires_grad_(False)


def save_base(base: Base, folder: Path, dtype: torch.dtype = torch.float16) -> list[Path]:
    """Write the weights as safetensors shards of at most 16 MB, sizes in their metadata; returns them."""
    metadata = {"architecture": json.dumps(asdict(base.architecture)), "fingerprint": base_fingerprint(base)}
    return write_folder(folder, house_state(base), dtype=dtype, metadata=metadata)
