"""Detail for large regions: a second pass over the first result, at the background's own resolution.

A model of 512 px that fills a square of 2000 px leaves it soft. The second pass adds noise of moderate
strength to the enlarged result and takes it away again in overlapping tiles of the model's resolution, each
with the object's context. All tiles share one noise and are joined at every step, so no tile shows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from ldm.data.image import resize
from ldm.insertion.inpaint import Sampling
from ldm.insertion.paste import to_model_mask
from ldm.insertion.region_fill import ReadyObject, RegionFill
from ldm.insertion.square import Square
from ldm.insertion.tiles import Corner, Tiles, plan_tiles
from ldm.models.contexts import Context, Contexts
from ldm.models.diffusion import masked_image
from ldm.models.painter import Painter
from ldm.models.sampler import EVERYWHERE, Condition, Interval, sample

ABOVE = 1.5  # times the model's resolution: smaller squares are not refined
AT_MOST = 4  # times the model's resolution: larger squares are refined at this size
SAMPLER = "dpm++"  # begins anywhere in the schedule and needs few steps


@dataclass(frozen=True, eq=False)
class Tiled:
    """A painter that works in tiles of its own resolution, of a picture that may be larger.

    Where there is no tile, what it makes is 0.
    """

    painter: Painter
    tiles: Tiles  # of the latents' grid

    @property
    def f(self) -> int:
        return self.painter.architecture.vae_factor

    def encode(self, image: Tensor) -> Tensor:
        """Image [b,3,H,W] => latents [b,4,H/f,W/f]."""
        pixels = self.tiles.scaled(self.f)
        return self.tiles.over(
            lambda at: self.painter.encode(pixels.cut(image, (at[0] * self.f, at[1] * self.f)))
        )

    def eps(self, x_t: Tensor, t: Tensor, masked: Tensor, mask: Tensor, context: Context) -> Tensor:
        """The predicted noise [b,4,h,w]; arguments as `Painter.eps` takes them."""
        cut = self.tiles.cut

        def tile(at: Corner) -> Tensor:
            seen = context if isinstance(context, Tensor) else context.within(self.tiles.share(at))
            return self.painter.eps(cut(x_t, at), t, cut(masked, at), cut(mask, at), seen)

        return self.tiles.over(tile)

    def decode(self, latents: Tensor) -> Tensor:
        """Latents [b,4,h,w] => image [b,3,f*h,f*w] in [-1,1]."""
        return self.tiles.over(lambda at: self.painter.decode(self.tiles.cut(latents, at)), finer=self.f)

    def covered(self) -> Tensor:
        """Where tiles are, bool [1,1,f*h,f*w]."""
        side = self.tiles.side * self.f
        return self.tiles.over(lambda at: torch.ones(1, 1, side, side), finer=self.f) > 0


def needs_refining(side: int, model_side: int) -> bool:
    """Whether a square of `side` px loses detail at the model's resolution."""
    return side > ABOVE * model_side


@dataclass(frozen=True)
class SecondPassOf:
    """`refine` of this strength for regions that need it, as `InsertOptions.second_pass`."""

    strength: float

    def __call__(
        self,
        model: Painter,
        one: ReadyObject,
        region: Square,
        fill: RegionFill,
        images: Sequence[Tensor],
        sampling: Sampling,
    ) -> Sequence[Tensor]:
        if not needs_refining(max(region.roi.size), model.architecture.image_size):
            return images
        return refine(
            model, one.contexts, region.known, region.hole, images, region.noise,
            fill=fill, strength=self.strength, **sampling.schedule(),
        )  # fmt: skip


@torch.no_grad()
def refine(
    painter: Painter,
    contexts: Contexts,
    known: Tensor,
    mask: np.ndarray,
    generated: Sequence[Tensor],
    noise: Sequence[Generator],
    *,
    fill: RegionFill | None = None,
    strength: float = 0.4,
    steps: int = 20,
    guidance_scale: float = 5.0,
    guidance_interval: Interval = EVERYWHERE,
) -> list[Tensor]:
    """The square `known` [3,h,w] in [-1,1], its mask bool [h,w] and first results [3,h,w] => sharper ones.

    `strength` in (0,1] is the share of the noise schedule, and of `steps`, that is gone through again.
    Outside the tiles, which cover the mask, the first result stays.
    """
    a, n = painter.architecture, len(generated)
    side = min(max(mask.shape), AT_MOST * a.image_size)
    hole = _padded(to_model_mask(mask, side), a.vae_factor)
    image, first = (
        _padded(resize(x, side), a.vae_factor) for x in (known[None], torch.stack(list(generated)))
    )
    image, first, hole = (x.to(painter.device) for x in (image, first, hole))
    small = painter.latent_mask(hole)
    touched = F.max_pool2d(hole, a.vae_factor)[0, 0] > 0  # also by a line that `small` may step over
    tiled = Tiled(painter, plan_tiles(touched.cpu().numpy(), a.latent_size))
    x_0 = tiled.encode(torch.where(hole > 0, first, image))
    x_T = torch.stack([torch.randn(x_0.shape[1:], generator=g) for g in noise]).to(x_0)
    shown = None if fill is None else fill.shown(hole)
    masked = tiled.encode(masked_image(image, hole, shown)).expand(n, -1, -1, -1)
    condition = Condition(masked, small.to(masked).expand(n, -1, -1, -1), contexts.repeat(n))
    x_0 = sample(
        tiled, condition, x_T, sampler=SAMPLER, steps=steps, guidance_scale=guidance_scale,
        guidance_interval=guidance_interval, begin=(x_0, strength),
    )  # fmt: skip
    sharp = torch.where(tiled.covered().to(first.device), tiled.decode(x_0), first)
    return list(resize(sharp[..., :side, :side].cpu(), mask.shape))


def _padded(x: Tensor, f: int) -> Tensor:
    """[b,c,h,w] reflected at its right and bottom until the VAE's factor divides it."""
    return F.pad(x, (0, -x.shape[-1] % f, 0, -x.shape[-2] % f), mode="reflect")
