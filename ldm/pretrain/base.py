"""Third stage of a base: UNet, conditioner and image encoder together, as Paint-by-Example was trained.

What is added to it: a sample's reference comes with 0-5 further views of the object as few-shot tokens, so
that these have a meaning before any tuning. Every object of the pack learns an offset of its tokens, as a
user's object does, so that the UNet responds to tuned tokens. The loss has a larger weight in the masked
region, and min-SNR weights of the noise levels (Hang et al. 2023).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytorch_lightning as pl
import torch
from einops import rearrange
from PIL import Image
from torch import Generator, Tensor, nn

from ldm.compositing.composite import placed
from ldm.data.image import from_bytes, resize, to_bytes, to_pixels
from ldm.models.base import Base
from ldm.models.conditioner import Conditioner, clip_normalised
from ldm.models.context import Contexts
from ldm.models.cross_attention import use_few_token_attention
from ldm.models.diffusion import STEPS, add_noise, level_weight, masked_image
from ldm.models.sampler import Condition, sample
from ldm.pretrain.composer import Composed
from ldm.pretrain.insertion_samples import InsertionBatch
from ldm.training.trainer import warm_cosine

OWN = 0.3  # share of the samples whose tokens have the learnt offset of their object
ALL_VIEWS = 0.6  # share of the batches with all further views; the others have a random number of them
OUTSIDE = 0.25  # weight of the loss outside the mask
MIN_SNR = 5.0
BARE = 0.2  # share of the samples whose masked region is mid-grey and shows no reference


class Encoded(NamedTuple):
    """Latents x_0 and masked [b,c,h,w], mask [b,1,h,w] (1 = fill), references [b,1+n,...], object [b].

    References are uint8 [3,R,R] if the image encoder is trained, else its pooled outputs [c].
    """

    x_0: Tensor
    masked: Tensor
    mask: Tensor
    references: Tensor
    object: Tensor


def encode(base: Base, batch: Composed | InsertionBatch, half: bool = True) -> Encoded:
    """One batch through VAE and a frozen CLIP, in bf16 if `half`; image and masked image in one pass."""
    image = batch.image.to(base.device)
    mask = batch.mask.to(base.device)
    references = batch.references.to(base.device)
    if isinstance(batch, InsertionBatch):
        shown = batch.shown.to(base.device)
    else:
        bare = torch.rand(len(mask), 1, 1, 1, device=base.device) < BARE
        objects = placed(references[:, 0, :3], batch.place, mask)
        shown = masked_image(image, mask, torch.where(bare, 0.0, objects))
    with torch.autocast(image.device.type, torch.bfloat16, enabled=half):
        x_0, masked = base.encode(torch.cat([image, shown])).float().chunk(2)
        references = seen(base.conditioner, references)
    return Encoded(x_0, masked, base.latent_mask(mask), references, batch.object.to(base.device))


def seen(conditioner: Conditioner, references: Tensor) -> Tensor:
    """References [b,1+n,3,R,R] in [-1,1] => what is stored: bytes, or a frozen encoder's outputs."""
    if any(weight.requires_grad for weight in conditioner.clip.parameters()):
        return to_bytes(references)
    images = clip_normalised(rearrange(references, "b n c H W -> (b n) c H W"))
    return rearrange(conditioner.pooled(images).float(), "(b n) c -> b n c", b=len(references))


class ReplayBuffer:
    """Batches drawn from the last `capacity` samples: each is encoded once and used about `reuse` times.

    `half`: samples are encoded in bf16.
    """

    def __init__(
        self,
        base: Base,
        source: Iterable[Composed] | Iterable[InsertionBatch],
        batch_size: int,
        capacity: int,
        reuse: int,
        seed: int,
        half: bool = True,
    ) -> None:
        self.base, self.source, self.batch_size = base, source, batch_size
        self.capacity, self.reuse, self.seed, self.half = capacity, reuse, seed, half

    def __iter__(self) -> Iterator[Encoded]:
        size = max(1, self.capacity // self.batch_size)
        chunks: deque[Encoded] = deque(maxlen=size)
        generator = Generator().manual_seed(self.seed)
        for batch in self.source:
            chunks.append(encode(self.base, batch, self.half))
            varied = len(chunks) >= min(self.reuse + 1, size)  # a small buffer would repeat its few samples
            for _ in range(self.reuse if varied else 1):
                yield self._draw(chunks, generator)

    def _draw(self, chunks: deque[Encoded], generator: Generator) -> Encoded:
        """Rows of random chunks, all equally likely."""
        picks = torch.randint(len(chunks), (self.batch_size,), generator=generator).tolist()
        rows = torch.randint(len(chunks[0].x_0), (self.batch_size,), generator=generator).tolist()
        drawn = [[x[row] for x in chunks[p]] for p, row in zip(picks, rows, strict=True)]
        return Encoded(*(torch.stack(column) for column in zip(*drawn, strict=True)))


def weighted_loss(eps: Tensor, predicted: Tensor, mask: Tensor, t: Tensor) -> Tensor:
    """Squared error of [b,c,h,w] by noise level t [b]; outside mask [b,1,h,w] weighted by OUTSIDE."""
    level = level_weight(t, MIN_SNR).to(eps)[:, None, None, None]
    where = OUTSIDE + (1 - OUTSIDE) * mask
    error = (predicted.float() - eps) ** 2 * where / where.mean((1, 2, 3), keepdim=True)
    return (level * error).mean()


def draw_levels(count: int) -> Tensor:
    """Time steps [count] in 0 .. T-1; noisy ones are more likely, as they decide the layout."""
    return (STEPS * torch.rand(count).sqrt()).long().clamp(max=STEPS - 1)


class BaseTraining(pl.LightningModule):
    """Trains everything but the VAE.

    `objects` is the number of object ids (0: an object without an offset of its own, -1: no object), `views`
    the largest number of further views. The learnt offsets of the objects' tokens are `own`
    [objects,views,c], with the learning rate `lr_own`.
    """

    def __init__(
        self,
        base: Base,
        lr: float,
        steps: int,
        drop_context: float = 0.1,
        objects: int = 1,
        views: int = 5,
        lr_own: float = 3e-3,
    ) -> None:
        super().__init__()
        self.base, self.lr, self.steps, self.drop_context = base, lr, steps, drop_context
        self.own = nn.Parameter(torch.zeros(objects, views, base.architecture.clip_width))
        self.lr_own = lr_own
        base.vae.requires_grad_(False)
        use_few_token_attention(base.unet, all_learn=True)

    def contexts(self, references: Tensor, objects: Tensor) -> Tensor:
        """References and object ids, see `Encoded`, => context [b,1+k,d] of 1 + k views.

        k is random, 0 .. n. With probability `drop_context`, and without an object, a sample's context is the
        unconditional vector.
        """
        n, chance = references.shape[1] - 1, torch.rand(2, len(references), 1, 1, device=references.device)
        k = n if torch.rand(()) < ALL_VIEWS else int(torch.randint(n + 1, ()))
        pooled, further = self.pooled(references[:, : 1 + k]).split([1, k], dim=1)
        shifted = (chance[0] < OWN) & (objects > 0)[:, None, None]
        further = further + shifted * self.own[objects, :k]
        context = self.base.conditioner(pooled[:, 0], further if k else None)
        dropped = (chance[1] < self.drop_context) | (objects < 0)[:, None, None]
        return torch.where(dropped, self.base.conditioner.unconditional(context), context)

    def pooled(self, references: Tensor) -> Tensor:
        """References, see `Encoded`, => pooled [b,1+k,c]; only the first one has a gradient."""
        if references.dtype != torch.uint8:
            return references
        images = clip_normalised(from_bytes(references))
        pooled = self.base.conditioner.clip(pixel_values=images[:, 0]).pooler_output[:, None]
        if images.shape[1] == 1:
            return pooled
        further = self.base.conditioner.pooled(images[:, 1:].flatten(0, 1))
        return torch.cat([pooled, further.unflatten(0, (len(images), -1))], dim=1)

    def training_step(self, batch: Encoded, i: int) -> Tensor:
        t = draw_levels(len(batch.x_0)).to(batch.x_0.device)
        eps = torch.randn_like(batch.x_0)
        context = self.contexts(batch.references, batch.object)
        predicted = self.base.eps(add_noise(batch.x_0, eps, t), t, batch.masked, batch.mask, context)
        loss = weighted_loss(eps, predicted, batch.mask, t)
        self.log("loss", loss, prog_bar=True)
        return loss

    def configure_optimizers(self) -> dict:
        weights = {"params": [p for p in self.base.parameters() if p.requires_grad], "weight_decay": 0.01}
        own = {"params": [self.own], "lr": self.lr_own, "weight_decay": 0.0}
        optimizer = torch.optim.AdamW([weights, own], lr=self.lr, betas=(0.9, 0.99))
        return {"optimizer": optimizer, "lr_scheduler": warm_cosine(optimizer, self.steps, warmup_steps=200)}


class BasePreview(pl.Callback):
    """Every `every` steps, a sheet: masked image, reference, results with one and with all tokens, truth."""

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
        noise = torch.randn(latents.shape, generator=Generator().manual_seed(0)).to(latents)
        return base.decode(
            sample(base, condition, noise, sampler="dpm++", steps=self.steps, guidance_scale=self.scale)
        )
