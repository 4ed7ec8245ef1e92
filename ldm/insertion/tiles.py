"""A function of small squares over a larger picture: overlapping tiles, joined by smooth weights.

Joining the predicted noise of every step this way is MultiDiffusion (Bar-Tal et al. 2023).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product

import numpy as np
import torch
from torch import Tensor

from ldm.insertion.roi import box_of

Corner = tuple[int, int]  # (y, x)
LEAST = 1e-3  # weight of a tile's border: nobody else may be there


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


def plan_tiles(needed: np.ndarray, side: int, overlap: float = 0.5) -> Tiles:
    """Tiles that cover what is `needed`, bool [h,w], neighbours sharing `overlap` of a side or more.

    They are spread evenly over its box, shifted to stay inside; tiles with nothing needed are left out.
    """
    height, width = needed.shape
    assert side <= min(height, width), f"tiles of {side} on a grid of {width} x {height}"
    if not needed.any():
        return Tiles((height, width), side, ())
    box = box_of(needed)
    ys = _starts(box.y0, box.y1, height, side, overlap)
    xs = _starts(box.x0, box.x1, width, side, overlap)
    corners = [(y, x) for y, x in product(ys, xs) if needed[y : y + side, x : x + side].any()]
    return Tiles((height, width), side, tuple(corners))


def window(side: int) -> Tensor:
    """Weights [side,side] in (0,1]: a raised cosine, highest in the middle."""
    row = torch.sin(torch.pi * (torch.arange(side) + 0.5) / side) ** 2
    return torch.outer(row, row).clamp(min=LEAST)


def _starts(low: int, high: int, length: int, side: int, overlap: float) -> list[int]:
    """Where tiles begin that together cover low..high and stay inside 0..length."""
    if high - low <= side:
        return [min(max((low + high - side) // 2, 0), length - side)]
    count = int(np.ceil((high - low - side) / (side * (1 - overlap)))) + 1
    return [round(low + i * (high - side - low) / (count - 1)) for i in range(count)]
