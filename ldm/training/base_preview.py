"""A contact sheet of fixed samples while a base is trained."""

from __future__ import annotations

from pathlib import Path

import pytorch_lightning as pl
import torch
from einops import rearrange
from PIL import Image
from torch import Tensor

from ldm.compositing.composite import placed
from ldm.data.compose import Composed
from ldm.data.image import resize, to_pixels
from ldm.models.base import Base
from ldm.models.conditioner import clip_normalised
from ldm.models.contexts import Contexts
from ldm.models.diffusion import masked_image
from ldm.models.sampler import Condition, sample


class BasePreview(pl.Callback):
    """Every `every` steps a sheet of rows: masked image, reference, result with one and all tokens, truth."""

    def __init__(
        self, fixed: Composed, folder: Path, every: int, steps: int = 12, scale: float = 3.0
    ) -> None:
        self.fixed, self.folder, self.every, self.steps, self.scale = fixed, folder, every, steps, scale

    def on_train_batch_end(self, trainer: pl.Trainer, module: pl.LightningModule, *_: object) -> None:
        if self.every and trainer.global_step % self.every == 0:
            module.eval()
            self.write(module.base, self.folder / f"preview_{trainer.global_step:06}.png")
            module.train()

    @torch.no_grad()
    def write(self, base: Base, file: Path) -> None:
        """Sample with fixed noise and write the sheet."""
        image, mask = self.fixed.image.to(base.device), self.fixed.mask.to(base.device)
        references = self.fixed.references.to(base.device)
        masked = masked_image(image, mask, placed(references[:, 0], self.fixed.place, mask))
        columns = [masked, resize(references[:, 0], image.shape[-1])]
        for context in self._contexts(base, references):
            filled = self._fill(base, masked, mask, context)
            columns.append(mask * filled + (1 - mask) * image)
        sheet = rearrange(torch.stack([*columns, image]), "n b c H W -> c (b H) (n W)")
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(to_pixels(sheet)).save(file)

    def _contexts(self, base: Base, references: Tensor) -> list[Tensor]:
        """References [b,1+n,3,R,R] => the context of the first one, and that of all."""
        images = clip_normalised(rearrange(references, "b v c H W -> (b v) c H W"))
        pooled = rearrange(base.conditioner.pooled(images), "(b v) c -> b v c", b=len(references))
        return [base.conditioner(pooled[:, 0], further) for further in (None, pooled[:, 1:])]

    def _fill(self, base: Base, masked: Tensor, mask: Tensor, context: Tensor) -> Tensor:
        """Masked image [b,3,H,W] => the same size, made by the model from fixed noise."""
        latents = base.encode(masked)
        contexts = Contexts(context, base.conditioner.unconditional(context))
        condition = Condition(latents, base.latent_mask(mask), contexts)
        noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(0)).to(latents)
        return base.decode(
            sample(base, condition, noise, sampler="dpm++", steps=self.steps, guidance_scale=self.scale)
        )
