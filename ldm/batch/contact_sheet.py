"""Pictures for looking at results: contact sheets, close-ups, and a drawing of the planned regions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from ldm.batch.results_log import SHEET
from ldm.data.failure import one_line
from ldm.data.image import colour_levels
from ldm.data.picture import Picture, srgb_pixels
from ldm.data.picture_write import write_picture
from ldm.insertion.crop_paste import crop_region, shrunk, shrunk_mask
from ldm.insertion.roi import Roi, crop, lines, scaling, visible

Report = Callable[[str], None]  # shows a line to the user

MARGIN, CAPTION, TILE = 6, 22, 256  # pixels
SHARP = 1024  # px: a close-up is not larger
MOST_ROWS = 24  # a contact sheet of more is too long to look at
PAPER, INK = (255, 255, 255), (40, 40, 40)


def sheet_row(
    background: Picture, mask: np.ndarray, roi: Roi, results: Iterable[Picture]
) -> list[np.ndarray]:
    """Thumbnails: background, its region with the mask, the region of each result, the whole first result."""
    greyed = hatched(close_up(background, roi), shrunk_mask(crop(mask, roi), SHARP))
    row, whole = [overview(background), thumbnail(greyed)], list[np.ndarray]()
    for result in results:
        row.append(thumbnail(close_up(result, roi)))
        whole = whole or [overview(result)]
    return row + whole


def rgb8(picture: Picture | Tensor) -> np.ndarray:
    """A picture of any depth and profile, or an image [3,h,w] in [-1,1] => sRGB, uint8 [H,W,3]."""
    if isinstance(picture, Picture):
        return srgb_pixels(picture)
    return colour_levels(picture, np.empty((1, 1, 3), np.uint8))


def close_up(picture: Picture, roi: Roi) -> np.ndarray:
    """A region of the picture, uint8 [h,w,3]; a large one is shrunk."""
    return rgb8(crop_region(picture, roi, SHARP))


def overview(picture: Picture) -> np.ndarray:
    """A whole picture, uint8 [h,w,3], its longer side TILE px; large ones are never turned into floats."""
    return thumbnail(srgb_pixels(replace(picture, pixels=shrunk(picture.pixels, 4 * TILE))))


def hatched(pixels: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The region to fill, uint8 [h,w,3] and bool [h,w], greyed as the model sees it."""
    return np.where(mask[..., None], np.uint8(128), pixels)


def contact_sheet(
    rows: Sequence[Sequence[np.ndarray]], captions: Sequence[str], side: int = TILE
) -> np.ndarray:
    """Rows of uint8 pictures [h,w,3], each fitted into a square of `side` px => one picture."""
    columns = max(map(len, rows))
    size = (MARGIN + columns * (side + MARGIN), CAPTION + MARGIN + len(rows) * (side + MARGIN))
    sheet = Image.new("RGB", size, PAPER)
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(13)
    for x, caption in enumerate(captions):
        draw.text((MARGIN + x * (side + MARGIN), MARGIN), caption, INK, font)
    for y, row in enumerate(rows):
        for x, pixels in enumerate(row):
            tile = Image.fromarray(thumbnail(pixels, side))
            left = MARGIN + x * (side + MARGIN) + (side - tile.width) // 2
            top = CAPTION + MARGIN + y * (side + MARGIN) + (side - tile.height) // 2
            sheet.paste(tile, (left, top))
    return np.asarray(sheet)


def thumbnail(pixels: np.ndarray, side: int = TILE) -> np.ndarray:
    """uint8 [h,w,3] scaled so that its longer side is `side` px; always a copy."""
    tile = Image.fromarray(pixels)
    scale = side / max(tile.size)
    size = max(1, round(tile.width * scale)), max(1, round(tile.height * scale))
    return np.asarray(tile.resize(size, Image.Resampling.LANCZOS if scale < 1 else Image.Resampling.BICUBIC))


TINT = np.array((255, 40, 40), np.float32)
FRAME = (255, 210, 0)
OVERLAY_INK = (20, 20, 20)
LETTERS = 60  # a label is 1/60 of the picture's longer side high
ROWS = 256  # tinted at once
LINES = 400  # a line is 1/400 of the picture's longer side thick


def write_plan(
    file: Path, background: Picture, mask: np.ndarray, rois: Sequence[Roi], model_side: int, report: Report
) -> None:
    """Report the regions of a mask [H,W], and draw them into `file`, <name>_plan.png."""
    for line in (f"{file.stem.removesuffix('_plan')}:", *lines(mask, rois, model_side)):
        report(one_line(line))
    picture = draw_plan(background, mask, rois, [scaling(roi, model_side) for roi in rois])
    write_picture(file, picture, SHEET)
    report(one_line(str(file)))


def draw_plan(picture: Picture, mask: np.ndarray, rois: Sequence[Roi], texts: Sequence[str] = ()) -> Picture:
    """The picture as 8-bit sRGB, the mask [H,W] tinted and outlined in red, each region framed in yellow.

    `texts` are written, with the region's number, into the top left corner of each, as far as they fit.
    """
    drawing = srgb_pixels(picture)
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
    ImageDraw.Draw(tag).text((size // 2, tag.height // 2), text, OVERLAY_INK, font, anchor="lm")
    return np.asarray(tag)


def _tint(pixels: np.ndarray, mask: np.ndarray, thick: int) -> None:
    """In place, strip by strip: a region may be the whole of a large picture."""
    kernel = np.ones((2 * thick + 1,) * 2, np.uint8)
    edge = mask & (cv2.erode(mask.astype(np.uint8), kernel) == 0)
    for y in range(0, len(mask), ROWS):
        rows = slice(y, y + ROWS)
        strength = np.where(edge[rows], 1.0, np.where(mask[rows], 0.4, 0.0))[..., None].astype(np.float32)
        pixels[rows] = (pixels[rows] + strength * (TINT - pixels[rows])).round().astype(np.uint8)
