"""An object's reference and few-shot pictures as a base is shown them.

In: pixels uint8 [H,W,3]. Out: float [c,S,S] in [-1,1], c = 3, or 4 with alpha in [0,1].
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from ldm.data.boxes import Box, pixel_box
from ldm.data.image import to_image
from ldm.data.insertset import InsertSet, Sample, sample_in_folder
from ldm.data.picture import read_rgb

NEAREST = -1  # as a view: the few-shot picture most similar to the reference


def object_crop(pixels: np.ndarray, box: Box, pad: int = 0) -> np.ndarray:
    """Crop pixels [H,W,3] to those that the box touches, [h,w,3], and `pad` more on each side if possible."""
    x0, y0, x1, y1 = box
    left, top, right, bottom = pixel_box((x0 - pad, y0 - pad, x1 + pad, y1 + pad), pixels.shape[:2])
    return pixels[top:bottom, left:right]


def squash(pixels: np.ndarray, size: int) -> Tensor:
    """Resize pixels [h,w,3] to an image [3,size,size] in [-1,1], aspect not kept, as in Paint-by-Example.

    Bicubic on bytes, as Pillow: 40 times faster on a 12-megapixel photo than `resize` on floats.
    """
    stored = rearrange(torch.tensor(pixels), "h w c -> 1 c h w")
    small = F.interpolate(stored, size=(size, size), mode="bicubic", antialias=True)[0]
    return to_image(rearrange(small, "c h w -> h w c").numpy())


def paper_crops(insertset: InsertSet, size: int) -> Tensor:
    """The object in each few-shot picture, cropped as by the paper's code: [N,3,size,size] in [-1,1], 8 bits.

    The box's corners are truncated to whole pixels (at least one pixel is left), and the crop is resized
    bilinearly without antialiasing, by OpenCV.
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


class ObjectImages:
    """How a base is shown an object: its pictures resized to `size` px squares, as in Paint-by-Example.

    A subclass may cut the object out of its background. `stored`: object files keep the few-shot pictures;
    `bends`: training may mirror, rotate and warp references.
    """

    stored = False
    bends = True

    def __init__(self, size: int) -> None:
        self.size = size

    def reference(self, path: Path) -> Tensor:
        """A picture file as the reference: [1,c,size,size] in [-1,1], c = 3, or 4 with alpha in [0,1].

        Of a picture in an object folder it is the object in its box.
        """
        sample, pixels = sample_in_folder(path), read_rgb(path)
        return squash(pixels if sample is None else object_crop(pixels, sample.boxes[0]), self.size)[None]

    def few_shot(self, insertset: InsertSet) -> Tensor:
        """The object in each few-shot picture (its first box), unaugmented: [N,c,size,size]."""
        shown = [(read_rgb(sample.image), sample.boxes[0]) for sample in insertset.few_shot]
        return torch.stack([squash(object_crop(pixels, box), self.size) for pixels, box in shown])

    def in_picture(self, sample: Sample, box: Box, pixels: np.ndarray, size: int, pad: int = 0) -> Tensor:
        """The object in a box of a picture, with `pad` px around it, as a reference [3,size,size]."""
        return squash(object_crop(pixels, box, pad), size)

    def cut_out(self, sample: Sample, box: Box, pixels: np.ndarray, size: int) -> Tensor | None:
        """The object in a box of a picture, cut out, [4,size,size]; None: it is not cut out."""
        return None

    def own_box(self, sample: Sample, box: Box, pixels: np.ndarray, size: int) -> Box:
        """The box of what `in_picture` shows."""
        return box

    def select(
        self, few_shot: Tensor | None, reference: Tensor, view: int, keep: bool = False
    ) -> tuple[Tensor, int]:
        """The reference [1,c,size,size] to show, and the number for `Conditioner.tokens_of_view`.

        `view`: number of a few-shot picture, from 1; 0: all tokens; NEAREST. `few_shot` [N,c,size,size]: the
        pictures stored with the object, if any. `keep`: the reference was given by the user and is not
        changed.
        """
        return reference, 0 if view == NEAREST else view
