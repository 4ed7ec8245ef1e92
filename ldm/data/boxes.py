"""Boxes: where the object is in a picture, or where it goes, as numbers of a file or a command line.

One convention: a box is x0 y0 x1 y1 in pixels of the picture as viewers show it (turned by EXIF), x to the
right, y down, (0, 0) the outer corner of the top left pixel. Numbers of another convention are read, with a
warning, if nothing else can be meant; else they are refused, with what they may mean.
"""

from __future__ import annotations

import math
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from ldm.data.text import Numbers, numbers_of, read_text

Box = tuple[float, float, float, float]

BOX_FORMAT = "write one box a line as four numbers, x0 y0 x1 y1, in pixels"
OVERHANG = 1.0  # pixels by which a box may reach outside its picture: rounding, not an error
ROUGH_OVERHANG = 3.0  # the same for same-category pictures, whose boxes were drawn less carefully
SHARE_OVERHANG = 0.01  # the same for shares of the picture
CLIPPED = "boxes reaching outside, clipped"
FIFTH = "fifth numbers, ignored"
NO_BOX = "pictures without box, left out"


@dataclass(frozen=True)
class Frame:
    """A stored picture's width and height in pixels, and its EXIF orientation, 1-8."""

    width: int
    height: int
    orientation: int = 1

    @property
    def shown(self) -> tuple[int, int]:
        """Width and height as viewers show the picture."""
        return (self.height, self.width) if self.orientation > 4 else (self.width, self.height)


@dataclass(frozen=True)
class Given:
    """Four numbers in the picture that they count in; `where`: what errors and warnings begin with."""

    numbers: Box
    frame: Frame
    where: str

    @property
    def shares(self) -> bool:
        """Whether all lie in 0 .. 1: no pixels, but shares of the picture."""
        return all(-SHARE_OVERHANG <= value <= 1 + SHARE_OVERHANG for value in self.numbers)

    def read_as(self, how: str) -> Box:
        """In pixels of the picture as shown, if they are meant as `how`; not checked."""
        frame = self.frame
        width, height = (frame.width, frame.height) if how == STORED else frame.shown
        x0, y0, x1, y1 = self.numbers
        if self.shares:
            x0, y0, x1, y1 = x0 * width, y0 * height, x1 * width, y1 * height
        return READINGS[how]((x0, y0, x1, y1), frame)

    def fits(self, how: str, overhang: float) -> bool:
        """Whether that is a box inside the picture, which it may leave by `overhang` pixels."""
        x0, y0, x1, y1 = self.read_as(how)
        return x0 < x1 and y0 < y1 and self.beyond(how) <= overhang

    def beyond(self, how: str) -> float:
        """By how many pixels it leaves the picture; shares may be rounded."""
        (width, height), (x0, y0, x1, y1) = self.frame.shown, self.read_as(how)
        outside = -min(x0, y0, width - x1, height - y1)
        return min(outside, OVERHANG) if self.shares else outside

    def clipped(self, how: str) -> Box:
        """The part inside the picture."""
        (width, height), (x0, y0, x1, y1) = self.frame.shown, self.read_as(how)
        return max(x0, 0.0), max(y0, 0.0), min(x1, float(width)), min(y1, float(height))


def upright_box(box: Box, frame: Frame) -> Box:
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


CORNERS, SWAPPED, SIZED, CENTRED, STORED = (
    "corners x0 y0 x1 y1",
    "swapped corners",
    "x y width height",
    "x y of the centre, width height",
    "pixels of the stored picture, before EXIF turns it",
)
READINGS: Mapping[str, Callable[[Box, Frame], Box]] = {
    CORNERS: lambda box, frame: box,
    SWAPPED: lambda box, frame: _sorted(box),
    SIZED: lambda box, frame: (box[0], box[1], box[0] + box[2], box[1] + box[3]),
    CENTRED: lambda box, frame: _around(*box),
    STORED: upright_box,
}


def _around(x: float, y: float, width: float, height: float) -> Box:
    return x - width / 2, y - height / 2, x + width / 2, y + height / 2


def _sorted(box: Box) -> Box:
    (x0, x1), (y0, y1) = sorted(box[::2]), sorted(box[1::2])
    return x0, y0, x1, y1


def parse_box(value: Any, where: str) -> Box:
    """Four numbers, as text or as a list, as `box_in` reads them; ValueError that says where."""
    try:
        return _four(numbers_of(value))
    except ValueError as error:
        given = str(value)[:80]
        raise ValueError(
            f"{where}: box {given!r}; expected four numbers x0 y0 x1 y1 in pixels ({error})"
        ) from error


def read_box_file(path: Path) -> Box:
    """A file of one box or region: four numbers, one a line or on one line."""
    return parse_box(read_text(path, "box file"), str(path))


def box_in(numbers: Sequence[float], frame: Frame, where: str, may_leave: bool = False) -> Box:
    """Four numbers => the box that they mean, inside the picture as shown; a warning if they are no corners.

    `may_leave`: it may reach beyond the picture, and is not clipped. ValueError if the numbers mean nothing,
    or more than one thing.
    """
    x0, y0, x1, y1 = numbers
    given = Given((x0, y0, x1, y1), frame, f"{where} {_text(numbers)}")
    how = convention([given])
    x0, y0, x1, y1 = box = given.read_as(how)
    if not may_leave or x0 >= x1 or y0 >= y1:
        box = clipped_box(given, how)
    _warn([given], how)
    return box


def convention(every: Sequence[Given], overhang: float = OVERHANG) -> str:
    """How numbers that were made together are meant: a key of `READINGS`.

    Corners if these fit all pictures, else the one other reading that fits all. Whatever may be x y width
    height, from a corner or the centre, may be swapped corners, too, or a slip, so it is never read.
    """
    fitting = [how for how in READINGS if all(given.fits(how, overhang) for given in every)]
    return fitting[0] if len(fitting) == 1 and fitting[0] not in (SIZED, CENTRED) else CORNERS


def clipped_box(given: Given, how: str, overhang: float = OVERHANG) -> Box:
    """The box, clipped to the picture; ValueError if it is none, with what else may be meant."""
    x0, y0, x1, y1 = box = given.clipped(how)
    if given.fits(how, overhang):
        if min(x1 - x0, y1 - y0) < 1:
            raise ValueError(f"{given.where}: less than a pixel wide or high, {_text(box)}; {BOX_FORMAT}")
        return box
    width, height = given.frame.shown
    may = [other for other in READINGS if given.fits(other, overhang)]
    meant = " or ".join(f"{_text(given.clipped(other))} ({other})" for other in may)
    if min(given.numbers[2] - given.numbers[0], given.numbers[3] - given.numbers[1]) > 0:
        inside = f"inside it is {_text(box)}" if x0 < x1 and y0 < y1 else "correct the box"
        said = f"outside the picture, which is {width} x {height} pixels as viewers show it; {inside}"
    else:
        said = "an empty box, x0 < x1 and y0 < y1 are needed"
    raise ValueError(f"{given.where}: {said}" + (f"; is {meant} meant?" if meant else ""))


def read_boxes(
    files: Mapping[Path, Frame | None],
    root: Path,
    faults: list[str],
    slips: Counter[str] | None = None,
    others: Mapping[Path, Frame] = MappingProxyType({}),
) -> dict[Path, tuple[Box, ...]]:
    """The boxes of a folder's files, each with the frame of its picture (None: unreadable, boxes unknown).

    All files follow one convention, and so do `others`, which are read only to find it. Each bad line, and a
    file without a line, is added to `faults`. With `slips`, these are counted there instead: a box up to 3 px
    outside, a fifth number, an empty file.
    """
    read = {path: _read_lines(path, frame, root, faults, slips) for path, frame in files.items()}
    every = [given for lines in read.values() for given in lines]
    more = [given for path, frame in others.items() for given in _read_lines(path, frame, path.parent, [])]
    overhang = OVERHANG if slips is None else ROUGH_OVERHANG
    how = convention([*every, *more], overhang)
    boxes: dict[Path, tuple[Box, ...]] = {}
    for path, lines in read.items():
        found = []
        for given in lines:
            try:
                found.append(clipped_box(given, how, overhang))
            except ValueError as error:
                faults.append(str(error))
            else:
                if slips is not None and given.beyond(how) > OVERHANG:
                    slips[CLIPPED] += 1
        boxes[path] = tuple(found)
    _warn(every, how, f"{root}: ")
    return boxes


def _read_lines(
    path: Path, frame: Frame | None, root: Path, faults: list[str], slips: Counter[str] | None = None
) -> list[Given]:
    """The lines of a box file, as numbers; what is no box is added to `faults`."""
    name = path.relative_to(root).as_posix()
    try:
        text = read_text(path)
    except ValueError as error:
        faults.append(f"{name}{str(error).removeprefix(str(path))}")
        return []
    lines = [(number, line.strip()) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
    if not lines and slips is not None:
        slips[NO_BOX] += 1
    elif not lines:
        faults.append(f"{name}: no box; {BOX_FORMAT}")
    found = []
    for number, line in lines:
        where = f"{name}: line {number}, {line[:80]!r}"
        try:
            numbers = _four(numbers_of(line), slips)
        except ValueError as error:
            faults.append(f"{where}: {error}; {BOX_FORMAT}")
            continue
        if frame is not None:
            found.append(Given(numbers, frame, where))
    return found


def _four(numbers: Numbers, slips: Counter[str] | None = None) -> Box:
    """The four numbers of a line; a line of YOLO (class, centre and size as shares) as corners, as shares."""
    if len(numbers) == 5:
        kind, x0, y0, x1, y1 = numbers[0], *_around(*numbers[1:])
        if kind == int(kind) >= 0 and x0 < x1 and y0 < y1 and min(x0, y0, 1 - x1, 1 - y1) >= -SHARE_OVERHANG:
            return x0, y0, x1, y1
        if slips is not None:
            slips[FIFTH] += 1
            numbers = numbers[:4]
    if len(numbers) != 4:
        raise ValueError(f"{len(numbers)} values, expected 4")
    x0, y0, x1, y1 = numbers
    return x0, y0, x1, y1


def _warn(every: Sequence[Given], how: str, prefix: str = "") -> None:
    """Say how numbers are read that are no corners in pixels, and where a turned picture leaves doubt."""
    odd = [given for given in every if given.shares]
    if odd:
        _say(odd, how, prefix, "shares of the picture" + (f", {how}" if how != CORNERS else ""))
    elif how != CORNERS:
        odd = [given for given in every if given.read_as(how) != given.read_as(CORNERS)]
        _say(odd, how, prefix, how)
    turned = [given for given in every if given.frame.orientation > 1] if prefix and how == CORNERS else []
    if turned and all(given.fits(STORED, OVERHANG) for given in turned):
        first = turned[0].where.split(",")[0]
        warnings.warn(
            f"{prefix}{len(turned)} boxes of pictures that EXIF turns, like {first}: they count in the "
            "picture as viewers show it; correct them if they were drawn in the stored one",
            stacklevel=4,
        )


def _say(odd: Sequence[Given], how: str, prefix: str, what: str) -> None:
    first = odd[0]
    more = f" ({len(odd)} boxes in all)" if len(odd) > 1 else ""
    warnings.warn(f"{prefix}{first.where}: read as {what}: {_text(first.clipped(how))}{more}", stacklevel=5)


def _text(numbers: Sequence[float]) -> str:
    return " ".join(f"{value:.6g}" for value in numbers)


def pixel_box(box: Box, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """The smallest box of whole pixels around `box`, inside the picture: x0 y0 x1 y1, the ends exclusive."""
    x0, y0, x1, y1 = box
    height, width = size
    return (
        max(math.floor(x0), 0),
        max(math.floor(y0), 0),
        min(math.ceil(x1), width),
        min(math.ceil(y1), height),
    )
