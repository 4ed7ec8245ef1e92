"""What the UNet is shown in the region to fill: the reference, laid where the object is to stand.

A base may be trained to draw over such a collage, as AnyDoor (Chen et al. 2024) is, instead of over mid-grey
like Paint-by-Example: it says what is where in the object, which a pooled token cannot. What is mid-grey in a
reference is not part of the object: a cut-out leaves its ground to the scene.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

INSET = 0.08  # of a region's side that stays free on each side of the object: masks are drawn around objects
VISIBLE = 0.02  # what differs from mid-grey by so much is part of the object


@dataclass(frozen=True, eq=False)
class Collage:
    """References [k,3,R,R] in [-1,1], each to be laid into its own of `regions`.

    `regions` [k,H,W] in [0,1] cover the picture; None: the one reference belongs into the whole hole.
    """

    references: Tensor
    regions: Tensor | None = None

    def over(self, hole: Tensor) -> Tensor:
        """Hole [1,1,H,W] (1 = fill) => picture [1,3,H,W]; mid-grey where there is no reference."""
        if self.regions is None:
            return laid(self.references.to(hole), places_in(hole), hole)
        size = (hole.shape[-2], hole.shape[-1])
        own = (F.interpolate(self.regions[:, None].to(hole), size=size, mode="area") > 0.5) * hole
        each = laid(self.references.to(hole), places_in(own), own)
        shown = torch.zeros_like(each[:1])
        for picture, mask in zip(each, own, strict=True):
            shown = torch.where(mask > 0, picture, shown)
        return shown

    def covers(self, hole: np.ndarray) -> np.ndarray:
        """Where in a hole, bool [H,W], the object is laid: bool [H,W]."""
        mask = torch.from_numpy(hole)[None, None].float()
        return (visible_in(self.over(mask)) & (mask > 0))[0, 0].numpy()


def over_holes(collages: Sequence[Collage | None], holes: Tensor) -> Tensor | None:
    """A collage for each of the holes [b,1,H,W] => [b,3,H,W]; None if there is none at all."""
    if not any(collages):
        return None
    nothing = torch.zeros_like(holes[:1]).expand(-1, 3, -1, -1)
    return torch.cat([nothing if c is None else c.over(holes[i : i + 1]) for i, c in enumerate(collages)])


def places_in(masks: Tensor) -> Tensor:
    """Masks [b,1,H,W] (1 = fill) => where their objects are to stand [b,4]: their boxes, less INSET a side.

    A box is x0 y0 x1 y1 in pixels; of an empty mask it is empty.
    """
    places = []
    for mask in masks[:, 0] > 0:
        x0, y0, x1, y1 = _box(mask)
        dx, dy = INSET * (x1 - x0), INSET * (y1 - y0)
        places.append([x0 + dx, y0 + dy, x1 - dx, y1 - dy])
    return torch.tensor(places, device=masks.device)


def laid(references: Tensor, places: Tensor, like: Tensor) -> Tensor:
    """References [b,3,R,R], each in its place [b,4] of a picture as large as `like` => [b,3,H,W].

    What is not mid-grey of a reference is scaled into the place, its aspect kept, in the middle of its foot;
    the picture is 0 around it.
    """
    height, width = like.shape[-2:]
    shown = like.new_zeros(len(references), 3, height, width)
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


def visible(reference: Tensor) -> Tensor:
    """The part [3,h,w] of a reference [3,R,R] that is not mid-grey; all of one that is nothing else."""
    x0, y0, x1, y1 = _box(visible_in(reference[None])[0, 0])
    return reference[:, y0:y1, x0:x1] if x1 > x0 else reference


def visible_in(pictures: Tensor) -> Tensor:
    """Where pictures [b,3,H,W] are not mid-grey: bool [b,1,H,W]."""
    return (pictures.abs() > VISIBLE).any(1, keepdim=True)


def _box(mask: Tensor) -> tuple[int, int, int, int]:
    """The box x0 y0 x1 y1 of what is set in a mask [H,W]; 0 0 0 0 if nothing is."""
    rows, columns = (mask.any(side).nonzero().flatten() for side in (1, 0))
    if not len(rows):
        return 0, 0, 0, 0
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1
