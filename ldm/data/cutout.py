"""An object without its ground: cut out of its box by GrabCut (Rother et al. 2004), laid on mid-grey.

A base of collages draws over its reference; whatever ground came along would be drawn, too.
Pixels are uint8 [H,W,3].
"""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
import torch.nn.functional as F
from torch import Tensor

from ldm.data.image import GREY, to_image
from ldm.data.insertset import Box
from ldm.data.masks import pixel_box

SIDE = 256  # pixels of the longer side at which an object is told from its ground
AROUND = 0.2  # of the box's longer side: the ground that is looked at around it
CORE = 0.3  # of the box's sides: the ellipse in its middle that is surely the object
LEAST = 0.15  # of the box: what covers less is not the object
ITERATIONS = 5
FRAME = 0.03  # of a picture's sides: what a picture of an object surely shows of its ground


class CutOut(NamedTuple):
    """An object on mid-grey [h,w,3] and the box of its picture, in whole pixels, that this shows."""

    pixels: np.ndarray
    box: tuple[int, int, int, int]


def cut_out(pixels: np.ndarray, box: Box) -> CutOut:
    """The object in a box of a picture; the whole box where object and ground cannot be told apart."""
    x0, y0, x1, y1 = pixel_box(box, pixels.shape[:2])
    within = pixels[y0:y1, x0:x1]
    alpha = (within != GREY).any(2).astype(np.float32)  # a cut-out already: that is how transparency is read
    if alpha.mean() > 1 - FRAME:
        alpha = _told_apart(pixels, (x0, y0, x1, y1))
    rows, columns = ((alpha > 0.5).any(side).nonzero()[0] for side in (1, 0))
    if (alpha > 0.5).mean() < LEAST:
        return CutOut(within, (x0, y0, x1, y1))
    shown = (GREY + (within - np.float32(GREY)) * alpha[..., None]).round().astype(np.uint8)
    top, bottom, left, right = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
    own = int(x0 + left), int(y0 + top), int(x0 + right), int(y0 + bottom)
    return CutOut(shown[top:bottom, left:right], own)


def cut_out_picture(pixels: np.ndarray) -> np.ndarray:
    """The object that a picture is of, as `cut_out`; the picture's very rim is taken for ground."""
    height, width = pixels.shape[:2]
    if (pixels == GREY).all(2).mean() > FRAME:
        return cut_out(pixels, (0, 0, width, height)).pixels
    return cut_out(pixels, (FRAME * width, FRAME * height, (1 - FRAME) * width, (1 - FRAME) * height)).pixels


def squared(pixels: np.ndarray, size: int) -> Tensor:
    """Pixels [h,w,3] => image [3,size,size] in [-1,1], its aspect kept, mid-grey (0) where it has nothing."""
    factor = size / max(pixels.shape[:2])
    h, w = (max(1, round(side * factor)) for side in pixels.shape[:2])
    image = F.interpolate(to_image(pixels)[None], size=(h, w), mode="bilinear", antialias=True)[0]
    left, top = (size - w) // 2, (size - h) // 2
    return F.pad(image, [left, size - w - left, top, size - h - top])


def _told_apart(pixels: np.ndarray, box: tuple[int, int, int, int]) -> np.ndarray:
    """A box of a picture => how far each of its pixels is the object, [h,w] in [0,1]."""
    x0, y0, x1, y1 = box
    around = round(AROUND * max(x1 - x0, y1 - y0))
    left, top = max(0, x0 - around), max(0, y0 - around)
    seen = pixels[top : y1 + around, left : x1 + around]
    factor = min(1.0, SIDE / max(seen.shape[:2]))
    small = cv2.resize(seen, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
    a, b, c, d = (round(v * factor) for v in (x0 - left, y0 - top, x1 - left, y1 - top))
    labels = np.full(small.shape[:2], cv2.GC_BGD, np.uint8)
    labels[b:d, a:c] = cv2.GC_PR_FGD
    y, x = np.mgrid[: small.shape[0], : small.shape[1]] + 0.5
    across = (2 * x - a - c) / max(c - a, 1)
    along = (2 * y - b - d) / max(d - b, 1)
    labels[across**2 + along**2 < CORE**2] = cv2.GC_FGD
    if (labels == cv2.GC_BGD).any() and (labels == cv2.GC_PR_FGD).any():
        cv2.setRNGSeed(0)  # the same picture, the same cut-out
        models = np.zeros((1, 65)), np.zeros((1, 65))
        cv2.grabCut(small, labels, None, *models, ITERATIONS, cv2.GC_INIT_WITH_MASK)
    found = np.isin(labels, (cv2.GC_FGD, cv2.GC_PR_FGD)).astype(np.float32)
    size = seen.shape[1], seen.shape[0]
    return cv2.resize(found, size)[y0 - top : y1 - top, x0 - left : x1 - left]
