"""A latent bank: composed samples are encoded by the VAE once and drawn several times while fresh."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import torch
from einops import rearrange
from torch import Generator, Tensor

from ldm.compositing.composite import placed
from ldm.data.image import to_bytes
from ldm.models.base import Base
from ldm.models.conditioner import Conditioner, clip_normalised
from ldm.models.diffusion import masked_image
from ldm.pretrain.composer import Composed
from ldm.pretrain.insertion_samples import InsertionBatch

BARE = 0.2  # share of the samples that show mid-grey where a base of composites sees its reference


class Encoded(NamedTuple):
    """Latents x_0 and masked [b,c,h,w], mask [b,1,h,w] (1 = fill), references [b,1+n,...], object [b].

    The references are uint8 [3,R,R] where the image encoder learns, its pooled outputs [c] where it does not.
    """

    x_0: Tensor
    masked: Tensor
    mask: Tensor
    references: Tensor
    object: Tensor


def encode(base: Base, batch: Composed | InsertionBatch, half: bool = True) -> Encoded:
    """One batch through VAE and a frozen CLIP, by default in bf16; image and masked image in one pass."""
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
    """References [b,1+n,3,R,R] in [-1,1] => what is kept of them: bytes, or a frozen encoder's outputs."""
    if any(weight.requires_grad for weight in conditioner.clip.parameters()):
        return to_bytes(references)
    images = clip_normalised(rearrange(references, "b n c H W -> (b n) c H W"))
    return rearrange(conditioner.pooled(images).float(), "(b n) c -> b n c", b=len(references))


class LatentBank:
    """Yields batches drawn from the last `capacity` encoded samples, each sample about `reuse` times.

    `half`: whether samples are encoded in bf16.
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
        for composed in self.source:
            chunks.append(encode(self.base, composed, self.half))
            varied = len(chunks) >= min(self.reuse + 1, size)  # a young bank would repeat its few samples
            for _ in range(self.reuse if varied else 1):
                yield self._draw(chunks, generator)

    def _draw(self, chunks: deque[Encoded], generator: Generator) -> Encoded:
        """Rows from random chunks; the newest one is as likely as any other."""
        picks = torch.randint(len(chunks), (self.batch_size,), generator=generator).tolist()
        rows = torch.randint(len(chunks[0].x_0), (self.batch_size,), generator=generator).tolist()
        drawn = [[x[row] for x in chunks[p]] for p, row in zip(picks, rows, strict=True)]
        return Encoded(*(torch.stack(column) for column in zip(*drawn, strict=True)))
