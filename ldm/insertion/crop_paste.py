"""Crop the pixels of a region (`crop_region`), paste an image back at the picture's own depth, compare.

`roi` says where the regions are. Only a region is ever computed in floats, a large one strip
by strip; pixels where alpha is 0 are copied, not computed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import NamedTuple

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ldm.data.image import colour_levels, colours
from ldm.data.picture import Picture
from ldm.insertion.roi import Roi, box_of, crop, visible

ROWS = 64  # pasted or compared at once: 100 megapixels fit into memory a few times only


class Patch(NamedTuple):
    """Colours [h,w,1|3] for a box inside a picture, at its depth."""

    box: Roi
    pixels: np.ndarray


def crop_region(picture: Picture, roi: Roi, most: int | None = None) -> Tensor:
    """Crop a region as an sRGB image [3,h,w] in [-1,1], reflected beyond the picture's border, without alpha.

    A region longer than `most` px is shrunk to that. Colours that sRGB cannot show are outside of [-1,1].
    """
    return colours(shrunk(crop(picture.pixels, roi), most), picture.space)


def shrunk(pixels: np.ndarray, most: int | None) -> np.ndarray:
    """Stored pixels [h,w,C], averaged so that the longer side is `most` px; small ones as they are."""
    height, width = pixels.shape[:2]
    if most is None or max(height, width) <= most:
        return pixels
    size = (max(1, round(side * most / max(height, width))) for side in (width, height))
    out = cv2.resize(pixels, tuple(size), interpolation=cv2.INTER_AREA)
    return out.reshape(*out.shape[:2], -1)


def shrunk_mask(mask: np.ndarray, most: int) -> np.ndarray:
    """The same of bool [h,w]: what is masked in part is masked."""
    if max(mask.shape) <= most:
        return mask
    return shrunk(mask.view(np.uint8)[..., None] * np.uint8(255), most)[..., 0] > 0


def to_model_mask(mask: np.ndarray, size: int) -> Tensor:
    """Mask bool [h,w] => float [1,1,size,size].

    A pixel is filled as soon as a part of it is, so that no pixel of an old object is shown to the model.
    """
    area = F.interpolate(torch.from_numpy(mask)[None, None].float(), size=(size, size), mode="area")
    return (area > 0).float()


def paste_region(picture: Picture, roi: Roi, image: Tensor, alpha: np.ndarray) -> Patch:
    """Paste `image` [3,h,w] in [-1,1] over the region with `alpha` [H,W] in [0,1], of the region's size.

    A smaller image is enlarged. old + alpha * (image - old) in sRGB, converted into the picture's colours
    and rounded to its depth; a grey picture gets the luma, an alpha channel stays as it is. Where `alpha` is
    0 every pixel is bit for bit the old one. The patch holds the bounding box of all changed pixels.
    """
    assert alpha.shape == roi.size, f"{alpha.shape}, {roi}"
    image, n, space = image.detach().float().cpu(), picture.n_colours, picture.space
    seen = visible(roi, picture.size)
    changing = alpha[seen.within(roi).slices] > 0
    inside = box_of(changing) if changing.any() else Roi(0, 0, 1, 1)  # where nothing changes, a pixel stays
    box = inside.moved(seen.x0, seen.y0)
    pixels = picture.pixels[box.slices][..., :n].copy()
    for y in range(box.y0, box.y1, ROWS):
        here = Roi(box.x0, y, box.x1, min(y + ROWS, box.y1)).within(roi)
        old, weight = pixels[y - box.y0 : y - box.y0 + ROWS], alpha[here.slices]
        below, above = colours(old, space), enlarged(image, roi.size, here)
        mixed = below + torch.from_numpy(weight).float() * (above - below)
        mixed = torch.clamp(mixed, below.clamp(max=-1), below.clamp(min=1))  # what is made is sRGB
        new = colour_levels(mixed, old, space)
        if space is not None:  # where alpha is small, what the way to sRGB and back lost is given back
            lost = old.astype(np.int32) - colour_levels(below, old, space)
            top = np.iinfo(old.dtype).max
            new = np.rint(new + (1 - weight[..., None]) * lost).clip(0, top).astype(old.dtype)
        np.copyto(old, new, where=weight[..., None] > 0)
    return Patch(box, pixels)


def enlarged(image: Tensor, size: tuple[int, int], box: Roi) -> Tensor:
    """What a box of the image [3,h,w] shows once that is enlarged to `size` (H, W); bicubic."""
    if image.shape[1:] == size:
        return image[(slice(None), *box.slices)]
    xs = (torch.arange(box.x0, box.x1) + 0.5) * 2 / size[1] - 1
    ys = (torch.arange(box.y0, box.y1) + 0.5) * 2 / size[0] - 1
    grid = torch.stack(torch.meshgrid(xs, ys, indexing="xy"), dim=-1)[None]
    out = F.grid_sample(image[None], grid, mode="bicubic", padding_mode="border", align_corners=False)
    return out[0].clamp(min(float(image.min()), -1), max(float(image.max()), 1))


def patched(picture: Picture, patches: Iterable[Patch]) -> Picture:
    """A new picture with patches pasted on it, later ones on top."""
    pixels = picture.pixels.copy()
    for box, part in patches:
        pixels[box.slices][..., : picture.n_colours] = part
    return replace(picture, pixels=pixels)


def difference_outside(pixels: np.ndarray, background: np.ndarray, mask: np.ndarray) -> int:
    """Largest difference of stored pixels [H,W,C] outside the mask, in levels; it must be 0."""
    return max(int(apart.max(initial=0)) for apart in _apart_outside(pixels, background, mask))


def mean_difference_outside(pixels: np.ndarray, background: np.ndarray, mask: np.ndarray) -> float:
    """The mean of the same differences; 0 if nothing is outside."""
    parts = [(int(apart.sum()), apart.size) for apart in _apart_outside(pixels, background, mask)]
    return sum(total for total, _ in parts) / max(sum(count for _, count in parts), 1)


def _apart_outside(pixels: np.ndarray, background: np.ndarray, mask: np.ndarray) -> Iterator[np.ndarray]:
    """Absolute differences outside the mask, some rows at a time."""
    assert pixels.shape == background.shape and pixels.dtype == background.dtype, (
        f"{pixels.shape} of {pixels.dtype} against {background.shape} of {background.dtype}"
    )
    for y in range(0, len(mask), ROWS):
        rows = slice(y, y + ROWS)
        outside = ~mask[rows]
        yield np.abs(pixels[rows][outside].astype(np.int32) - background[rows][outside])
