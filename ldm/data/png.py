"""A writer for 16-bit PNG, strip by strip; Pillow writes 8 bits only, OpenCV no text, profile or dpi."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping
from io import BytesIO
from typing import Any, BinaryIO

import numpy as np
from PIL import Image

STRIP_BYTES = 1 << 20
SIGNATURE = b"\x89PNG\r\n\x1a\n"
COLOUR_TYPES = {1: 0, 2: 4, 3: 2, 4: 6}  # by channels
HEADER_END = 8 + 25  # signature and header chunk
LEFT = 1  # the filter: each byte less that of the pixel to its left


def write_png16(file: BinaryIO, pixels: np.ndarray, options: Mapping[str, Any]) -> None:
    """Write uint16 pixels [H,W,C] with what Pillow's PNG `options` say (pnginfo, icc_profile, exif, dpi)."""
    height, width, channels = pixels.shape
    header = struct.pack(">IIBBBBB", width, height, 16, COLOUR_TYPES[channels], 0, 0, 0)
    file.write(SIGNATURE + _chunk(b"IHDR", header) + _metadata(options))
    deflate, rows = zlib.compressobj(4), max(1, STRIP_BYTES // pixels[0].nbytes)
    for y in range(0, height, rows):
        file.write(_chunk(b"IDAT", deflate.compress(_filtered(pixels[y : y + rows]))))
    file.write(_chunk(b"IDAT", deflate.flush()) + _chunk(b"IEND", b""))


def _filtered(rows: np.ndarray) -> bytes:
    stored = rows.astype(">u2").view(np.uint8).reshape(len(rows), -1)
    step = 2 * rows.shape[2]
    out = np.empty((len(rows), 1 + stored.shape[1]), np.uint8)
    out[:, 0], out[:, 1:] = LEFT, stored
    out[:, 1 + step :] -= stored[:, :-step]
    return out.tobytes()


def _metadata(options: Mapping[str, Any]) -> bytes:
    """The chunks Pillow writes between header and pixels, from a picture of one pixel."""
    stub = BytesIO()
    Image.new("L", (1, 1)).save(stub, "PNG", **options)
    png, end = stub.getvalue(), HEADER_END
    while png[end + 4 : end + 8] != b"IDAT":
        end += 12 + int.from_bytes(png[end : end + 4], "big")
    return png[HEADER_END:end]


def _chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
