"""EXIF blocks: tags of the photograph are kept, tags of the file's layout dropped.

In: a file opened by Pillow. Out: bytes for Pillow's `exif=`, without orientation.
"""

from __future__ import annotations

import struct
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image
from PIL.ExifTags import IFD, Base

# A TIFF's first directory mixes strips and sizes with the camera's name; these describe the photograph.
PHOTO_TAGS = (269, 270, 271, 272, 305, 306, 315, 316, 0x4746, 33432, *range(40091, 40096))
STALE = (Base.ExifImageWidth, Base.ExifImageHeight, Base.ExifInteroperabilityOffset)
ADOBE_RGB = 2  # as a colour space; by the standard it is 65535 with the index R03
# what Pillow raises on a broken block
BROKEN = (ValueError, TypeError, AttributeError, KeyError, SyntaxError, OSError, struct.error)


def orientation(file: Image.Image) -> int:
    """EXIF orientation of the stored pixels: 1 (upright) .. 8; of a broken block 1."""
    try:
        value = file.getexif().get(Base.Orientation, 1)
    except BROKEN:
        return 1
    return value if value in range(1, 9) else 1


def is_adobe_rgb(file: Image.Image) -> bool:
    """Whether a camera wrote Adobe RGB: the colour space of the block, or its interoperability index R03."""
    try:
        exif = file.getexif()
        space = exif.get_ifd(IFD.Exif).get(Base.ColorSpace)
        return space == ADOBE_RGB or exif.get_ifd(IFD.Interop).get(Base.InteropIndex) == "R03"
    except BROKEN:
        return False


def upright_pixels(pixels: np.ndarray, turn: int) -> np.ndarray:
    """Turn stored pixels [H,W,...] upright; `turn`: EXIF orientation, 1..8."""
    if turn >= 5:
        pixels = pixels.swapaxes(0, 1)
    if turn in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if turn in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)


def photo_exif(file: Image.Image) -> bytes | None:
    """A file's EXIF block without orientation and layout; None if nothing is left."""
    try:
        return _block(_tags(file.getexif()))
    except BROKEN as error:
        warnings.warn(f"the picture's EXIF block is broken and is left out ({error})", stacklevel=3)
        return None


def _tags(exif: Image.Exif) -> dict[int, Any]:
    tags: dict[int, Any] = {tag: exif[tag] for tag in PHOTO_TAGS if tag in exif}
    photo = {tag: value for tag, value in exif.get_ifd(IFD.Exif).items() if tag not in STALE}
    place = dict(exif.get_ifd(IFD.GPSInfo))
    return tags | ({IFD.Exif: photo} if photo else {}) | ({IFD.GPSInfo: place} if place else {})


def _block(tags: Mapping[int, Any]) -> bytes | None:
    block = Image.Exif()
    for tag, value in tags.items():
        block[tag] = value
    return block.tobytes() if tags else None
