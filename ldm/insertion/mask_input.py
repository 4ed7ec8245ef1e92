"""The mask from what the user gives: a mask image, a box, a box or polygon file, or transparency.

Out: bool [H,W], True where the object goes.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ldm.data.boxes import box_in, read_box_file
from ldm.data.picture import Picture
from ldm.data.text import read_text
from ldm.insertion.mask_shapes import Polygon, box_mask, polygon_mask, polygons_in, read_mask, refine_mask

BOX_FILE, POLYGON_FILE = ".txt", ".json"
CHANNELS = ("auto", "luma", "alpha", "background")  # background: its transparent part, no mask image needed


@dataclass(frozen=True)
class MaskOptions:
    """How a mask is read, applied in this order; `grow`: pixels to dilate by, negative erodes."""

    channel: str = "auto"
    threshold: float = 0.5
    invert: bool = False
    fill_holes: bool = False
    grow: float = 0


class InsertMasks(NamedTuple):
    """`hole`: where the model generates; `mask`: the part of it that is pasted; bool [H,W]."""

    hole: np.ndarray
    mask: np.ndarray


def read_insert_mask(
    background: Path,
    picture: Picture,
    mask: Path | None,
    box: Sequence[float],
    options: MaskOptions,
    polygons: Sequence[Polygon] = (),
) -> np.ndarray:
    """The mask of a background that was read as `picture`; one-line errors for whatever does not fit it."""
    refine: dict[str, Any] = {
        "invert": options.invert,
        "grow": options.grow,
        "fill_holes": options.fill_holes,
    }
    if not 0 <= options.threshold < 1:
        raise ValueError(f"mask threshold {options.threshold:g}: expected 0 up to, not including, 1")
    frame, size = picture.frame, picture.size
    if box:
        return refine_mask(box_mask(box_in(box, frame, "box"), size), name="the box", **refine)
    if polygons:
        found = polygons_in(polygons, frame, "polygons")
        return refine_mask(polygon_mask(found, size), name="the polygons", **refine)
    if options.channel == "background":
        return refine_mask(
            _transparent(background, picture, options.threshold), name=str(background), **refine
        )
    if mask is None:
        raise ValueError(f"{background}: no mask is given; give a mask or a box")
    if mask.suffix.lower() == BOX_FILE:
        found_box = box_in(read_box_file(mask), frame, f"{mask}: box")
        return refine_mask(box_mask(found_box, size), name=str(mask), **refine)
    if mask.suffix.lower() == POLYGON_FILE:
        found = polygons_in(read_polygons(mask), frame, str(mask))
        return refine_mask(polygon_mask(found, size), name=str(mask), **refine)
    channel = _channel(options.channel)
    return read_mask(mask, size, options.threshold, turn=picture.turn, channel=channel, **refine)


def read_paste_mask(
    file: Path, background: Path, picture: Picture, hole: np.ndarray, options: MaskOptions
) -> np.ndarray:
    """The part of `hole` that is pasted; read as masks are, but neither filled nor grown."""
    channel = "auto" if options.channel == "background" else options.channel
    plain = replace(options, channel=channel, fill_holes=False, grow=0)
    mask = read_insert_mask(background, picture, file, (), plain)
    if beyond := int((mask & ~hole).sum()):
        raise ValueError(
            f"{file}: {beyond} of its pixels lie outside the mask, where nothing is generated; "
            "make it smaller, or enlarge the mask (--grow)"
        )
    return mask


def warn_of_unseen(background: Path, picture: Picture, mask: np.ndarray) -> None:
    """Warn if the whole mask is transparent in the background: alpha is kept, so the object is invisible."""
    if picture.pixels.shape[2] in (2, 4) and not picture.pixels[..., -1][mask].any():
        warnings.warn(
            f"{background}: fully transparent in the mask, and alpha is kept: the object is invisible; "
            "remove the alpha channel to see it",
            stacklevel=2,
        )


def read_polygons(path: Path) -> list[Polygon]:
    """A polygon file: JSON, a list of polygons, each a list of points [x, y] in pixels; or one polygon."""
    text = read_text(path, "polygon file")
    try:
        return parse_polygons(json.loads(text), str(path))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: not readable as JSON ({error})") from error


def parse_polygons(found: Any, where: str) -> list[Polygon]:
    """A list of polygons, each a list of points [x, y], or of numbers x y x y ...; or one polygon."""
    try:
        polygons = [found] if _is_number(found[0]) or _is_point(found[0]) else found
        return [_points(polygon) for polygon in polygons]
    except (ValueError, TypeError, LookupError) as error:
        expected = "expected a list of polygons like [[[10, 20], [90, 20], [50, 80]]], in pixels"
        raise ValueError(f"{where}: {expected} ({type(error).__name__}: {error})") from error


def _points(polygon: Any) -> Polygon:
    flat = _is_number(polygon[0])
    pairs = zip(polygon[::2], polygon[1::2], strict=True) if flat else polygon
    return tuple((float(x), float(y)) for x, y in pairs)


def _is_point(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(map(_is_number, value))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float)


def _transparent(path: Path, picture: Picture, threshold: float) -> np.ndarray:
    if picture.pixels.shape[2] not in (2, 4):
        raise ValueError(f"{path}: has no alpha channel; give a background with transparency, or a mask")
    alpha = picture.pixels[..., -1]
    return alpha < (1 - threshold) * np.iinfo(alpha.dtype).max


def _channel(name: str) -> Any:
    assert name in CHANNELS[:3], f"no channel of a mask picture: {name}"
    return name
