"""The mask from what the user gives: a mask image, a box, a box or polygon file, or transparency.

Out: bool [H,W], True where the object goes. Sizes are (H, W); messages name them as width x height.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from scipy import ndimage

from ldm.data.boxes import Box, box_in, read_box_file
from ldm.data.exif import upright_pixels
from ldm.data.mask_levels import Channel, above, mask_levels, surrounds, without_specks
from ldm.data.picture import Picture, read_picture
from ldm.data.polygons import Polygon, polygons_in, read_polygons

BOX_FILE, POLYGON_FILE = ".txt", ".json"
CHANNELS = ("auto", "luma", "alpha", "background")  # background: its transparent part, no mask image needed
MOSTLY = 0.5  # a mask that covers more is probably inverted


@dataclass(frozen=True)
class MaskOptions:
    """How a mask is read, applied in this order; `grow`: pixels to dilate by, negative erodes."""

    channel: str = "auto"
    threshold: float = 0.5
    invert: bool = False
    fill_holes: bool = False
    grow: float = 0


def read_insert_mask(
    background: Path,
    picture: Picture,
    mask: Path | None,
    box: Sequence[float],
    options: MaskOptions,
    polygons: Sequence[Polygon] = (),
) -> np.ndarray:
    """The mask of a background that was read as `picture`; one-line errors for whatever does not fit it."""
    if not 0 <= options.threshold < 1:
        raise ValueError(f"mask threshold {options.threshold:g}: expected 0 up to, not including, 1")
    refine: dict[str, Any] = {key: getattr(options, key) for key in ("invert", "grow", "fill_holes")}
    frame, size, name = picture.frame, picture.size, str(mask)
    if box:
        name, shape = "the box", box_mask(box_in(box, frame, "box"), size)
    elif polygons:
        name, shape = "the polygons", polygon_mask(polygons_in(polygons, frame, "polygons"), size)
    elif options.channel == "background":
        name, shape = str(background), _transparent(background, picture, options.threshold)
    elif mask is None:
        raise ValueError(f"{background}: no mask is given; give a mask or a box")
    elif mask.suffix.lower() == BOX_FILE:
        shape = box_mask(box_in(read_box_file(mask), frame, f"{mask}: box"), size)
    elif mask.suffix.lower() == POLYGON_FILE:
        shape = polygon_mask(polygons_in(read_polygons(mask, frame), frame, name), size)
    else:
        how: Any = options.channel
        return read_mask(mask, size, options.threshold, turn=picture.turn, channel=how, **refine)
    return refine_mask(shape, name=name, **refine)


def warn_of_unseen(background: Path, picture: Picture, mask: np.ndarray) -> None:
    """Warn if the whole mask is transparent in the background: alpha is kept, so the object is invisible."""
    if picture.pixels.shape[2] in (2, 4) and not picture.pixels[..., -1][mask].any():
        warnings.warn(
            f"{background}: fully transparent in the mask, and alpha is kept: the object is invisible; "
            "remove the alpha channel to see it",
            stacklevel=2,
        )


def _transparent(path: Path, picture: Picture, threshold: float) -> np.ndarray:
    if picture.pixels.shape[2] not in (2, 4):
        raise ValueError(f"{path}: has no alpha channel; give a background with transparency, or a mask")
    alpha = picture.pixels[..., -1]
    mask = alpha < (1 - threshold) * np.iinfo(alpha.dtype).max
    lower, higher = ("lower the threshold, or ", "raise the threshold, or ") if np.ptp(alpha) else ("", "")
    _check(mask, str(path), f"{lower}make the region transparent", f"{higher}give a mask")
    return mask


def read_mask(
    source: Path,
    size: tuple[int, int],
    threshold: float = 0.5,
    *,
    turn: int = 1,
    channel: Channel = "auto",
    invert: bool = False,
    **refine: Any,
) -> np.ndarray:
    """A mask picture for a background of size (H, W); white, or opaque, is where the object goes.

    `channel`: see `mask_levels`. To fill the transparent part of a background, read the background itself
    with channel="alpha", invert=True. `turn`: EXIF orientation of the background: a mask that was made of the
    stored, sideways picture is turned with it.
    """
    picture = read_picture(source)
    if turn > 4 and picture.turn == 1 and picture.size == tuple(size)[::-1] != tuple(size):
        picture = replace(picture, pixels=upright_pixels(picture.pixels, turn))
        warnings.warn(
            f"{source}: fits the stored background only, and is turned as EXIF turns that", stacklevel=2
        )
    if picture.size != tuple(size):
        raise ValueError(
            f"{source}: mask of {_px(picture.size)}, background of {_px(size)}; make them the same size"
        )
    transparent = channel == "auto" and picture.pixels.shape[2] in (2, 4)
    levels = mask_levels(source, picture, channel)
    mask = above(levels, threshold, str(source), transparent)
    _check(mask ^ invert, str(source), *_remedies(levels, invert))
    if surrounds(mask) and not invert:
        raise ValueError(
            f"{source}: white surrounds black, {mask.mean():.0%} of the picture; a mask is white where the "
            "object goes: give --invert, or invert it"
        )
    return refine_mask(mask, name=str(source), invert=invert, **refine)


def refine_mask(
    mask: np.ndarray, *, name: str = "mask", invert: bool = False, grow: float = 0, fill_holes: bool = False
) -> np.ndarray:
    """Invert, leave out specks, fill holes, grow by `grow` px (negative: shrink), and check the mask."""
    mask = without_specks(~mask if invert else mask, name)
    if fill_holes:
        mask = ndimage.binary_fill_holes(mask)
    if grow:
        mask = _grown(mask, grow)
    if grow < 0:  # what was thin falls into pieces
        mask = without_specks(mask, name)
    _check(mask, name, "shrink it less", "grow it less" if grow > 0 else "leave its holes open")
    if mask.mean() > MOSTLY:
        warnings.warn(
            f"{name}: {mask.mean():.0%} of the picture is masked; white means 'the object goes here', "
            "so invert the mask if white is to stay",
            stacklevel=2,
        )
    return mask


def box_mask(box: Box, size: tuple[int, int]) -> np.ndarray:
    """The pixels whose centres lie in a box of a picture of size (H, W), as a mask; see `box_in`."""
    mask = np.zeros(size, bool)
    x0, y0, x1, y1 = (math.ceil(value - 0.5) for value in box)
    mask[max(y0, 0) : y1, max(x0, 0) : x1] = True
    _check(mask, "box " + " ".join(f"{value:g}" for value in box), "make it larger", "make it smaller")
    return mask


def polygon_mask(polygons: Sequence[Polygon], size: tuple[int, int]) -> np.ndarray:
    """The pixels whose centres lie in polygons, as a mask of size (H, W); see `polygons_in`.

    What a polygon encloses twice is outside of it; where two polygons overlap both count.
    """
    mask = np.zeros(size, bool)
    for polygon in polygons:
        crossed = np.zeros((size[0], size[1] + 1), bool)  # from such a pixel on, inside and outside change
        for (xa, ya), (xb, yb) in zip(polygon, (*polygon[1:], polygon[0]), strict=True):
            first, last = (min(max(math.ceil(y - 0.5), 0), size[0]) for y in sorted((ya, yb)))
            rows = np.arange(first, last)
            if len(rows):
                x = xa + (rows + 0.5 - ya) * ((xb - xa) / (yb - ya))
                crossed[rows, np.clip(np.ceil(x - 0.5), 0, size[1]).astype(int)] ^= True
        mask |= np.logical_xor.accumulate(crossed, axis=1)[:, :-1]
    inside = f"draw them inside the background of {_px(size)}"
    _check(mask, "polygons", inside, f"{inside}, and smaller than it")
    return mask


def _grown(mask: np.ndarray, grow: float) -> np.ndarray:
    """Dilate by a disc of `grow` px, or erode for a negative one; the picture's border erodes nothing."""
    if grow < 0:
        return ~_grown(~mask, -grow) if not mask.all() else mask
    return cv2.distanceTransform((~mask).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE) <= grow


def _remedies(levels: np.ndarray, invert: bool) -> tuple[str, str]:
    """What to do if the levels [H,W] of a mask image mark nothing, and if they mark everything."""
    raised = "raise the threshold, or " if np.ptp(levels) else ""
    if invert:
        return f"{raised}make the region black", "draw the mask smaller: white where the background stays"
    return "mark the region in white", f"{raised}draw the mask smaller: black where the background stays"


def _check(mask: np.ndarray, name: str, enlarge: str, reduce: str) -> None:
    """ValueError if a mask is empty or full, with what to do about it."""
    if not mask.any():
        raise ValueError(f"{name}: the mask is empty, of {_px(mask.shape)}; {enlarge}")
    if mask.all():
        raise ValueError(f"{name}: covers the whole picture of {_px(mask.shape)}; {reduce}")


def _px(size: Sequence[int]) -> str:
    return f"{size[1]} x {size[0]} px"
