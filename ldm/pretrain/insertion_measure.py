"""The validation measure of a base that is trained on insertion samples: fixed unseen samples, in few steps.

- relit scenes, shown with the object in the wrong light (`scene`) and changed in one step: PSNR in dB of the
  object and of the ring around it inside the mask, and of the plain composite (`plain`);
- relit scenes with a grey hole, the object only as the reference (`nothing`): identity with the truth;
- holes in photos (`hole`): PSNR inside the hole.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as F
from einops import rearrange
from PIL import Image
from torch import Generator, Tensor

from ldm.data.image import to_pixels
from ldm.features.imagenet import ImageNetFeatures
from ldm.models.base import Base
from ldm.models.conditioner import clip_normalised
from ldm.models.cross_attention import Contexts
from ldm.models.sampler import Condition, sample
from ldm.pretrain.image_ops import batch_psnr
from ldm.pretrain.insertion_samples import InsertionBatch, InsertionComposer, box_of, stack
from ldm.pretrain.picture_pack import Relit

PARTS = ("scene", "nothing", "hole")
STEPS = 8
AT_ONCE = 4  # samples that are drawn together
ROWS = 10  # of a sheet


def fixed_samples(composer: InsertionComposer, unseen: list[Relit], holes: int) -> list[InsertionBatch]:
    """A batch for each of PARTS: every unseen relit scene once, or so many holes in the composer's photos."""
    g = Generator().manual_seed(11)
    parts = [stack([composer.sample("relit", g, part, item) for item in unseen]) for part in PARTS[:2]]
    return [*parts, stack([composer.sample("hole", g) for _ in range(holes)])]


@torch.no_grad()
def drawn(base: Base, batch: InsertionBatch, steps: int) -> Tensor:
    """What the base makes of a batch, [b,3,S,S] in [-1,1] on the CPU, pasted into the region to fill only."""
    shown, fill = batch.shown.to(base.device), batch.mask.to(base.device)
    masked = base.mark_grey(base.encode(shown).float(), shown, fill)
    references = batch.references.to(base.device)
    images = clip_normalised(rearrange(references, "b n c H W -> (b n) c H W"))
    pooled = rearrange(base.conditioner.pooled(images), "(b n) d -> b n d", b=len(masked))
    context = base.conditioner(pooled[:, 0], pooled[:, 1:])
    null = base.conditioner.unconditional(context)
    context = torch.where((batch.object < 0).to(base.device)[:, None, None], null, context)
    noise = torch.randn(masked.shape, generator=Generator().manual_seed(0)).to(masked)
    condition = Condition(masked, base.latent_mask(fill), Contexts(context, null))
    x_0 = sample(base, condition, noise, sampler="dpm++", steps=steps, guidance_scale=1)
    mask, image = batch.mask.cpu(), batch.image.cpu()
    return mask * base.decode(x_0).cpu() + (1 - mask) * image


@dataclass
class InsertionMeasure:
    """Measures a base on the batch of one part; with a `folder` it writes a sheet of the results there."""

    folder: Path | None = None
    features: ImageNetFeatures = field(default_factory=ImageNetFeatures)

    @torch.no_grad()
    def __call__(self, base: Base, part: str, batch: InsertionBatch, step: int = 0) -> dict[str, float]:
        chunks = [InsertionBatch(*x) for x in zip(*(x.split(AT_ONCE) for x in batch), strict=True)]
        results = torch.cat([drawn(base, chunk, 1 if part == "scene" else STEPS) for chunk in chunks])
        batch = InsertionBatch(*(x.cpu() for x in batch))
        if self.folder is not None:
            write_sheet(batch, results, self.folder / f"{step:06}_{part}.jpg")
        if part == "hole":
            return {"hole/psnr": float(batch_psnr(results, batch.image, batch.mask).mean())}
        found: dict[str, float] = {}
        places = {"object": batch.own * batch.mask, "ring": (batch.mask - batch.own).clamp_min(0)}
        for name, where in places.items():
            own = batch_psnr(results, batch.image, where)
            found[f"{part}/{name}"] = float(own.mean())
            if part == "scene":
                plain = batch_psnr(batch.shown, batch.image, where)
                found[f"plain/{name}"] = float(plain.mean())
                found[f"{part}/{name}_worse"] = float((own < plain).float().mean())
        if part == "nothing":
            found["nothing/identity"] = self.identity(results, batch)
        return found

    def identity(self, results: Tensor, batch: InsertionBatch) -> float:
        """Mean cosine of ImageNet features of result and truth, both cropped to the object's box."""
        cosines = []
        for result, truth, own in zip(results, batch.image, batch.own, strict=True):
            x0, y0, x1, y1 = box_of(own[0])
            crops = [
                F.interpolate(x[None, :, y0:y1, x0:x1], size=(224, 224), mode="bilinear", antialias=True)
                for x in (result, truth)
            ]
            cosines.append(F.cosine_similarity(*(self.features.pooled(crop) for crop in crops)))
        return float(torch.cat(cosines).mean())


def write_sheet(batch: InsertionBatch, results: Tensor, file: Path) -> None:
    """Rows of what was shown, the result, the truth."""
    columns = torch.stack([batch.shown[:ROWS], results[:ROWS], batch.image[:ROWS]])
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(to_pixels(rearrange(columns, "n b c H W -> c (b H) (n W)"))).save(file, quality=90)
