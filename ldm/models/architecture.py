"""The borrowed parts of a base and their sizes: UNet and VAE from diffusers, CLIP from transformers.

These, and torch, are imported where they are built: that takes seconds, and a config needs only the sizes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from torch import nn
    from transformers import CLIPVisionModel

    from ldm.models.autoencoder import Autoencoder


# of settings that older bases do not name
LEGACY_DEFAULTS = {"mask_antialias": True}


@dataclass(frozen=True)
class Architecture:
    """Every size of a base, Paint-by-Example's by default; `image_size` and `reference_size` are pixels.

    `prediction` is what the UNet's output means: the noise (eps), v of Salimans & Ho (2022), or change: v
    where the masked image is mid-grey, elsewhere what is added to the latents that are shown there.
    `autoencoder`: diffusers' AutoencoderKL (kl), or `ldm.models.autoencoder` (residual).
    `mask_antialias`: whether the mask is antialiased at latent size, see `ldm.models.diffusion.latent_mask`;
    Paint-by-Example was trained without antialiasing.
    """

    name: str = "paint-by-example"
    image_size: int = 512
    reference_size: int = 224
    unet_channels: tuple[int, ...] = (320, 640, 1280, 1280)
    unet_attention: tuple[bool, ...] = (True, True, True, False)  # which levels have transformers
    unet_layers: int = 2
    unet_heads: int = 8
    context_width: int = 768
    vae_channels: tuple[int, ...] = (128, 256, 512, 512)
    vae_layers: int = 2
    vae_scale: float = 0.18215  # latents times this have about unit variance
    clip_width: int = 1024
    clip_mlp: int = 4096
    clip_layers: int = 24
    clip_heads: int = 16
    clip_patch: int = 14
    mapper_layers: int = 5
    mapper_heads: int = 1
    prediction: str = field(default="eps", metadata={"choices": ("eps", "v", "change")})
    autoencoder: str = field(default="kl", metadata={"choices": ("kl", "residual")})
    latent_channels: int = 4
    mask_antialias: bool = False

    @property
    def vae_factor(self) -> int:
        """f: pixels per latent along a side."""
        return 2 ** (len(self.vae_channels) - (self.autoencoder == "kl"))

    @property
    def latent_size(self) -> int:
        """Side of the latents of an image of `image_size` pixels."""
        return self.image_size // self.vae_factor

    @property
    def clip_tokens(self) -> int:
        """Length of CLIP's last hidden state: the class token and the patches."""
        return 1 + (self.reference_size // self.clip_patch) ** 2


def build_unet(a: Architecture) -> UNet2DConditionModel:
    """Paint-by-Example's UNet: x_t, masked-image latents and mask in, 9 channels with its VAE; eps out."""
    from diffusers import UNet2DConditionModel

    down = ["CrossAttnDownBlock2D" if attends else "DownBlock2D" for attends in a.unet_attention]
    up = ["CrossAttnUpBlock2D" if attends else "UpBlock2D" for attends in reversed(a.unet_attention)]
    return UNet2DConditionModel(
        sample_size=a.latent_size,
        in_channels=2 * a.latent_channels + 1,
        out_channels=a.latent_channels * (2 if a.prediction == "change" else 1),
        block_out_channels=a.unet_channels,
        down_block_types=tuple(down),
        up_block_types=tuple(up),
        layers_per_block=a.unet_layers,
        attention_head_dim=a.unet_heads,  # diffusers' name for the number of heads, kept for old files
        cross_attention_dim=a.context_width,
    )


def build_vae(a: Architecture) -> AutoencoderKL | Autoencoder:
    """The autoencoder of this architecture's kind; f is its `vae_factor`."""
    if a.autoencoder == "residual":
        from ldm.models.autoencoder import Autoencoder

        return Autoencoder(a.vae_channels, a.latent_channels, a.vae_layers)
    from diffusers import AutoencoderKL

    levels = len(a.vae_channels)
    return AutoencoderKL(
        block_out_channels=a.vae_channels,
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        layers_per_block=a.vae_layers,
        latent_channels=a.latent_channels,
        sample_size=a.image_size,
        scaling_factor=a.vae_scale,
    )


def set_position_ids(module: nn.Module, device: torch.device | str) -> None:
    """Fill CLIP's `position_ids`, which no checkpoint holds and a module built on the meta device lacks."""
    import torch

    for child in module.modules():
        ids = getattr(child, "position_ids", None)
        if isinstance(ids, torch.Tensor):
            child.position_ids = torch.arange(ids.shape[-1], device=device)[None]


def build_clip(a: Architecture) -> CLIPVisionModel:
    """CLIP's image encoder, without the projection that Paint-by-Example does not use."""
    from transformers import CLIPVisionConfig, CLIPVisionModel

    return CLIPVisionModel(
        CLIPVisionConfig(
            hidden_size=a.clip_width,
            intermediate_size=a.clip_mlp,
            num_hidden_layers=a.clip_layers,
            num_attention_heads=a.clip_heads,
            image_size=a.reference_size,
            patch_size=a.clip_patch,
        )
    )
