"""Second stage of a base: the image encoder, whose pooled output is to describe an object and its look.

The pooled output has three targets, each through a linear head that is dropped afterwards: ImageNet features
(what the object is), a thumbnail (its colours and layout), and a contrastive loss between views of one object
on different backgrounds (its identity).
"""

from __future__ import annotations

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn
from transformers import CLIPVisionModel

from ldm.features.imagenet import ImageNetFeatures
from ldm.models.conditioner import clip_normalised
from ldm.training.trainer import warm_cosine

THUMBNAIL = 12  # pixels a side
TEACHER_SIZE = 160  # what the ImageNet network sees
TEMPERATURE = 0.1


def view_agreement(features: Tensor) -> Tensor:
    """InfoNCE between two views of every object: features [b,2,k] => scalar."""
    a, b = F.normalize(features.float(), dim=-1).unbind(1)
    logits = a @ b.T / TEMPERATURE
    labels = torch.arange(len(a), device=a.device)
    return (F.cross_entropy(logits, labels) + F.cross_entropy(logits.T, labels)) / 2


class EncoderTraining(pl.LightningModule):
    """Distils ImageNet features, a thumbnail and view agreement into CLIP's pooled output."""

    def __init__(self, clip: CLIPVisionModel, lr: float, steps: int) -> None:
        super().__init__()
        width = clip.config.hidden_size
        self.clip, self.teacher = clip, ImageNetFeatures()
        self.to_features = nn.Linear(width, ImageNetFeatures.width)
        self.to_thumbnail = nn.Linear(width, 3 * THUMBNAIL**2)
        self.to_identity = nn.Linear(width, 128)
        self.lr, self.steps = lr, steps

    def training_step(self, views: Tensor, i: int) -> Tensor:
        images = rearrange(views[:, :2], "b v c H W -> (b v) c H W")
        pooled = self.clip(pixel_values=clip_normalised(images)).pooler_output
        with torch.no_grad():
            target = self.teacher.pooled(F.interpolate(images, TEACHER_SIZE, mode="bilinear"))
            small = F.interpolate(images, THUMBNAIL, mode="bilinear", antialias=True).flatten(1)
        semantic = 1 - F.cosine_similarity(self.to_features(pooled).float(), target.float()).mean()
        thumbnail = F.mse_loss(self.to_thumbnail(pooled).float(), small)
        agreement = view_agreement(rearrange(self.to_identity(pooled), "(b v) k -> b v k", v=2))
        loss = 2 * semantic + 4 * thumbnail + 0.25 * agreement
        logged = {"loss": loss, "semantic": semantic, "thumbnail": thumbnail, "agreement": agreement}
        self.log_dict(logged, prog_bar=True)
        return loss

    def configure_optimizers(self) -> dict:
        weights = [p for p in self.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(weights, lr=self.lr, betas=(0.9, 0.98), weight_decay=0.05)
        return {"optimizer": optimizer, "lr_scheduler": warm_cosine(optimizer, self.steps, warmup_steps=200)}
