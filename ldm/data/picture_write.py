"""Write pictures as PNG, which keeps 8 and 16 bits, profile, EXIF and dpi; read back what text they hold."""

from __future__ import annotations

import struct
import warnings
import zlib
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import Image, PngImagePlugin

from ldm.data.colour_space import SIGNATURE
from ldm.data.files import atomic_file
from ldm.data.picture import Picture


def write_picture(path: Path, picture: Picture, text: Mapping[str, str] | None = None) -> None:
    """Write a .png atomically, with embedded `text` (the recipe); other kinds are refused."""
    path = Path(path)
    if path.suffix.lower() != ".png":
        raise ValueError(f"{path}: pictures are written as .png, which loses nothing; give such a name")
    kept = {"icc_profile": picture.icc_profile, "exif": picture.exif}
    options: dict[str, Any] = {key: value for key, value in kept.items() if value}
    options |= {"pnginfo": _png_text(text or {}), "dpi": picture.dpi}
    with atomic_file(path) as file:
        if picture.pixels.dtype == np.uint8:
            pixels = picture.pixels
            Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels).save(file, "PNG", **options)
        else:
            write_png16(file, picture.pixels, options)


def embedded_text(path: Path) -> dict[str, str]:
    """The text that `write_picture` embedded in a file; {} if there is none."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        with Image.open(path) as file:  # text is stored before the pixels, which are not decoded
            found = file.info.items() if file.format == "PNG" else ()
            return {str(key): str(value) for key, value in found if isinstance(value, str)}


def _png_text(text: Mapping[str, str]) -> PngImagePlugin.PngInfo:
    info = PngImagePlugin.PngInfo()
    for key, value in text.items():
        info.add_text(key, value)  # becomes iTXt if Latin-1 does not suffice
    return info


STRIP_BYTES = 1 << 20
COLOUR_TYPES = {1: 0, 2: 4, 3: 2, 4: 6}  # by channels
HEADER_END = 8 + 25  # signature and header chunk
LEFT = 1  # the PNG filter Sub: each byte minus that of the pixel to its left


def write_png16(file: BinaryIO, pixels: np.ndarray, options: Mapping[str, Any]) -> None:
    """Write uint16 pixels [H,W,C] with Pillow's PNG `options` (pnginfo, icc_profile, exif, dpi)."""
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
    """The chunks that Pillow writes between header and pixels, taken from a picture of one pixel."""
    stub = BytesIO()
    Image.new("L", (1, 1)).save(stub, "PNG", **options)
    png, end = stub.getvalue(), HEADER_END
    while png[end + 4 : end + 8] != b"IDAT":
        end += 12 + int.from_bytes(png[end : end + 4], "big")
    return png[HEADER_END:end]


def _chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
