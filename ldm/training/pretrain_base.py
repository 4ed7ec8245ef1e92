"""Third stage of a base: UNet, conditioner and image encoder together, as Paint-by-Example was trained.

Beyond it: a sample's reference comes with 0-5 further views of the object as few-shot tokens, so that they
mean something before any tuning; the loss counts the region to fill more, and noise levels by min-SNR (Hang
et al. 2023).
"""

from __future__ import annotations

import pytorch_lightning as pl
import torch
from torch import Tensor

from ldm.data.image import from_bytes
from ldm.models.attention import use_few_token_attention
from ldm.models.base import Base
from ldm.models.conditioner import clip_normalised
from ldm.models.diffusion import STEPS, add_noise, level_weight
from ldm.training.bank import Encoded
from ldm.training.schedule import warm_cosine

KEPT = 0.25  # weight of the loss outside the region to fill
MIN_SNR = 5.0


def weighted_loss(eps: Tensor, predicted: Tensor, mask: Tensor, t: Tensor) -> Tensor:
    """Squared error of [b,4,h,w] by noise level t [b]; outside mask [b,1,h,w] it counts KEPT times."""
    level = level_weight(t, MIN_SNR).to(eps)[:, None, None, None]
    where = KEPT + (1 - KEPT) * mask
    error = (predicted.float() - eps) ** 2 * where / where.mean((1, 2, 3), keepdim=True)
    return (level * error).mean()


class BaseTraining(pl.LightningModule):
    """Trains everything but the VAE."""

    def __init__(self, base: Base, lr: float, steps: int, drop_context: float = 0.1) -> None:
        super().__init__()
        self.base, self.lr, self.steps, self.drop_context = base, lr, steps, drop_context
        base.vae.requires_grad_(False)
        use_few_token_attention(base.unet, all_learn=True)

    def contexts(self, references: Tensor) -> Tensor:
        """References, see `Encoded`, => context [b,1+k,d] of the reference and k further views.

        k is random, 0 .. n. With probability `drop_context` a sample's context is the unconditional vector.
        """
        k = int(torch.randint(references.shape[1], ()))
        pooled, further = self.pooled(references[:, : 1 + k]).split([1, k], dim=1)
        context = self.base.conditioner(pooled[:, 0], further if k else None)
        dropped = torch.rand(len(context), 1, 1, device=context.device) < self.drop_context
        return torch.where(dropped, self.base.conditioner.unconditional(context), context)

    def pooled(self, references: Tensor) -> Tensor:
        """References, see `Encoded`, => pooled [b,1+k,c]; only the first one teaches the image encoder."""
        if references.dtype != torch.uint8:
            return references
        images = clip_normalised(from_bytes(references))
        pooled = self.base.conditioner.clip(pixel_values=images[:, 0]).pooler_output[:, None]
        if images.shape[1] == 1:
            return pooled
        further = self.base.conditioner.pooled(images[:, 1:].flatten(0, 1))
        return torch.cat([pooled, further.unflatten(0, (len(images), -1))], dim=1)

    def training_step(self, batch: Encoded, i: int) -> Tensor:
        t = torch.randint(STEPS, (len(batch.x_0),), device=batch.x_0.device)
        eps = torch.randn_like(batch.x_0)
        context = self.contexts(batch.references)
        predicted = self.base.eps(add_noise(batch.x_0, eps, t), t, batch.masked, batch.mask, context)
        loss = weighted_loss(eps, predicted, batch.mask, t)
        self.log("loss", loss, prog_bar=True)
        return loss

    def configure_optimizers(self) -> dict:
        weights = [p for p in self.base.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(weights, lr=self.lr, betas=(0.9, 0.99), weight_decay=0.01)
        return {"optimizer": optimizer, "lr_scheduler": warm_cosine(optimizer, self.steps, warmup=200)}
