"""Write pictures losslessly, and read back the text (the recipe) embedded in them.

PNG and TIFF keep 8 and 16 bits, profile, EXIF and dpi; WebP is lossless and 8 bits only.
"""

from __future__ import annotations

import struct
import warnings
import zlib
from collections.abc import Mapping
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import Image, PngImagePlugin
from PIL.ExifTags import IFD
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from ldm.data.exif import load_exif, recipe, with_recipe
from ldm.data.files import atomic_file
from ldm.data.icc_profile import grey_as_rgb
from ldm.data.picture import Picture

WEBP_SIDE = 16383


def write_picture(path: Path, picture: Picture, text: Mapping[str, str] | None = None) -> None:
    """Write atomically, in the format of the suffix (.png, .tif, .tiff, .webp), with embedded `text`.

    JPEG is refused: it would change pixels outside the mask.
    """
    path = Path(path)
    writers = {".png": _write_png, ".tif": _write_tiff, ".tiff": _write_tiff, ".webp": _write_webp}
    writer = writers.get(path.suffix.lower())
    if writer is None:
        raise ValueError(f"{path}: '{path.suffix}' is no lossless format; use .png, .tif or .webp")
    if writer is _write_webp:
        _check_webp(path, picture)
    with atomic_file(path) as file:
        writer(file, picture, text or {})


def embedded_text(path: Path) -> dict[str, str]:
    """The text that `write_picture` embedded in a file; {} if there is none."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        with Image.open(path) as file:
            if file.format == "PNG":  # its text is stored before the pixels, which are not decoded
                return {str(key): str(value) for key, value in file.info.items() if isinstance(value, str)}
            return recipe(file.getexif())


def _write_png(file: BinaryIO, picture: Picture, text: Mapping[str, str]) -> None:
    options = _options(picture) | {"pnginfo": _png_text(text), "dpi": picture.dpi}
    if picture.pixels.dtype == np.uint8:
        _pillow(picture.pixels).save(file, "PNG", **options)
    else:
        write_png16(file, picture.pixels, options)


def _write_tiff(file: BinaryIO, picture: Picture, text: Mapping[str, str]) -> None:
    if picture.pixels.dtype == np.uint16 and picture.pixels.shape[2] == 2:
        picture = _as_rgb(picture)  # few programs read 16-bit grey + alpha in TIFF
    write_tiff(file, replace(picture, exif=with_recipe(picture.exif, text)))


def _write_webp(file: BinaryIO, picture: Picture, text: Mapping[str, str]) -> None:
    picture = replace(_as_rgb(picture), exif=with_recipe(picture.exif, text))
    options = _options(picture)
    # exact: colours under full transparency are pixels too
    _pillow(picture.pixels).save(file, "WEBP", lossless=True, exact=True, **options)


def _as_rgb(picture: Picture) -> Picture:
    """Grey as three equal channels, for kinds of files without grey."""
    if picture.n_colours == 3:
        return picture
    channels = [0, 0, 0, *range(1, picture.pixels.shape[2])]
    profile = picture.icc_profile and grey_as_rgb(picture.icc_profile)
    return replace(picture, pixels=picture.pixels[..., channels], icc_profile=profile)


def _check_webp(path: Path, picture: Picture) -> None:
    if picture.pixels.dtype != np.uint8 or max(picture.size) > WEBP_SIDE:
        height, width = picture.size
        bits = picture.pixels.itemsize * 8
        raise ValueError(
            f"{path}: {width} x {height} px of {bits} bits does not fit into WebP "
            f"(8 bits, {WEBP_SIDE} px a side); use .png or .tif"
        )


def _options(picture: Picture) -> dict[str, Any]:
    options = {"icc_profile": picture.icc_profile, "exif": picture.exif}
    return {key: value for key, value in options.items() if value}


def _png_text(text: Mapping[str, str]) -> PngImagePlugin.PngInfo:
    info = PngImagePlugin.PngInfo()
    for key, value in text.items():
        info.add_text(key, value)  # becomes iTXt if Latin-1 does not suffice
    return info


def _pillow(pixels: np.ndarray) -> Image.Image:
    return Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)


STRIP_BYTES = 1 << 20
SIGNATURE = b"\x89PNG\r\n\x1a\n"
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


TIFF_STRIP_BYTES = 1 << 20
DEFLATE, DIFFERENCING, INCH = 8, 2, 2
GREY, RGB, STRAIGHT_ALPHA = 1, 2, 2


def write_tiff(file: BinaryIO, picture: Picture) -> None:
    """Write a picture to an open, empty binary file."""
    height, width = picture.size
    rows = max(1, TIFF_STRIP_BYTES // (width * picture.pixels[0, 0].nbytes))
    strips = [_deflate(picture.pixels[y : y + rows]) for y in range(0, height, rows)]
    tags = _photo_tags(picture)
    tags[256], tags[257], tags[259], tags[317] = width, height, DEFLATE, DIFFERENCING
    tags[278], tags[279] = rows, tuple(len(strip) for strip in strips)
    starts = np.cumsum([0, *map(len, strips[:-1])])
    tags[273] = tuple(int(start) for start in starts)  # Pillow adds the header's length
    tags.save(file)
    for strip in strips:
        file.write(strip)


def _deflate(rows: np.ndarray) -> bytes:
    steps = rows.copy()
    steps[:, 1:] -= rows[:, :-1]  # modulo 2^bits, as in TIFF's predictor 2
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
