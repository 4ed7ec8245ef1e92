"""Place an object's cut-outs in a region and composite them: the input of a base trained on composites.

A composite shows the object's spatial detail, which a pooled token cannot (as in AnyDoor, Chen et al. 2024).
A cut-out is [4,P,P]: colours times alpha in [-1,1], so that it is over mid-grey, 0, and alpha in [0,1].
Placed in a picture it is a layer of the same kind, [4,H,W].
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

INSET = 0.08  # of the mask's side, left free on each side of the object: masks are drawn around objects
VISIBLE = 0.02  # a pixel that differs from mid-grey, or from transparent, by more belongs to the object
COARSE = 16  # pixels a side at which cut-outs are compared


def composite_layers(cut_outs: Tensor, regions: Tensor | None, hole: Tensor) -> Tensor:
    """Place cut-outs [k,4,P,P] in a hole [1,1,H,W] (1 = fill) => layers [k,4,H,W], 0 outside the hole.

    `regions` [k,H',W'] in [0,1] cover the same picture and give each object its part of the hole; None: one
    object, which gets all of it.
    """
    own = hole
    if regions is not None:
        size = (hole.shape[-2], hole.shape[-1])
        scaled = F.interpolate(regions[:, None].to(hole), size=size, mode="bilinear", antialias=True)
        own = (scaled > 0.5) * hole
    return placed(cut_outs.to(hole), boxes_for(own), own) * (own > 0)


def boxes_for(masks: Tensor) -> Tensor:
    """Masks [b,1,H,W] (1 = fill) => their objects' boxes [b,4]: x0 y0 x1 y1 in pixels, the mask's less INSET.

    An empty mask gives an empty box.
    """
    boxes = []
    for mask in masks[:, 0] > 0:
        x0, y0, x1, y1 = box_in(mask)
        dx, dy = INSET * (x1 - x0), INSET * (y1 - y0)
        boxes.append([x0 + dx, y0 + dy, x1 - dx, y1 - dy])
    return torch.tensor(boxes, device=masks.device)


def placed(pictures: Tensor, boxes: Tensor, like: Tensor) -> Tensor:
    """Objects' pictures [b,c,P,P] and boxes [b,4] => [b,c,H,W], sized as `like`: each scaled into its box.

    The aspect is kept; the object stands at the bottom centre of its box, with 0 around it. In training the
    pictures have no alpha (c = 3).
    """
    height, width = like.shape[-2:]
    out = like.new_zeros(*pictures.shape[:2], height, width)
    for canvas, picture, box in zip(out, pictures, boxes.tolist(), strict=True):
        cropped = visible(picture)
        free_x, free_y = box[2] - box[0], box[3] - box[1]
        factor = min(free_x / cropped.shape[2], free_y / cropped.shape[1])
        if factor <= 0:
            continue
        w, h = (min(max(1, round(factor * cropped.shape[i])), most) for i, most in ((2, width), (1, height)))
        left = min(max(0, round((box[0] + box[2] - w) / 2)), width - w)
        top = min(max(0, round(box[3]) - h), height - h)
        canvas[:, top : top + h, left : left + w] = F.interpolate(
            cropped[None].to(like), size=(h, w), mode="bilinear", antialias=True
        )[0]
    return out


def flattened(layers: Tensor) -> Tensor:
    """Composite layers [k,4,H,W], later ones over earlier ones => [1,4,H,W]."""
    out = layers[0]
    for layer in layers[1:]:
        out = layer + (1 - layer[3:]) * out
    return out[None]


def composite(layer: Tensor, pictures: Tensor) -> Tensor:
    """A layer [b,4,H,W] over pictures [b,3,H,W] in [-1,1] => [b,3,H,W]."""
    return layer[:, :3] + (1 - layer[:, 3:]) * pictures


def visible(picture: Tensor) -> Tensor:
    """Crop a picture [c,P,P] to what is not mid-grey, [c,h,w]; an all-grey picture is returned whole."""
    x0, y0, x1, y1 = box_in((picture.abs() > VISIBLE).any(0))
    return picture[:, y0:y1, x0:x1] if x1 > x0 else picture


def box_in(mask: Tensor) -> tuple[int, int, int, int]:
    """The bounding box x0 y0 x1 y1 of a mask [H,W]; 0 0 0 0 if it is empty."""
    rows, columns = (mask.any(side).nonzero().flatten() for side in (1, 0))
    if not len(rows):
        return 0, 0, 0, 0
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def nearest(picture: Tensor, others: Tensor) -> int:
    """The index, from 0, of the picture in `others` [N,c,P,P] most similar in shape and colours to [c,P,P].

    Each is cropped to its object and compared at COARSE pixels a side. The small CLIP of the embedded base
    does not distinguish an object's views.
    """
    channels = min(len(picture), others.shape[1])
    own, theirs = _coarse(picture[:channels]), torch.stack([_coarse(x[:channels]) for x in others])
    return int((theirs - own).square().mean((1, 2, 3)).argmin())


def _coarse(picture: Tensor) -> Tensor:
    cropped = visible(picture)[None]
    return F.interpolate(cropped, size=(COARSE, COARSE), mode="bilinear", antialias=True)[0]
