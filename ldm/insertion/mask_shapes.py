"""A mask image, a box, a ROI file or polygons => mask, bool [H,W], True where the object goes.

Sizes are (H, W); messages name them as width x height.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageDraw
from scipy import ndimage

from ldm.data.mask_levels import Channel, above, mask_levels, surrounds, without_specks
from ldm.data.picture import read_picture
from ldm.data.text import read_text
from ldm.insertion.roi import Roi

MOSTLY = 0.5  # a mask that covers more is probably inverted


def read_mask(
    source: Path,
    size: tuple[int, int],
    threshold: float = 0.5,
    *,
    channel: Channel = "auto",
    invert: bool = False,
    grow: float = 0,
    fill_holes: bool = False,
) -> np.ndarray:
    """A mask picture for a background of size (H, W); white, or opaque, is where the object goes.

    `channel`: see `mask_levels`. To fill the transparent part of a background, read the background itself
    with channel="alpha", invert=True.
    """
    picture = read_picture(source)
    if picture.size != tuple(size):
        raise ValueError(
            f"{source}: mask of {_px(picture.size)}, background of {_px(size)}; make them the same size"
        )
    transparent = channel == "auto" and picture.pixels.shape[2] in (2, 4)
    mask = above(mask_levels(source, picture, channel), threshold, str(source), transparent)
    if surrounds(mask) and not invert:
        raise ValueError(
            f"{source}: white surrounds black, {mask.mean():.0%} of the picture; a mask is white where the "
            "object goes: give --invert, or invert it"
        )
    return refine_mask(mask, name=str(source), invert=invert, grow=grow, fill_holes=fill_holes)


def refine_mask(
    mask: np.ndarray, *, name: str = "mask", invert: bool = False, grow: float = 0, fill_holes: bool = False
) -> np.ndarray:
    """Invert, leave out specks, fill holes, grow by `grow` px (negative: shrink), and check the mask."""
    mask = ~mask if invert else mask
    _check(mask, name, "lower the threshold or invert it")
    mask = without_specks(mask, name)
    if fill_holes:
        mask = ndimage.binary_fill_holes(mask)
    if grow:
        mask = _grown(mask, grow)
    if grow < 0:  # what was thin falls into pieces
        mask = without_specks(mask, name)
    _check(mask, name, "grow or shrink it less")
    if mask.mean() > MOSTLY:
        warnings.warn(
            f"{name}: {mask.mean():.0%} of the picture is masked; white means 'the object goes here', "
            "so invert the mask if white is to stay",
            stacklevel=2,
        )
    return mask


def box_mask(box: Sequence[float], size: tuple[int, int]) -> np.ndarray:
    """A box x0, y0, x1, y1 (pixels, rounded, x1 and y1 exclusive) as a mask of size (H, W)."""
    height, width = size
    if not np.isfinite(box).all():
        raise ValueError(f"box {_numbers(box)}: expected x0 y0 x1 y1 in pixels")
    roi = Roi(*(round(value) for value in box))
    if min(roi.size) <= 0:
        raise ValueError(f"box {_numbers(box)} is empty; give x0 y0 x1 y1 with x0 < x1 and y0 < y1")
    if roi.x0 < 0 or roi.y0 < 0 or roi.x1 > width or roi.y1 > height:
        raise ValueError(f"box {_numbers(box)} reaches outside the background of {_px(size)}; move it inside")
    mask = np.zeros(size, bool)
    mask[roi.slices] = True
    _check(mask, f"box {_numbers(box)}", "make it smaller")
    return mask


def polygon_mask(polygons: Sequence[Sequence[tuple[float, float]]], size: tuple[int, int]) -> np.ndarray:
    """Polygons, each a list of (x, y) in pixels, as a mask of size (H, W); where they overlap both count."""
    canvas = Image.new("L", (size[1], size[0]))
    for polygon in polygons:
        if len(polygon) < 3:
            raise ValueError(f"polygon of {len(polygon)} points; give at least 3 points x, y")
        if not np.isfinite(polygon).all():
            raise ValueError("polygon with a point that is not finite; give x, y in pixels")
        ImageDraw.Draw(canvas).polygon([(float(x), float(y)) for x, y in polygon], fill=255)
    mask = np.asarray(canvas) > 0
    _check(mask, "polygons", f"draw them inside the background of {_px(size)}, and smaller than it")
    return mask


def read_roi_file(path: Path) -> tuple[float, float, float, float]:
    """A ROI file: four numbers x0 y0 x1 y1, one a line or on one line, blanks or commas between them."""
    text = read_text(Path(path), "ROI file")
    try:
        x0, y0, x1, y1 = (float(word) for word in text.replace(",", " ").split())
    except ValueError as error:
        raise ValueError(f"{path}: expected four numbers x0 y0 x1 y1 ({error})") from error
    if not np.isfinite((x0, y0, x1, y1)).all():
        raise ValueError(f"{path}: expected four numbers x0 y0 x1 y1 in pixels")
    return x0, y0, x1, y1


def _grown(mask: np.ndarray, grow: float) -> np.ndarray:
    """Dilate by a disc of `grow` px, or erode for a negative one; the picture's border erodes nothing."""
    if grow < 0:
        return ~_grown(~mask, -grow) if not mask.all() else mask
    return cv2.distanceTransform((~mask).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE) <= grow


def _check(mask: np.ndarray, name: str, remedy: str) -> None:
    if not mask.any():
        raise ValueError(f"{name}: the mask is empty, of {_px(mask.shape)}; {remedy}")
    if mask.all():
        raise ValueError(f"{name}: covers the whole picture of {_px(mask.shape)}; {remedy}")


def _px(size: Sequence[int]) -> str:
    return f"{size[1]} x {size[0]} px"


def _numbers(box: Sequence[float]) -> str:
    return " ".join(f"{value:g}" for value in box)
