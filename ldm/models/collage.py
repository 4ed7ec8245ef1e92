"""What the UNet is shown in the region to fill: the reference, laid into the region's box.

A base may be trained to draw over such a collage, as AnyDoor (Chen et al. 2024) is, instead of over mid-grey
like Paint-by-Example: it says what is where in the object, which a pooled token cannot.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


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
            return laid(self.references.to(hole), hole)
        size = (hole.shape[-2], hole.shape[-1])
        own = (F.interpolate(self.regions[:, None].to(hole), size=size, mode="area") > 0.5) * hole
        shown = torch.zeros_like(hole).expand(-1, 3, -1, -1)
        for reference, mask in zip(self.references.to(hole), own, strict=True):
            shown = torch.where(mask > 0, laid(reference[None], mask[None]), shown)
        return shown


def over_holes(collages: Sequence[Collage | None], holes: Tensor) -> Tensor | None:
    """A collage for each of the holes [b,1,H,W] => [b,3,H,W]; None if there is none at all."""
    if not any(collages):
        return None
    nothing = torch.zeros_like(holes[:1]).expand(-1, 3, -1, -1)
    return torch.cat([nothing if c is None else c.over(holes[i : i + 1]) for i, c in enumerate(collages)])


def laid(references: Tensor, masks: Tensor) -> Tensor:
    """References [b,3,R,R], each stretched to the box of its mask [b,1,H,W] => [b,3,H,W]; 0 around it."""
    shown = masks.new_zeros(len(masks), 3, *masks.shape[-2:])
    for canvas, reference, mask in zip(shown, references, masks[:, 0] > 0, strict=True):
        rows, columns = (mask.any(side).nonzero().flatten() for side in (1, 0))
        if not len(rows):
            continue
        (top, left), (bottom, right) = (
            (int(rows[i]) + end, int(columns[i]) + end) for i, end in ((0, 0), (-1, 1))
        )
        size = (bottom - top, right - left)
        canvas[:, top:bottom, left:right] = F.interpolate(
            reference[None].to(masks), size=size, mode="bilinear", antialias=True
        )[0]
    return shown
