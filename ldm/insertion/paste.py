"""A region of a picture => image, and an image => back into the picture, at the picture's own depth.

Only the region is ever computed in floats; pixels where alpha is 0 are copied, not computed.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ldm.data.picture import Picture, colour_levels, colours
from ldm.insertion.roi import Roi, crop, visible


def region(picture: Picture, roi: Roi) -> Tensor:
    """Cut out an image [3,h,w] in [-1,1], reflected beyond the picture's borders; alpha is left out."""
    return colours(crop(picture.pixels, roi))


def to_model_mask(mask: np.ndarray, size: int) -> Tensor:
    """Mask bool [h,w] => float [1,1,size,size].

    A pixel is filled as soon as a part of it is, so that nothing of an old object shines through.
    """
    area = F.interpolate(torch.from_numpy(mask)[None, None].float(), size=(size, size), mode="area")
    return (area > 0).float()


def paste_region(picture: Picture, roi: Roi, image: Tensor, alpha: np.ndarray) -> Picture:
    """A new picture with `image` [3,h,w] in [-1,1] laid over the region by `alpha` [h,w] in [0,1].

    old + alpha * (image - old), rounded to the picture's depth; a grey picture gets the luma, and an alpha
    channel stays as it is. Where `alpha` is 0 every pixel is bit for bit the old one.
    """
    assert image.shape == (3, *roi.size) and alpha.shape == roi.size, f"{image.shape}, {alpha.shape}, {roi}"
    seen, n = visible(roi, picture.size), picture.n_colours
    inner = Roi(seen.x0 - roi.x0, seen.y0 - roi.y0, seen.x1 - roi.x0, seen.y1 - roi.y0).slices
    old = picture.pixels[seen.slices]
    weight = torch.from_numpy(np.ascontiguousarray(alpha[inner])).float()
    below = colours(old)
    above = image.detach().float().cpu()[(slice(None), *inner)]
    new = colour_levels(below + weight * (above - below), old)
    pixels = picture.pixels.copy()
    pixels[seen.slices][..., :n] = np.where(alpha[inner][..., None] > 0, new, old[..., :n])
    return replace(picture, pixels=pixels)
