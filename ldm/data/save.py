"""Write pictures without loss, and read back the text (the recipe) that was written with them.

PNG and TIFF keep 8 and 16 bits, profile, EXIF and dpi; WebP is lossless and 8 bits only.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import Image, PngImagePlugin

from ldm.data.atomic import atomic_file
from ldm.data.exif import recipe, with_recipe
from ldm.data.picture import Picture
from ldm.data.png import write_png16
from ldm.data.tiff import write_tiff

WEBP_SIDE = 16383


def write_picture(path: Path, picture: Picture, text: Mapping[str, str] | None = None) -> None:
    """Write atomically, the format by suffix (.png, .tif, .tiff, .webp); `text` is kept with the picture.

    JPEG is refused: it would change every pixel, also those outside the mask.
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


def read_text(path: Path) -> dict[str, str]:
    """The text that `write_picture` put into a file; {} if there is none."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        with Image.open(path) as file:
            if file.format == "PNG":  # its text lies before the pixels, which need not be decoded
                return {str(key): str(value) for key, value in file.info.items() if isinstance(value, str)}
            return recipe(file.getexif())


def _write_png(file: BinaryIO, picture: Picture, text: Mapping[str, str]) -> None:
    options = _options(picture) | {"pnginfo": _png_text(text), "dpi": picture.dpi}
    if picture.pixels.dtype == np.uint8:
        _pillow(picture.pixels).save(file, "PNG", **options)
    else:
        write_png16(file, picture.pixels, options)


def _write_tiff(file: BinaryIO, picture: Picture, text: Mapping[str, str]) -> None:
    pixels = picture.pixels
    if pixels.dtype == np.uint16 and pixels.shape[2] == 2:
        pixels = pixels[..., [0, 0, 0, 1]]  # few programs read 16-bit grey + alpha in TIFF
    write_tiff(file, replace(picture, pixels=pixels, exif=with_recipe(picture.exif, text)))


def _write_webp(file: BinaryIO, picture: Picture, text: Mapping[str, str]) -> None:
    exif = with_recipe(picture.exif, text)
    options = _options(replace(picture, exif=exif))
    # exact: colours under full transparency are pixels too
    _pillow(picture.pixels).save(file, "WEBP", lossless=True, exact=True, **options)


def _check_webp(path: Path, picture: Picture) -> None:
    if picture.pixels.dtype != np.uint8 or max(picture.size) > WEBP_SIDE:
        height, width = picture.size
        bits = picture.pixels.itemsize * 8
        raise ValueError(
            f"{path}: {width} x {height} px of {bits} bits does not fit into WebP "
            f"(8 bits, {WEBP_SIDE} px a side); use .png or .tif"
        )


def _options(picture: Picture) -> dict[str, Any]:
    found = {"icc_profile": picture.icc_profile, "exif": picture.exif}
    return {key: value for key, value in found.items() if value}


def _png_text(text: Mapping[str, str]) -> PngImagePlugin.PngInfo:
    info = PngImagePlugin.PngInfo()
    for key, value in text.items():
        info.add_text(key, value)  # turns to iTXt where Latin-1 does not suffice
    return info


def _pillow(pixels: np.ndarray) -> Image.Image:
    return Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
