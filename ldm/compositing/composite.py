"""Place an object's cut-outs in a region and composite them: the input of a base trained on composites.

A composite shows the object's spatial detail, which a pooled token cannot (as in AnyDoor, Chen et al. 2024).
A cut-out is [4,P,P]: colours times alpha in [-1,1], so that it is over mid-grey, 0, and alpha in [0,1].
Placed in a picture it is a layer of the same kind, [4,H,W]. Detail finer than the model draws is transferred
from the composite to its result.
"""

from __future__ import annotations

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ldm.insertion.blend import UNIT
from ldm.insertion.roi import box_of

INSET = 0.08  # of the mask's side, left free on each side of the object: masks are drawn around objects
VISIBLE = 0.02  # a pixel that differs from mid-grey, or from transparent, by more belongs to the object
COARSE = 16  # pixels a side at which cut-outs are compared


def composite_layers(cut_outs: Tensor, regions: Tensor | None, mask: Tensor) -> Tensor:
    """Place cut-outs [k,4,P,P] in a mask [1,1,H,W] (1 = fill) => layers [k,4,H,W], 0 outside the mask.

    `regions` [k,H',W'] in [0,1] cover the same picture and give each object its part of the mask; None: one
    object, which gets all of it.
    """
    own = mask
    if regions is not None:
        size = (mask.shape[-2], mask.shape[-1])
        scaled = F.interpolate(regions[:, None].to(mask), size=size, mode="bilinear", antialias=True)
        own = (scaled > 0.5) * mask
    return place_in_boxes(cut_outs.to(mask), boxes_for(own), own) * (own > 0)


def boxes_for(masks: Tensor) -> Tensor:
    """Masks [b,1,H,W] (1 = fill) => their objects' boxes [b,4]: x0 y0 x1 y1 in pixels, the mask's less INSET.

    An empty mask gives an empty box.
    """
    boxes = []
    for mask in masks[:, 0] > 0:
        x0, y0, x1, y1 = box_of(mask.cpu().numpy()) if mask.any() else (0, 0, 0, 0)
        dx, dy = INSET * (x1 - x0), INSET * (y1 - y0)
        boxes.append([x0 + dx, y0 + dy, x1 - dx, y1 - dy])
    return torch.tensor(boxes, device=masks.device)


def place_in_boxes(pictures: Tensor, boxes: Tensor, like: Tensor) -> Tensor:
    """Objects' pictures [b,c,P,P] and boxes [b,4] => [b,c,H,W], sized as `like`: each scaled into its box.

    The aspect is kept; the object stands at the bottom centre of its box, with 0 around it.
    """
    height, width = like.shape[-2:]
    out = like.new_zeros(*pictures.shape[:2], height, width)
    for canvas, picture, box in zip(out, pictures, boxes.tolist(), strict=True):
        cropped = cropped_to_object(picture)
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


def composite_over(layer: Tensor, pictures: Tensor) -> Tensor:
    """A layer [b,4,H,W] over pictures [b,3,H,W] in [-1,1] => [b,3,H,W]."""
    return layer[:, :3] + (1 - layer[:, 3:]) * pictures


def cropped_to_object(picture: Tensor) -> Tensor:
    """Crop a picture [c,P,P] to what is not mid-grey, [c,h,w]; an all-grey picture is returned whole."""
    seen = (picture.abs() > VISIBLE).any(0)
    if not seen.any():
        return picture
    x0, y0, x1, y1 = box_of(seen.cpu().numpy())
    return picture[:, y0:y1, x0:x1]


def nearest(picture: Tensor, others: Tensor) -> int:
    """The index, from 0, of the picture in `others` [N,c,P,P] most similar in shape and colours to [c,P,P].

    Each is cropped to its object and compared at COARSE pixels a side. The small CLIP of the embedded base
    does not distinguish an object's views.
    """
    channels = min(len(picture), others.shape[1])
    own, theirs = _coarse(picture[:channels]), torch.stack([_coarse(x[:channels]) for x in others])
    return int((theirs - own).square().mean((1, 2, 3)).argmin())


def _coarse(picture: Tensor) -> Tensor:
    cropped = cropped_to_object(picture)[None]
    return F.interpolate(cropped, size=(COARSE, COARSE), mode="bilinear", antialias=True)[0]


EDGE = 0.02  # alpha below EDGE is scene, above 1 - EDGE object
FAINT = 1e-4  # added to weights: no change where no pixel of the area is near


def transfer_detail(start: Tensor, alpha: Tensor, change: Tensor, width: float) -> Tensor:
    """Apply the model's large-scale change to the full-resolution composite `start` [3,h,w].

    `alpha` [h,w] is the object's. `change` [3,S,S]: the model's result minus the autoencoder's reconstruction
    of the composite, that is light and colour. Only scales above `width`, in pixels of a region of UNIT, are
    changed; finer detail stays the composite's. Object and scene are smoothed separately, without their
    common edge, which the model blurs; of the scene only shadows are taken, as a neutral darkening.
    """
    sigma = width * change.shape[-1] / UNIT
    pixels = change.permute(1, 2, 0).numpy()
    own = cv2.resize(alpha.numpy(), pixels.shape[1::-1], interpolation=cv2.INTER_AREA)
    size, inside = start.shape[:0:-1], alpha.numpy()[..., None]
    on, off = (
        cv2.resize(smoothed_inside(pixels, area, sigma), size, interpolation=cv2.INTER_CUBIC)
        for area in (own > 1 - EDGE, own < EDGE)
    )
    large = inside * on + (1 - inside) * np.minimum(off.mean(2, keepdims=True), 0)
    low, high = min(float(start.min()), -1), max(float(start.max()), 1)  # beyond sRGB, as the scene is
    return (start + torch.from_numpy(large).permute(2, 0, 1)).clamp(low, high)


def smoothed_inside(pixels: np.ndarray, area: np.ndarray, sigma: float) -> np.ndarray:
    """Pixels float [h,w,c], smoothed over the interior of `area`, bool [h,w]; 0 far away from it."""
    core = cv2.erode(area.astype(np.float32), np.ones((3, 3)), borderType=cv2.BORDER_REPLICATE)
    weight, border = (core if core.any() else area.astype(np.float32))[..., None], cv2.BORDER_REPLICATE
    total = cv2.GaussianBlur(weight, (0, 0), sigma, borderType=border)[..., None]
    return cv2.GaussianBlur(weight * pixels, (0, 0), sigma, borderType=border) / (total + FAINT)
