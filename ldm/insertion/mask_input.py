"""Where the object goes, however it is marked: a mask picture, a box, a box or polygon file, transparency.

In: what the user gave and the tools to mend it with. Out: bool [H,W], True where the object goes.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ldm.data.picture import Picture
from ldm.data.text import read_text
from ldm.insertion.mask_shapes import box_mask, polygon_mask, read_mask, read_roi_file, refine_mask

Polygon = tuple[tuple[float, float], ...]  # points x, y in pixels
BOX_FILE, POLYGON_FILE = ".txt", ".json"
CHANNELS = ("auto", "luma", "alpha", "background")  # background: its own transparent part, no mask needed


@dataclass(frozen=True)
class MaskOptions:
    """How a mask is read and mended, in this order; `grow` in pixels, negative shrinks."""

    channel: str = "auto"
    threshold: float = 0.5
    invert: bool = False
    fill_holes: bool = False
    grow: float = 0


class InsertMasks(NamedTuple):
    """Where the model generates and where of that is pasted, both bool [H,W]; mostly one and the same."""

    hole: np.ndarray
    mask: np.ndarray


def read_insert_mask(
    background: Path,
    picture: Picture,
    mask: Path | None,
    box: Sequence[float],
    tools: MaskOptions,
    polygons: Sequence[Polygon] = (),
) -> np.ndarray:
    """The mask of a background that was read as `picture`; one-line errors for whatever does not fit it."""
    mend: dict[str, Any] = {"invert": tools.invert, "grow": tools.grow, "fill_holes": tools.fill_holes}
    if not 0 <= tools.threshold < 1:
        raise ValueError(f"mask threshold {tools.threshold:g}: expected 0 up to, not including, 1")
    if box:
        return refine_mask(box_mask(box, picture.size), name="the box", **mend)
    if polygons:
        return refine_mask(polygon_mask(polygons, picture.size), name="the polygons", **mend)
    if tools.channel == "background":
        return refine_mask(_transparent(background, picture, tools.threshold), name=str(background), **mend)
    if mask is None:
        raise ValueError(f"{background}: no region is marked; give a mask or a box")
    if mask.suffix.lower() == BOX_FILE:
        return refine_mask(box_mask(read_roi_file(mask), picture.size), name=str(mask), **mend)
    if mask.suffix.lower() == POLYGON_FILE:
        return refine_mask(polygon_mask(read_polygons(mask), picture.size), name=str(mask), **mend)
    return read_mask(mask, picture.size, tools.threshold, channel=_channel(tools.channel), **mend)


def read_paste_mask(
    file: Path, background: Path, picture: Picture, hole: np.ndarray, tools: MaskOptions
) -> np.ndarray:
    """Where to paste of what is generated in `hole`; read as masks are, but neither filled nor grown."""
    channel = "auto" if tools.channel == "background" else tools.channel
    plain = replace(tools, channel=channel, fill_holes=False, grow=0)
    mask = read_insert_mask(background, picture, file, (), plain)
    if beyond := int((mask & ~hole).sum()):
        raise ValueError(
            f"{file}: {beyond} of its pixels lie outside the mask, where nothing is generated; "
            "make it smaller, or enlarge the mask (--grow)"
        )
    return mask


def warn_of_unseen(background: Path, picture: Picture, mask: np.ndarray) -> None:
    """Alpha is kept: what is pasted where the background is transparent is there, and nobody sees it."""
    if picture.pixels.shape[2] in (2, 4) and not picture.pixels[..., -1][mask].any():
        warnings.warn(
            f"{background}: fully transparent where the object goes, and alpha is kept: "
            "the object shows once alpha is dropped",
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
    """A list of polygons, each a list of points [x, y] in pixels; or one polygon."""
    try:
        polygons = [found] if _is_point(found[0]) else found
        return [tuple((float(x), float(y)) for x, y in polygon) for polygon in polygons]
    except (ValueError, TypeError, LookupError) as error:
        expected = "expected a list of polygons like [[[10, 20], [90, 20], [50, 80]]], in pixels"
        raise ValueError(f"{where}: {expected} ({type(error).__name__}: {error})") from error


def _is_point(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and not isinstance(value[0], list)


def _transparent(path: Path, picture: Picture, threshold: float) -> np.ndarray:
    if picture.pixels.shape[2] not in (2, 4):
        raise ValueError(f"{path}: has no alpha channel; give a background with transparency, or a mask")
    alpha = picture.pixels[..., -1]
    return alpha < (1 - threshold) * np.iinfo(alpha.dtype).max


def _channel(name: str) -> Any:
    assert name in CHANNELS[:3], f"no channel of a mask picture: {name}"
    return name
