"""A region of a picture => image, and an image => back into the picture, at the picture's own depth.

Only the region is ever computed in floats; pixels where alpha is 0 are copied, not computed.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ldm.data.picture import Picture, colour_levels, colours
from ldm.insertion.roi import Roi, crop, visible


class Patch(NamedTuple):
    """Pixels [h,w,C] for a box inside a picture, at its depth."""

    box: Roi
    pixels: np.ndarray


def region(picture: Picture, roi: Roi) -> Tensor:
    """Cut out an image [3,h,w] in [-1,1], reflected beyond the picture's borders; alpha is left out."""
    return colours(crop(picture.pixels, roi))


def to_model_mask(mask: np.ndarray, size: int) -> Tensor:
    """Mask bool [h,w] => float [1,1,size,size].

    A pixel is filled as soon as a part of it is, so that nothing of an old object shines through.
    """
    area = F.interpolate(torch.from_numpy(mask)[None, None].float(), size=(size, size), mode="area")
    return (area > 0).float()


def paste_region(picture: Picture, roi: Roi, image: Tensor, alpha: np.ndarray) -> Patch:
    """`image` [3,h,w] in [-1,1] laid over the region by `alpha` [h,w] in [0,1], as far as it is inside.

    old + alpha * (image - old), rounded to the picture's depth; a grey picture gets the luma, and an alpha
    channel stays as it is. Where `alpha` is 0 every pixel is bit for bit the old one.
    """
    assert image.shape == (3, *roi.size) and alpha.shape == roi.size, f"{image.shape}, {alpha.shape}, {roi}"
    seen, n = visible(roi, picture.size), picture.n_colours
    inner = Roi(seen.x0 - roi.x0, seen.y0 - roi.y0, seen.x1 - roi.x0, seen.y1 - roi.y0).slices
    pixels = picture.pixels[seen.slices].copy()
    weight = torch.from_numpy(np.ascontiguousarray(alpha[inner])).float()
    below = colours(pixels)
    above = image.detach().float().cpu()[(slice(None), *inner)]
    new = colour_levels(below + weight * (above - below), pixels)
    pixels[..., :n] = np.where(alpha[inner][..., None] > 0, new, pixels[..., :n])
    return Patch(seen, pixels)


def patched(picture: Picture, patches: Iterable[Patch]) -> Picture:
    """A new picture with patches over it; the later ones lie on top."""
    pixels = picture.pixels.copy()
    for box, part in patches:
        pixels[box.slices] = part
    return replace(picture, pixels=pixels)
