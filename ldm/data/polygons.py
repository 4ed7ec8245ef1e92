"""Polygons: where the object goes in a picture, as points of a JSON file or a scene.

They count as boxes do (`boxes.py`), in pixels of the picture as viewers show it. Files of LabelMe, COCO and
VIA are read if they hold one object; what is ambiguous is refused.
"""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ldm.data.boxes import OVERHANG, SHARE_OVERHANG, Frame, upright_box
from ldm.data.text import read_text

Polygon = tuple[tuple[float, float], ...]  # points x, y
EXPECTED = "expected a list of polygons like [[[10, 20], [90, 20], [50, 80]]], in pixels"
ELLIPSE = 64  # points
NEAR = 20  # letters before a fault that are shown


def read_polygons(path: Path, frame: Frame | None = None) -> list[Polygon]:
    """A polygon file: JSON, as `parse_polygons` takes it."""
    text = read_text(path, "polygon file")
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        place = getattr(error, "pos", 0)
        near = " ".join(text[max(place - NEAR, 0) : place + NEAR].split())
        raise ValueError(f"{path}: not readable as JSON ({error}), near {near!r}; {EXPECTED}") from error
    return parse_polygons(found, str(path), frame)


def parse_polygons(found: Any, where: str, frame: Frame | None = None) -> list[Polygon]:
    """A list of polygons, each a list of points [x, y], or of numbers x y x y ...; or one polygon.

    Or the content of a file of LabelMe, COCO or VIA with one object, drawn in a picture as large as `frame`.
    """
    if isinstance(found, Mapping):
        found = _annotated(found, where, frame)
    try:
        one = isinstance(found, list) and found and (_is_number(found[0]) or _is_point(found[0]))
        polygons = [found] if one else found
        if not isinstance(polygons, list) or not polygons:
            raise ValueError(f"given: {str(found)[:60]}")
        return [_points(polygon) for polygon in polygons]
    except (ValueError, OverflowError) as error:
        raise ValueError(f"{where}: {EXPECTED} ({error})") from error


def polygons_in(polygons: Sequence[Polygon], frame: Frame, where: str) -> list[Polygon]:
    """Polygons as given => in pixels of the background as shown; a warning if they are no such pixels."""
    if short := [polygon for polygon in polygons if len(polygon) < 3]:
        raise ValueError(
            f"{where}: a polygon of {len(short[0])} points; give at least 3 points x, y, or a box: "
            "x0 y0 x1 y1 as --box, in a .txt file, or in a scene's `box`"
        )
    points = np.array([point for polygon in polygons for point in polygon])
    if not np.isfinite(points).all():
        raise ValueError(f"{where}: a point is not finite; give x, y in pixels")
    (width, height), said = frame.shown, ""
    outside = [_outside(points, size) for size in (frame.shown, (frame.width, frame.height))]
    if points.min() >= -SHARE_OVERHANG and points.max() <= 1 + SHARE_OVERHANG:
        said = "read as shares of the background"
        polygons = [tuple((x * width, y * height) for x, y in polygon) for polygon in polygons]
    elif outside[0] and not outside[1]:
        said = "read as pixels of the stored background, before EXIF turns it"
        polygons = [tuple(upright_box((x, y, x, y), frame)[:2] for x, y in polygon) for polygon in polygons]
    elif outside[0]:
        said = f"{outside[0]} of {len(points)} points lie outside the background of {width} x {height} px"
        said += "; the part inside counts"
    if said:
        warnings.warn(f"{where}: {said}", stacklevel=2)
    return list(polygons)


def _annotated(file: Mapping[str, Any], where: str, frame: Frame | None) -> Any:
    """The polygons of the one object in a file of an annotation tool."""
    try:
        (tool, objects), size = _objects(file), _size(file)
    except (LookupError, TypeError, AttributeError, ValueError) as error:
        keys = ", ".join(str(key)[:NEAR] for key in list(file)[:4])
        raise ValueError(
            f"{where}: {EXPECTED}, or a file of LabelMe, COCO or VIA with one object; given: {{{keys}}}"
        ) from error
    if len(objects) != 1:
        raise ValueError(f"{where}: a file of {tool} with {len(objects)} objects; keep the one that is meant")
    if frame is not None and size not in ((None, None), frame.shown):
        raise ValueError(
            f"{where}: drawn in a picture of {size[0]} x {size[1]} px; the background is {frame.shown[0]} x "
            f"{frame.shown[1]}, as viewers show it; draw it there"
        )
    return objects[0]


def _size(file: Mapping[str, Any]) -> tuple[Any, Any]:
    """Width and height of the picture that LabelMe or COCO names; (None, None) if none is named."""
    pictures, drawn_in = file.get("images", []), {one.get("image_id") for one in file.get("annotations", [])}
    own = pictures if len(pictures) == 1 else [picture for picture in pictures if picture["id"] in drawn_in]
    one = own[0] if own else {}
    return file.get("imageWidth", one.get("width")), file.get("imageHeight", one.get("height"))


def _objects(file: Mapping[str, Any]) -> tuple[str, list[Any]]:
    """The annotation tool of a file, and the polygons of each object in it."""
    if "shapes" in file:
        return "LabelMe", [[_of_labelme(shape)] for shape in file["shapes"]]
    if "annotations" in file:
        return "COCO", [one["segmentation"] for one in file["annotations"]]
    if "segmentation" in file:
        return "COCO", [file["segmentation"]]
    pictures = list(file.get("_via_img_metadata", file).values())
    if not pictures:
        raise LookupError("no pictures")
    outlines = [region["shape_attributes"] for picture in pictures for region in picture["regions"]]
    return "VIA", [[_of_via(one)] for one in outlines]


def _of_labelme(shape: Mapping[str, Any]) -> list[Any]:
    if shape.get("shape_type") == "rectangle" and len(shape["points"]) == 2:
        (x0, y0), (x1, y1) = shape["points"]
        return [[x0, y0], [x1, y0], [x1, y1], [x0, y1]]
    if shape.get("shape_type") == "circle" and len(shape["points"]) == 2:
        (x, y), (rim_x, rim_y) = shape["points"]
        radius = math.hypot(rim_x - x, rim_y - y)
        return _ellipse(x, y, radius, radius)
    return list(shape["points"])


def _of_via(outline: Mapping[str, Any]) -> list[Any]:
    if outline.get("name") == "rect":
        x, y, width, height = (outline[key] for key in ("x", "y", "width", "height"))
        return [[x, y], [x + width, y], [x + width, y + height], [x, y + height]]
    if outline.get("name") == "circle":
        return _ellipse(outline["cx"], outline["cy"], outline["r"], outline["r"])
    if outline.get("name") == "ellipse":
        x, y, rx, ry = (outline[key] for key in ("cx", "cy", "rx", "ry"))
        return _ellipse(x, y, rx, ry, outline.get("theta", 0.0))
    pairs = zip(outline["all_points_x"], outline["all_points_y"], strict=True)
    return [list(point) for point in pairs]


def _ellipse(x: float, y: float, rx: float, ry: float, angle: float = 0.0) -> list[Any]:
    """Points on an ellipse around x, y, turned clockwise by an angle in radians."""
    cos, sin = math.cos(angle), math.sin(angle)
    turns = [2 * math.pi * i / ELLIPSE for i in range(ELLIPSE)]
    along = [(rx * math.cos(turn), ry * math.sin(turn)) for turn in turns]
    return [[x + a * cos - b * sin, y + a * sin + b * cos] for a, b in along]


def _points(polygon: Any) -> Polygon:
    if not isinstance(polygon, list):
        raise ValueError(f"{str(polygon)[:60]!r} is no polygon")
    pairs: list[Any] = polygon
    if polygon and _is_number(polygon[0]):
        if len(polygon) % 2:
            raise ValueError(f"{len(polygon)} numbers are no pairs x y")
        pairs = [polygon[i : i + 2] for i in range(0, len(polygon), 2)]
    if wrong := [pair for pair in pairs if not _is_point(pair)]:
        raise ValueError(f"{str(wrong[0])[:60]!r} is no point [x, y]")
    return tuple((float(x), float(y)) for x, y in pairs)


def _is_point(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(map(_is_number, value))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _outside(points: np.ndarray, size: tuple[int, int]) -> int:
    """How many points [n,2] lie outside a picture of this width and height, by more than rounding."""
    return int(((points < -OVERHANG) | (points > np.array(size) + OVERHANG)).any(axis=1).sum())
