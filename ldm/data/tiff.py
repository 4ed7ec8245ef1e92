"""A TIFF writer for 8 and 16 bits a channel with profile, EXIF and resolution; Pillow writes 8 bits only.

Baseline TIFF: little-endian, interleaved strips, horizontal differencing, deflate. Pillow lays out the tags.
"""

from __future__ import annotations

import zlib
from typing import BinaryIO

import numpy as np
from PIL.ExifTags import IFD
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from ldm.data.exif import load_exif
from ldm.data.picture import Picture

STRIP_BYTES = 1 << 20
DEFLATE, DIFFERENCING, INCH = 8, 2, 2
GREY, RGB, STRAIGHT_ALPHA = 1, 2, 2


def write_tiff(file: BinaryIO, picture: Picture) -> None:
    """Write a picture to an open, empty binary file."""
    height, width = picture.size
    rows = max(1, STRIP_BYTES // (width * picture.pixels[0, 0].nbytes))
    strips = [_deflate(picture.pixels[y : y + rows]) for y in range(0, height, rows)]
    tags = _photo_tags(picture)
    tags[256], tags[257], tags[259], tags[317] = width, height, DEFLATE, DIFFERENCING
    tags[278], tags[279] = rows, tuple(len(strip) for strip in strips)
    tags[273] = tuple(
        int(start) for start in np.cumsum([0, *map(len, strips[:-1])])
    )  # Pillow adds the header's length
    tags.save(file)
    for strip in strips:
        file.write(strip)


def _deflate(rows: np.ndarray) -> bytes:
    steps = rows.copy()
    steps[:, 1:] -= rows[:, :-1]  # modulo 2^bits, as TIFF's predictor 2 wants it
    return zlib.compress(steps.astype(steps.dtype.newbyteorder("<")).tobytes(), 6)


def _photo_tags(picture: Picture) -> ImageFileDirectory_v2:
    tags, n = ImageFileDirectory_v2(), picture.pixels.shape[2]
    exif = load_exif(picture.exif)
    for tag in exif:
        tags[tag] = exif.get_ifd(tag) if tag in (IFD.Exif, IFD.GPSInfo) else exif[tag]
    tags[258], tags[277] = (picture.pixels.itemsize * 8,) * n, n
    tags[262] = GREY if picture.n_colours == 1 else RGB
    if n in (2, 4):
        tags[338] = STRAIGHT_ALPHA
    if picture.icc_profile:
        tags[34675] = picture.icc_profile
    if picture.dpi:
        tags[282], tags[283], tags[296] = *picture.dpi, INCH
    return tags
