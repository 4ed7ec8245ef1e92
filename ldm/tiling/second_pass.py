"""A tiled second pass over regions larger than the model: overlapping tiles, averaged with smooth weights.

Averaging the predicted noise of every step this way is MultiDiffusion (Bar-Tal et al. 2023).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ldm.data.image import resize
from ldm.insertion.crop_paste import to_model_mask
from ldm.insertion.inpaint import Sampling, shown_in
from ldm.insertion.region import InsertableObject, Region, RegionFill
from ldm.insertion.roi import box_of
from ldm.models.cross_attention import Context, Contexts
from ldm.models.diffusion import masked_image
from ldm.models.inpainting_model import InpaintingModel
from ldm.models.sampler import Condition, sample

Corner = tuple[int, int]  # (y, x)
OVERLAP = 0.5  # of a side that neighbouring tiles share at least
LEAST = 1e-3  # weight of a tile's border, which may be covered by this tile alone


@dataclass(frozen=True)
class Tiles:
    """Squares of `side` at `corners` (y, x), in cells of a grid of `size` (h, w) that they fit into."""

    size: tuple[int, int]
    side: int
    corners: tuple[Corner, ...]

    def scaled(self, factor: int) -> Tiles:
        """The same tiles on a grid that is `factor` times finer."""
        corners = tuple((y * factor, x * factor) for y, x in self.corners)
        return Tiles((self.size[0] * factor, self.size[1] * factor), self.side * factor, corners)

    def cut(self, x: Tensor, corner: Corner) -> Tensor:
        """One tile of [...,h,w], a view."""
        y, left = corner
        return x[..., y : y + self.side, left : left + self.side]

    def share(self, corner: Corner) -> tuple[float, float, float, float]:
        """Where a tile lies: y0, x0, y1, x1 in sides of the grid."""
        (y, x), (h, w) = corner, self.size
        return y / h, x / w, (y + self.side) / h, (x + self.side) / w

    def over(self, function: Callable[[Corner], Tensor], finer: int = 1) -> Tensor:
        """`function` of every corner => tiles [b,c,s,s], joined to [b,c,h,w]; 0 where there is no tile.

        Its tiles may be `finer` times as fine as the grid.
        """
        grid = self.scaled(finer)
        weight = window(grid.side)
        total, weights = torch.zeros(()), torch.zeros(1, 1, *grid.size)
        for corner, place in zip(self.corners, grid.corners, strict=True):
            tile = function(corner)
            if total.ndim == 0:
                total = tile.new_zeros(*tile.shape[:2], *grid.size)
                weight, weights = weight.to(tile), weights.to(tile)
            grid.cut(total, place).add_(tile * weight)
            grid.cut(weights, place).add_(weight)
        return total / weights.clamp(min=LEAST**2)


def plan_tiles(needed: np.ndarray, side: int) -> Tiles:
    """Tiles that cover what is `needed`, bool [h,w], neighbours sharing OVERLAP of a side or more.

    They are spread evenly over its box, shifted to stay inside; tiles with nothing needed are left out.
    """
    height, width = needed.shape
    assert side <= min(height, width), f"tiles of {side} on a grid of {width} x {height}"
    if not needed.any():
        return Tiles((height, width), side, ())
    box = box_of(needed)
    ys = _starts(box.y0, box.y1, height, side)
    xs = _starts(box.x0, box.x1, width, side)
    corners = [(y, x) for y, x in product(ys, xs) if needed[y : y + side, x : x + side].any()]
    return Tiles((height, width), side, tuple(corners))


def window(side: int) -> Tensor:
    """Weights [side,side] in (0,1]: a raised cosine, highest in the middle."""
    row = torch.sin(torch.pi * (torch.arange(side) + 0.5) / side) ** 2
    return torch.outer(row, row).clamp(min=LEAST)


def _starts(low: int, high: int, length: int, side: int) -> list[int]:
    """Where tiles begin that together cover low..high and stay inside 0..length."""
    if high - low <= side:
        return [min(max((low + high - side) // 2, 0), length - side)]
    count = int(np.ceil((high - low - side) / (side * (1 - OVERLAP)))) + 1
    return [round(low + i * (high - side - low) / (count - 1)) for i in range(count)]


ABOVE = 1.5  # times the model's resolution: smaller regions get no second pass
AT_MOST = 4  # times the model's resolution: the second pass is at most this large
SAMPLER = "dpm++"  # can start at any noise level and needs few steps


@dataclass(frozen=True, eq=False)
class Tiled:
    """An inpainting model on a larger image, in tiles of its own resolution; 0 where no tile is."""

    model: InpaintingModel
    tiles: Tiles  # of the latents' grid

    @property
    def f(self) -> int:
        return self.model.architecture.vae_factor

    def encode(self, image: Tensor) -> Tensor:
        """Image [b,3,H,W] => latents [b,c,H/f,W/f]."""
        pixels = self.tiles.scaled(self.f)
        return self.tiles.over(
            lambda at: self.model.encode(pixels.cut(image, (at[0] * self.f, at[1] * self.f)))
        )

    def eps(self, x_t: Tensor, t: Tensor, masked: Tensor, mask: Tensor, context: Context) -> Tensor:
        """The predicted noise [b,c,h,w]; arguments as `InpaintingModel.eps` takes them."""
        cut = self.tiles.cut

        def tile(at: Corner) -> Tensor:
            seen = context if isinstance(context, Tensor) else context.within(self.tiles.share(at))
            return self.model.eps(cut(x_t, at), t, cut(masked, at), cut(mask, at), seen)

        return self.tiles.over(tile)

    def decode(self, latents: Tensor) -> Tensor:
        """Latents [b,c,h,w] => image [b,3,f*h,f*w] in [-1,1]."""
        return self.tiles.over(lambda at: self.model.decode(self.tiles.cut(latents, at)), finer=self.f)

    def covered(self) -> Tensor:
        """Where tiles are, bool [1,1,f*h,f*w]."""
        side = self.tiles.side * self.f
        return self.tiles.over(lambda at: torch.ones(1, 1, side, side), finer=self.f) > 0


@dataclass(frozen=True)
class TiledSecondPass:
    """`second_pass` of this strength for regions that need it, as `InsertOptions.second_pass`."""

    strength: float

    def __call__(
        self,
        model: InpaintingModel,
        one: InsertableObject,
        region: Region,
        fill: RegionFill,
        images: Sequence[Tensor],
        sampling: Sampling,
    ) -> Sequence[Tensor]:
        if max(region.roi.size) <= ABOVE * model.architecture.image_size:  # it loses no detail
            return images
        return second_pass(model, one.contexts, region, fill, images, sampling, self.strength)


@torch.no_grad()
def second_pass(
    model: InpaintingModel,
    contexts: Contexts,
    region: Region,
    fill: RegionFill,
    images: Sequence[Tensor],
    sampling: Sampling,
    strength: float,
) -> list[Tensor]:
    """A region and its first results [3,h,w] in [-1,1] => sharper ones.

    `strength` in (0,1] is the share of the noise schedule, and of the steps, that is gone through again.
    Outside the tiles, which cover the mask, the first result stays.
    """
    a, n = model.architecture, len(images)
    side = min(max(region.mask.shape), AT_MOST * a.image_size)
    known, first, mask = (
        _padded(x, a.vae_factor).to(model.device)
        for x in (
            resize(region.known[None].clamp(-1, 1), side),
            resize(torch.stack(list(images)), side),
            to_model_mask(region.mask, side),
        )
    )
    tiled = _over_the_mask(model, mask)
    x_0 = tiled.encode(torch.where(mask > 0, first, known))
    x_T = torch.stack([torch.randn(x_0.shape[1:], generator=g) for g in region.noise]).to(x_0)
    shown = masked_image(known, mask, shown_in([fill], mask)).clamp(-1, 1)  # of sRGB colours only
    masked = model.mark_grey(tiled.encode(shown), shown, mask).expand(n, -1, -1, -1)
    small = model.latent_mask(mask).to(masked).expand(n, -1, -1, -1)
    condition = Condition(masked, small, contexts.repeat(n))
    x_0 = sample(tiled, condition, x_T, sampler=SAMPLER, start=(x_0, strength), **sampling.schedule())
    sharp = torch.where(tiled.covered().to(first.device), tiled.decode(x_0), first)
    return list(resize(sharp[..., :side, :side].cpu(), region.mask.shape))


def _over_the_mask(model: InpaintingModel, mask: Tensor) -> Tiled:
    """The model in tiles over a mask [1,1,H,W], also over a line that is lost in its latent mask."""
    a = model.architecture
    touched = F.max_pool2d(mask, a.vae_factor)[0, 0] > 0
    return Tiled(model, plan_tiles(touched.cpu().numpy(), a.latent_size))


def _padded(x: Tensor, f: int) -> Tensor:
    """[b,c,h,w] reflected at its right and bottom until the VAE's factor divides it."""
    return F.pad(x, (0, -x.shape[-1] % f, 0, -x.shape[-2] % f), mode="reflect")
