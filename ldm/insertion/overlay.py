"""A drawing of the plan: what is masked, and which squares will be looked at."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ldm.data.picture import Picture
from ldm.insertion.roi import Roi, visible

TINT = np.array((255, 40, 40), np.float32)
FRAME = (255, 210, 0)
INK = (20, 20, 20)
LETTERS = 60  # a label is 1/60 of the picture's longer side high
ROWS = 256  # tinted at once
LINES = 400  # a line is 1/400 of the picture's longer side thick


def overlay(picture: Picture, mask: np.ndarray, rois: Sequence[Roi], texts: Sequence[str] = ()) -> Picture:
    """The picture as 8-bit RGB, the mask [H,W] tinted and outlined in red, each region framed in yellow.

    `texts` are written, with the region's number, into the top left corner of each, as far as they fit.
    """
    drawing = _rgb8(picture)
    thick = max(1, max(picture.size) // LINES)
    for roi in rois:
        part = visible(roi, picture.size).slices
        _tint(drawing[part], mask[part], thick)
    for roi in rois:
        seen = visible(roi, picture.size)
        cv2.rectangle(drawing, (seen.x0, seen.y0), (seen.x1 - 1, seen.y1 - 1), FRAME, thick)
    for number, (roi, text) in enumerate(zip(rois, texts, strict=False), start=1):
        label, seen = _label(f"{number}: {text}", max(picture.size)), visible(roi, picture.size)
        place = drawing[seen.y0 : seen.y0 + label.shape[0], seen.x0 : seen.x0 + label.shape[1]]
        place[:] = label[: place.shape[0], : place.shape[1]]
    return Picture(drawing)


def _label(text: str, longer: int) -> np.ndarray:
    size = max(11, longer // LETTERS)
    font = ImageFont.load_default(size)
    width = int(font.getlength(text)) + size
    tag = Image.new("RGB", (width, round(1.5 * size)), FRAME)
    ImageDraw.Draw(tag).text((size // 2, tag.height // 2), text, INK, font, anchor="lm")
    return np.asarray(tag)


def _tint(pixels: np.ndarray, mask: np.ndarray, thick: int) -> None:
    """In place, strip by strip: a region may be the whole of a large picture."""
    kernel = np.ones((2 * thick + 1,) * 2, np.uint8)
    edge = mask & (cv2.erode(mask.astype(np.uint8), kernel) == 0)
    for y in range(0, len(mask), ROWS):
        rows = slice(y, y + ROWS)
        strength = np.where(edge[rows], 1.0, np.where(mask[rows], 0.4, 0.0))[..., None].astype(np.float32)
        pixels[rows] = (pixels[rows] + strength * (TINT - pixels[rows])).round().astype(np.uint8)


def _rgb8(picture: Picture) -> np.ndarray:
    shown = picture.pixels[..., : picture.n_colours]
    if shown.dtype == np.uint16:
        shown = (shown >> 8).astype(np.uint8)
    return shown.repeat(3, axis=2) if picture.n_colours == 1 else shown.copy()
