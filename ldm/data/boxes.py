"""Box files: where the object is in a picture.

Boxes are x0 y0 x1 y1 in pixels, x to the right, y down, (0, 0) the outer corner of the top left pixel. A box
file gives boxes in the stored picture; the boxes here are those of the upright one (EXIF), as `read_rgb`
returns it.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from ldm.data.text import read_text

Box = tuple[float, float, float, float]

BOX_FORMAT = "write one box a line as four numbers, x0 y0 x1 y1, in pixels"
OVERHANG = 1.0  # pixels by which a box may reach outside its picture: rounding, not an error
ROUGH_OVERHANG = 3.0  # the same for same-category pictures, whose boxes were drawn less carefully
CLIPPED = "boxes reaching outside, clipped"
FIFTH = "fifth numbers, ignored"
NO_BOX = "pictures without box, left out"


@dataclass(frozen=True)
class Frame:
    """A stored picture's width and height in pixels, and its EXIF orientation, 1-8."""

    width: int
    height: int
    orientation: int = 1


def read_boxes(
    path: Path, frame: Frame | None, root: Path, faults: list[str], slips: Counter[str] | None = None
) -> tuple[Box, ...]:
    """The boxes of one file; each bad line, and a file without a line, is added to `faults`.

    With `slips`, these are counted there instead: a box up to 3 px outside, a fifth number, an empty file.
    """
    name = path.relative_to(root).as_posix()
    try:
        lines = read_text(path).splitlines()
    except ValueError as error:
        faults.append(f"{name}{str(error).removeprefix(str(path))}")
        return ()
    boxes = []
    for number, line in enumerate(lines, start=1):
        try:
            if line.strip():
                boxes.append(_read_box(line, frame, slips))
        except ValueError as error:
            faults.append(f"{name}: line {number}, {line.strip()[:80]!r}: {error}")
    if any(line.strip() for line in lines):
        return tuple(boxes)
    if slips is not None:
        slips[NO_BOX] += 1
    else:
        faults.append(f"{name}: no box; {BOX_FORMAT}")
    return tuple(boxes)


def upright(box: Box, frame: Frame) -> Box:
    """A box in a stored picture => the same box in the upright one, by EXIF orientation."""
    x0, y0, x1, y1 = box
    width, height = frame.width, frame.height
    if frame.orientation in (5, 6, 7, 8):
        x0, y0, x1, y1, width, height = y0, x0, y1, x1, height, width
    if frame.orientation in (2, 3, 6, 7):
        x0, x1 = width - x1, width - x0
    if frame.orientation in (3, 4, 7, 8):
        y0, y1 = height - y1, height - y0
    return x0, y0, x1, y1


def _read_box(line: str, frame: Frame | None, slips: Counter[str] | None) -> Box:
    """'x0 y0 x1 y1' in a stored picture => a box in the upright one; without a frame unchanged."""
    words = line.split()
    if slips is not None and len(words) == 5:
        slips[FIFTH] += 1
        words = words[:4]
    values = [_number(word) for word in words]
    if len(values) != 4:
        raise ValueError(f"{len(values)} values, expected 4; {BOX_FORMAT}")
    x0, y0, x1, y1 = values
    if frame is not None:
        width, height = frame.width, frame.height
        beyond = -min(x0, y0, width - x1, height - y1)
        if beyond > (OVERHANG if slips is None else ROUGH_OVERHANG):
            raise ValueError(f"outside the picture, which is {width} x {height} pixels; correct the box")
        if slips is not None and beyond > OVERHANG:
            slips[CLIPPED] += 1
        x0, y0, x1, y1 = max(x0, 0.0), max(y0, 0.0), min(x1, float(width)), min(y1, float(height))
    if x1 <= x0 or y1 <= y0:
        raise ValueError("an empty box; x0 < x1 and y0 < y1 are needed, corners and not width and height")
    return upright((x0, y0, x1, y1), frame) if frame else (x0, y0, x1, y1)


def _number(word: str) -> float:
    """A finite number, or a ValueError with the remedy."""
    try:
        value = float(word)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(f"{word!r} is not a number; {BOX_FORMAT}")
    return value
