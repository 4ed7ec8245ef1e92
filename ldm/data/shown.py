"""What a base is shown of an object: its reference and few-shot pictures, squashed or cut out.

Pixels are uint8 [H,W,3]; what is shown is float [c,S,S] in [-1,1], c = 3, or 4 for a cut-out with its alpha.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from ldm.data.boxes import Box
from ldm.data.cutout import cut_out_of, cut_out_picture, silhouette_of
from ldm.data.image import read_rgb, to_image
from ldm.data.insertset import InsertSet
from ldm.data.masks import pixel_box
from ldm.data.visible import most_alike


def object_crop(pixels: np.ndarray, box: Box, pad: int = 0) -> np.ndarray:
    """Pixels [H,W,3] => the pixels [h,w,3] that the box touches, and `pad` more on sides that have them."""
    x0, y0, x1, y1 = box
    left, top, right, bottom = pixel_box((x0 - pad, y0 - pad, x1 + pad, y1 + pad), pixels.shape[:2])
    return pixels[top:bottom, left:right]


def squash(pixels: np.ndarray, size: int) -> Tensor:
    """Pixels [h,w,3] => image [3,size,size] in [-1,1], whatever the aspect, as Paint-by-Example does.

    Bicubic on bytes, as Pillow's: 40 times faster on a 12-megapixel photo than `resize` on floats.
    """
    stored = rearrange(torch.tensor(pixels), "h w c -> 1 c h w")
    small = F.interpolate(stored, size=(size, size), mode="bicubic", antialias=True)[0]
    return to_image(rearrange(small, "c h w -> h w c").numpy())


def few_shot_crops(insertset: InsertSet, size: int, cut: bool = False) -> Tensor:
    """The object in each few-shot picture (its first box), unaugmented: [N,3,size,size] in [-1,1].

    `cut`: without its ground, [N,4,size,size], as a base of collages wants it, see `CutOut.picture`.
    """
    shown = [(sample, sample.boxes[0], read_rgb(sample.image)) for sample in insertset.few_shot]
    if cut:
        return torch.stack([cut_out_of(*each).picture(size) for each in shown])
    return torch.stack([squash(object_crop(pixels, box), size) for _, box, pixels in shown])


def paper_crops(insertset: InsertSet, size: int) -> Tensor:
    """The same as the paper's code cuts them: [N,3,size,size] in [-1,1], each level one of 8 bits.

    The box's corners are cut off to whole pixels (at least one is left), and the crop is squashed bilinearly
    without antialiasing, as OpenCV does it.
    """
    crops = []
    for sample in insertset.few_shot:
        pixels = read_rgb(sample.image)
        x0, y0 = (
            min(int(low), side - 1) for low, side in zip(sample.boxes[0], pixels.shape[1::-1], strict=False)
        )
        x1, y1 = (max(int(high), low + 1) for high, low in zip(sample.boxes[0][2:], (x0, y0), strict=True))
        crop = np.ascontiguousarray(pixels[y0:y1, x0:x1])
        crops.append(to_image(cv2.resize(crop, (size, size), interpolation=cv2.INTER_LINEAR)))
    return torch.stack(crops)


def reference_image(path: Path, size: int, cut: bool = False) -> Tensor:
    """A picture file as the reference: [1,3,size,size] in [-1,1]; `cut`: cut out, [1,4,size,size]."""
    return (cut_out_picture(path).picture(size) if cut else squash(read_rgb(path), size))[None]


def own_reference(insertset: InsertSet, size: int, cut: bool, crops: Tensor) -> Tensor:
    """The picture [1,c,size,size] that an object is shown by: its reference, see `reference_image`.

    If that is to be cut out and its silhouette is not known, but those of few-shot pictures are, it is their
    cut-out, of `crops` [N,4,size,size], that is most like it: GrabCut errs, silhouettes do not.
    """
    reference = reference_image(insertset.reference, size, cut)
    known = [i for i, sample in enumerate(insertset.few_shot) if sample.mask is not None]
    if not cut or not known or silhouette_of(insertset.reference) is not None:
        return reference
    return crops[known][most_alike(reference[0], crops[known])][None]
