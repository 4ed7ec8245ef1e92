"""The unet stage: UNet and conditioner on insertion samples, from noise to the image.

Beyond Paint-by-Example's training a reference comes with further views of the object as few-shot tokens, so
that these have a meaning before any tuning. All noise levels weigh alike, but where the region shows
something, see `training_timesteps`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import pytorch_lightning as pl
import torch
from einops import einsum, rearrange
from torch import Generator, Tensor, nn

from ldm.data.image import from_bytes, to_bytes
from ldm.models.base import Base
from ldm.models.conditioner import Conditioner, clip_normalised
from ldm.models.cross_attention import use_few_token_attention
from ldm.models.diffusion import STEPS, add_noise, alpha_bar
from ldm.pretrain.insertion_measure import PARTS, InsertionMeasure
from ldm.pretrain.insertion_samples import InsertionBatch
from ldm.training.samples import at_once
from ldm.training.trainer import cosine_with_warmup

ALL_VIEWS = 0.6  # share of the batches with all further views; the others have a random number of them
OUTSIDE = 0.25  # weight of the loss outside the mask
CHANGE = 4.0  # weight of the error of what is shown: it is smaller than that of v
OUTER = ("conv_in.weight", "conv_in.bias", "conv_out.weight", "conv_out.bias")


class Encoded(NamedTuple):
    """Latents x_0 and masked [b,c,h,w], mask [b,1,h,w] (1 = fill), references [b,1+n,...], object [b].

    References are uint8 [3,R,R] if the image encoder is trained, else its pooled outputs [c]. `object` is -1
    where there is no object.
    """

    x_0: Tensor
    masked: Tensor
    mask: Tensor
    references: Tensor
    object: Tensor


def encode(base: Base, batch: InsertionBatch, half: bool = True) -> Encoded:
    """One batch through VAE and a frozen CLIP, in bf16 if `half`."""
    image, shown, mask, _, references, number = (x.to(base.device) for x in batch)
    with torch.autocast(image.device.type, torch.bfloat16, enabled=half):
        pixels = torch.cat([image, shown]).split(2 * at_once(image.shape[-1]))
        x_0, masked = torch.cat([base.encode(part) for part in pixels]).float().chunk(2)
        references = stored(base.conditioner, references)
    masked = base.mark_grey(masked, shown, mask)
    return Encoded(x_0, masked, base.latent_mask(mask), references, number)


def stored(conditioner: Conditioner, references: Tensor) -> Tensor:
    """References [b,1+n,3,R,R] in [-1,1] => what is buffered: bytes, or a frozen encoder's outputs."""
    if any(weight.requires_grad for weight in conditioner.clip.parameters()):
        return to_bytes(references)
    images = clip_normalised(rearrange(references, "b n c H W -> (b n) c H W"))
    return rearrange(conditioner.pooled(images).float(), "(b n) c -> b n c", b=len(references))


@dataclass(frozen=True, eq=False)
class ReplayBuffer:
    """Batches of the last `capacity` samples, each encoded once (`half`: in bf16) and used `reuse` times."""

    base: Base
    source: Iterable[InsertionBatch]
    batch_size: int
    capacity: int
    reuse: int
    seed: int
    half: bool = True

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


def weighted_loss(
    eps: Tensor, predicted: Tensor, mask: Tensor, t: Tensor, shown: Tensor | None = None
) -> Tensor:
    """Squared error of [b,c,h,w] as that of v, for steps t [b]; outside the mask [b,1,h,w] times OUTSIDE.

    Where `shown`, bool [b,1,h,w], it is that of x_0, times CHANGE.
    """
    a = alpha_bar(eps.device)[t].to(eps)[:, None, None, None]
    level = 1 / a if shown is None else torch.where(shown, CHANGE * (1 - a) / a, 1 / a)
    where = OUTSIDE + (1 - OUTSIDE) * mask
    error = (predicted.float() - eps) ** 2 * where / where.mean((1, 2, 3), keepdim=True)
    return (level * error).mean()


class BaseTraining(pl.LightningModule):
    """Trains everything but the VAE; `measure` validates it on a batch of fixed samples for each of PARTS."""

    def __init__(
        self,
        base: Base,
        lr: float,
        steps: int,
        measure: InsertionMeasure | None = None,
        drop_context: float = 0.1,
    ) -> None:
        super().__init__()
        self.base, self.lr, self.steps, self.drop_context = base, lr, steps, drop_context
        self.measure = measure
        base.vae.requires_grad_(False)
        use_few_token_attention(base.unet, all_learn=True)

    def contexts(self, references: Tensor, objects: Tensor) -> Tensor:
        """References and `object`, see `Encoded`, => context [b,1+k,d] of 1 + k views; k is random, 0 .. n.

        It is unconditional without an object, and with probability `drop_context`.
        """
        n = references.shape[1] - 1
        k = n if torch.rand(()) < ALL_VIEWS else int(torch.randint(n + 1, ()))
        pooled, further = self.pooled(references[:, : 1 + k]).split([1, k], dim=1)
        context = self.base.conditioner(pooled[:, 0], further if k else None)
        chance = torch.rand(len(references), device=references.device)
        dropped = (chance < self.drop_context) | (objects < 0)
        return torch.where(dropped[:, None, None], self.base.conditioner.unconditional(context), context)

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
        t = torch.randint(STEPS, (len(batch.x_0),), device=batch.x_0.device)
        t = self.base.training_timesteps(t, batch.masked, batch.mask)
        eps = torch.randn_like(batch.x_0)
        context = self.contexts(batch.references, batch.object)
        predicted = self.base.eps(add_noise(batch.x_0, eps, t), t, batch.masked, batch.mask, context)
        shown = (
            self.base.differs_from_grey(batch.masked)
            if self.base.architecture.prediction == "change"
            else None
        )
        loss = weighted_loss(eps, predicted, batch.mask, t, shown)
        self.log("loss", loss, prog_bar=True)
        return loss

    def validation_step(self, batch: InsertionBatch, i: int) -> None:
        assert self.measure is not None, "validation needs a measure"
        found = self.measure(self.base, PARTS[i], batch, self.global_step)
        self.log_dict(found, batch_size=len(batch.image))

    def configure_optimizers(self) -> dict:
        weights = [p for p in self.base.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(weights, lr=self.lr, betas=(0.9, 0.99), weight_decay=0.01)
        return {
            "optimizer": optimizer,
            "lr_scheduler": cosine_with_warmup(optimizer, self.steps, warmup_steps=200),
        }


@torch.no_grad()
def latent_map(ours: Tensor, theirs: Tensor) -> Tensor:
    """The linear map from latents [n,c] to those of another autoencoder [n,d] of the same cells, [d,c]."""
    return torch.linalg.lstsq(ours.double(), theirs.double()).solution.T.float()


@torch.no_grad()
def start_from(base: Base, other: Base, images: Tensor) -> None:
    """Take over another base's conditioner, and its UNet: the inner layers as they are.

    First and last layer get a linear map between the latents, found on images [n,3,S,S] in [-1,1]. Raises
    ValueError if the inner layers or the latents differ in size.
    """
    a, b = base.architecture, other.architecture
    if a.latent_size != b.latent_size or a.unet_channels != b.unet_channels:
        raise ValueError(
            f"the {a.name} base cannot start from {b.name}: latents of {a.latent_size} and {b.latent_size} a "
            f"side, UNet channels {list(a.unet_channels)} and {list(b.unet_channels)}; these must be the same"
        )
    small = nn.functional.interpolate(images, size=b.image_size, mode="area")
    pairs = [(base.encode(x), other.encode(y)) for x, y in zip(images.split(8), small.split(8), strict=True)]
    ours, theirs = (torch.cat([rearrange(pair[i], "b c h w -> (b h w) c") for pair in pairs]) for i in (0, 1))
    to_theirs, to_ours = latent_map(ours, theirs), latent_map(theirs, ours)
    state, own = other.unet.state_dict(), base.unet.state_dict()
    base.unet.load_state_dict(state | {key: own[key] for key in OUTER})
    base.conditioner.load_state_dict(other.conditioner.state_dict())
    d, first = len(to_theirs), state["conv_in.weight"]
    x_t, masked = (einsum(first[:, i : i + d], to_theirs, "o d x y, d c -> o c x y") for i in (0, d))
    base.unet.conv_in.weight.copy_(torch.cat([x_t, masked, first[:, 2 * d :]], 1))
    base.unet.conv_in.bias.copy_(state["conv_in.bias"])
    for part, own in (("weight", base.unet.conv_out.weight), ("bias", base.unet.conv_out.bias)):
        theirs = state[f"conv_out.{part}"][:d]
        nn.init.zeros_(own)  # a change of what is shown begins with none
        own[: len(to_ours)].copy_(einsum(to_ours, theirs, "c d, d ... -> c ..."))
