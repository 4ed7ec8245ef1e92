"""What the UNet is shown in the region to fill: the reference, laid where the object is to stand.

A base may be trained to draw over such a collage, as AnyDoor (Chen et al. 2024) is, instead of over mid-grey
like Paint-by-Example: it says what is where in the object, which a pooled token cannot. References are
cut-outs, [k,4,P,P]: colours times alpha in [-1,1], so that mid-grey, 0, is behind them, and alpha in [0,1];
laid into a picture they are a layer of the same kind, [b,4,H,W].
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ldm.data.visible import box_in, visible

INSET = 0.08  # of a region's side that stays free on each side of the object: masks are drawn around objects


@dataclass(frozen=True, eq=False)
class Collage:
    """References [k,4,P,P], each to be laid into its own of `regions`.

    `regions` [k,H,W] in [0,1] cover the picture; None: the one reference belongs into the whole hole.
    """

    references: Tensor
    regions: Tensor | None = None

    def each(self, hole: Tensor) -> Tensor:
        """Hole [1,1,H,W] (1 = fill) => a layer an object [k,4,H,W], inside its part of the hole only."""
        own = hole
        if self.regions is not None:
            regions, size = self.regions[:, None].to(hole), (hole.shape[-2], hole.shape[-1])
            own = (F.interpolate(regions, size=size, mode="bilinear", antialias=True) > 0.5) * hole
        return laid(self.references.to(hole), places_in(own), own) * (own > 0)

    def over(self, hole: Tensor) -> Tensor:
        """The same as one layer [1,4,H,W]."""
        return flattened(self.each(hole))


def over_holes(collages: Sequence[Collage | None], holes: Tensor) -> Tensor | None:
    """A collage for each of the holes [b,1,H,W] => layers [b,4,H,W]; None if there is none at all."""
    if not any(collages):
        return None
    nothing = torch.zeros_like(holes[:1]).expand(-1, 4, -1, -1)
    return torch.cat([nothing if c is None else c.over(holes[i : i + 1]) for i, c in enumerate(collages)])


def places_in(masks: Tensor) -> Tensor:
    """Masks [b,1,H,W] (1 = fill) => where their objects are to stand [b,4]: their boxes, less INSET a side.

    A box is x0 y0 x1 y1 in pixels; of an empty mask it is empty.
    """
    places = []
    for mask in masks[:, 0] > 0:
        x0, y0, x1, y1 = box_in(mask)
        dx, dy = INSET * (x1 - x0), INSET * (y1 - y0)
        places.append([x0 + dx, y0 + dy, x1 - dx, y1 - dy])
    return torch.tensor(places, device=masks.device)


def laid(references: Tensor, places: Tensor, like: Tensor) -> Tensor:
    """References [b,c,R,R], each in its place [b,4] of a picture as large as `like` => [b,c,H,W].

    What is visible of a reference is scaled into the place, its aspect kept, in the middle of its foot; the
    picture is 0 around it. In training references have no alpha (c = 3).
    """
    height, width = like.shape[-2:]
    shown = like.new_zeros(*references.shape[:2], height, width)
    for canvas, reference, place in zip(shown, references, places.tolist(), strict=True):
        seen = visible(reference)
        free_x, free_y = place[2] - place[0], place[3] - place[1]
        factor = min(free_x / seen.shape[2], free_y / seen.shape[1])
        if factor <= 0:
            continue
        w, h = (min(max(1, round(factor * seen.shape[i])), most) for i, most in ((2, width), (1, height)))
        left = min(max(0, round((place[0] + place[2] - w) / 2)), width - w)
        top = min(max(0, round(place[3]) - h), height - h)
        canvas[:, top : top + h, left : left + w] = F.interpolate(
            seen[None].to(like), size=(h, w), mode="bilinear", antialias=True
        )[0]
    return shown


def flattened(layers: Tensor) -> Tensor:
    """Layers [k,4,H,W], later ones over earlier ones => one, [1,4,H,W]."""
    shown = layers[0]
    for layer in layers[1:]:
        shown = layer + (1 - layer[3:]) * shown
    return shown[None]


def laid_over(layer: Tensor, pictures: Tensor) -> Tensor:
    """A layer [b,4,H,W] over pictures [b,3,H,W] in [-1,1] => [b,3,H,W]."""
    return layer[:, :3] + (1 - layer[:, 3:]) * pictures
