"""Cut-outs of an object and where they stand in a region: what a base is shown that draws over a composite.

AnyDoor (Chen et al. 2024) is trained so, too: a composite says what is where in the object, which a pooled
token cannot. A cut-out is [4,P,P]: colours times alpha in [-1,1], so that mid-grey, 0, is behind it, and alpha
in [0,1]. Placed in a picture it is a layer of the same kind, [4,H,W].
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

INSET = 0.08  # of a region's side that stays free on each side of the object: masks are drawn around objects
VISIBLE = 0.02  # what differs from mid-grey, or from transparent, by so much is part of the object
COARSE = 16  # pixels a side at which cut-outs are compared


def composite_layers(cut_outs: Tensor, regions: Tensor | None, hole: Tensor) -> Tensor:
    """Cut-outs [k,4,P,P] in a hole [1,1,H,W] (1 = fill) => a layer each, [k,4,H,W], inside the hole only.

    `regions` [k,H',W'] in [0,1] cover the same picture: each object stands in its own part of the hole; None:
    the only object has all of it.
    """
    own = hole
    if regions is not None:
        size = (hole.shape[-2], hole.shape[-1])
        scaled = F.interpolate(regions[:, None].to(hole), size=size, mode="bilinear", antialias=True)
        own = (scaled > 0.5) * hole
    return placed(cut_outs.to(hole), boxes_for(own), own) * (own > 0)


def boxes_for(masks: Tensor) -> Tensor:
    """Masks [b,1,H,W] (1 = fill) => where their objects stand [b,4]: the masks' boxes, less INSET a side.

    A box is x0 y0 x1 y1 in pixels; of an empty mask it is empty.
    """
    boxes = []
    for mask in masks[:, 0] > 0:
        x0, y0, x1, y1 = box_in(mask)
        dx, dy = INSET * (x1 - x0), INSET * (y1 - y0)
        boxes.append([x0 + dx, y0 + dy, x1 - dx, y1 - dy])
    return torch.tensor(boxes, device=masks.device)


def placed(pictures: Tensor, boxes: Tensor, like: Tensor) -> Tensor:
    """Pictures [b,c,P,P] of objects, each in its box [b,4] of a picture as large as `like` => [b,c,H,W].

    The object is scaled into the box, its aspect kept, in the middle of the box's foot; around it is 0. In
    training the pictures have no alpha (c = 3).
    """
    height, width = like.shape[-2:]
    shown = like.new_zeros(*pictures.shape[:2], height, width)
    for canvas, picture, box in zip(shown, pictures, boxes.tolist(), strict=True):
        seen = visible(picture)
        free_x, free_y = box[2] - box[0], box[3] - box[1]
        factor = min(free_x / seen.shape[2], free_y / seen.shape[1])
        if factor <= 0:
            continue
        w, h = (min(max(1, round(factor * seen.shape[i])), most) for i, most in ((2, width), (1, height)))
        left = min(max(0, round((box[0] + box[2] - w) / 2)), width - w)
        top = min(max(0, round(box[3]) - h), height - h)
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


def composite(layer: Tensor, pictures: Tensor) -> Tensor:
    """A layer [b,4,H,W] over pictures [b,3,H,W] in [-1,1] => [b,3,H,W]."""
    return layer[:, :3] + (1 - layer[:, 3:]) * pictures


def visible(picture: Tensor) -> Tensor:
    """The part [c,h,w] of a picture [c,P,P] that is not mid-grey; all of one that is nothing else."""
    x0, y0, x1, y1 = box_in((picture.abs() > VISIBLE).any(0))
    return picture[:, y0:y1, x0:x1] if x1 > x0 else picture


def box_in(mask: Tensor) -> tuple[int, int, int, int]:
    """The box x0 y0 x1 y1 of what is set in a mask [H,W]; 0 0 0 0 if nothing is."""
    rows, columns = (mask.any(side).nonzero().flatten() for side in (1, 0))
    if not len(rows):
        return 0, 0, 0, 0
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def nearest(picture: Tensor, others: Tensor) -> int:
    """The number, from 0, of the one of [N,c,P,P] whose shape and colours are most like those of [c,P,P].

    Each object fills a square that is compared coarsely: what is where in it, whatever its size. The features
    of a CLIP as small as the embedded base's do not tell an object's views apart.
    """
    channels = min(len(picture), others.shape[1])
    own, theirs = _coarse(picture[:channels]), torch.stack([_coarse(x[:channels]) for x in others])
    return int((theirs - own).square().mean((1, 2, 3)).argmin())


def _coarse(picture: Tensor) -> Tensor:
    seen = visible(picture)[None]
    return F.interpolate(seen, size=(COARSE, COARSE), mode="bilinear", antialias=True)[0]
