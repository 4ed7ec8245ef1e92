"""Open picture files and decode their pixels: which kinds are read, at which depth, and what is refused.

Everything is strip by strip or in place: a picture may have 100 megapixels.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError

from ldm.data.colour_space import GREY_ALPHA, Convert, png_header
from ldm.data.exif import BROKEN
from ldm.data.failure import check_file, naming_failure, out_of_memory
from ldm.data.files import UNREAD_SUFFIXES, foreign_kind

FORMATS = ("PNG", "TIFF", "JPEG", "WEBP", "BMP", "GIF", "AVIF")
HEIC = (b"heic", b"heix", b"heim", b"heis", b"hevc")  # brands, one of which is in such a file's first bytes
MODES = {"1": "L", "L": "L", "LA": "LA", "RGB": "RGB", "RGBA": "RGBA", "P": "RGB", "PA": "RGBA"}
ROWS = 256  # converted at once
BROKEN_PICTURE = (*BROKEN, cv2.error)  # what readers raise on a broken file


@contextmanager
def opened(path: Path) -> Iterator[Image.Image]:
    """A picture file, opened by Pillow; errors, also of the block, are those of `one_line_errors`.

    Not by name: Pillow maps some files of a name into memory, and then does not turn sideways TIFFs.
    """
    with one_line_errors(path), path.open("rb") as raw, Image.open(raw, formats=_formats(path)) as file:
        yield file


@contextmanager
def one_line_errors(path: Path) -> Iterator[None]:
    """What readers raise on a bad file => FileNotFoundError or ValueError in one line, with the remedy."""
    check_file(path, "a picture file")
    try:
        with naming_failure(path), warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # 100 megapixels are welcome
            yield
    except Image.DecompressionBombError as error:
        raise ValueError(
            f"{path}: {_megapixels(error)} megapixels are too many; give a smaller picture"
        ) from error
    except UnidentifiedImageError as error:
        kind = foreign_kind(path) or "not a readable picture"
        remedy = "" if "; " in kind else "; save it as PNG, TIFF, JPEG or WebP"
        raise ValueError(f"{path}: {kind}{remedy}") from error
    except BROKEN_PICTURE as error:
        system = isinstance(error, OSError) and error.errno is not None  # not the reader's, which have none
        if system or out_of_memory(error) or str(path) in str(error):
            raise
        large = "MAX_TEXT_CHUNK" in str(error)
        remedy = "its profile or a text in it has over 1 MB, save it without" if large else "save it again"
        raise ValueError(f"{path}: broken picture ({error}); {remedy}") from error


def _megapixels(error: Exception) -> str:
    """Of the message 'Image size (182000000 pixels) exceeds ...' the size in millions."""
    digits = re.search(r"\d+", str(error))
    return f"{int(digits.group()) / 1e6:.0f}" if digits else "so many"


def _formats(path: Path) -> tuple[str, ...]:
    """The kinds of files that are read; HEIC is one of them if the extra is installed."""
    with path.open("rb") as raw:
        head = raw.read(64)
    if head[4:8] != b"ftyp" or b"avif" in head or not any(brand in head for brand in HEIC):
        return FORMATS
    try:
        from pillow_heif import register_heif_opener
    except ModuleNotFoundError as error:
        raise ValueError(
            f"{path}: HEIC needs the extra `heic`: pip install '.[heic]', or save it as PNG or JPEG"
        ) from error
    register_heif_opener()
    return (*FORMATS, "HEIF")


def check_kind(path: Path, file: Image.Image, convert: bool) -> None:
    """ValueError if an opened file is of a kind that is not read; `convert`: see `read_picture`."""
    if file.format == "TIFF" and path.suffix.lower() in UNREAD_SUFFIXES:
        raise ValueError(f"{path}: a raw photo, whose TIFF part is a preview; save it as 16-bit TIFF or PNG")
    if (frames := pages(file)) > 1:
        if not convert:
            raise ValueError(
                f"{path}: animated or of several pages ({frames}); save the one you mean by itself"
            )
        warnings.warn(f"{path}: animated or of several pages, the first of {frames} is taken", stacklevel=5)
    if file.mode.startswith(("I", "F")) and not is_deep(path, file):  # I;16 may also hold 12 bits
        raise ValueError(f"{path}: neither 8 nor 16 bits a channel, of unknown range; save it with 8 or 16")
    if file.mode not in MODES and not convert and not is_deep(path, file):
        raise ValueError(f"{path}: colour mode {file.mode} is none of grey, RGB, palette; convert it to RGB")
    if file.format == "PNG" and "transparency" in file.info and is_deep(path, file):
        raise ValueError(f"{path}: 16 bits, and one colour is transparent; save it with an alpha channel")
    if is_deep(path, file) and file.format == "TIFF":
        tags = file.tag_v2  # type: ignore[attr-defined]
        if tags.get(284, 1) != 1 or tags.get(262) not in (1, 2):
            raise ValueError(
                f"{path}: 16-bit TIFF of separate planes, inverted, CMYK or Lab; save it as interleaved RGB"
            )


def pages(file: Image.Image) -> int:
    """Frames or pages of an opened file; SyntaxError, as of other damage, if one has no size."""
    if file.format == "MPO":  # a phone's JPEG with a preview behind it
        return 1
    try:
        return getattr(file, "n_frames", 1)
    except TypeError as error:
        raise SyntaxError(str(error)) from error


def is_deep(path: Path, file: Image.Image) -> bool:
    """Whether there are 16 bits a channel, by a PNG's header or a TIFF's tag 258: Pillow's mode may say 8."""
    if file.format == "PNG":
        return png_header(path)[0] == 16
    if file.format == "TIFF":
        bits = file.tag_v2.get(258, (1,))  # type: ignore[attr-defined]
        return set(bits) == {16} and file.tag_v2.get(339, (1,))[0] == 1  # type: ignore[attr-defined]
    return False


def read_deep(path: Path) -> np.ndarray:
    """16-bit pixels, uint16 [H,W,1 or more], RGB in this order; TIFFs are turned upright."""
    with Image.open(path) as file:
        grey_alpha = file.format == "PNG" and png_header(path)[1] == GREY_ALPHA  # RGBA to OpenCV
    # not imread: it turns no TIFF that lies on its side, and a name that is not UTF-8 ends the process
    stored = cv2.imdecode(np.memmap(path, np.uint8, "r"), cv2.IMREAD_UNCHANGED)
    if stored is None or stored.dtype != np.uint16:
        raise ValueError(f"{path}: this kind of 16-bit picture is not readable; save it as 16-bit RGB PNG")
    if stored.ndim == 2:
        return stored[..., None]
    if grey_alpha:
        return np.ascontiguousarray(stored[..., 2:])
    for y in range(0, len(stored), ROWS):  # in place: 100 megapixels are 600 MB
        stored[y : y + ROWS, :, [0, 2]] = stored[y : y + ROWS, :, [2, 0]]
    return stored


def read_shallow(file: Image.Image, convert: Convert | None = None) -> np.ndarray:
    """8-bit pixels, converted strip by strip: a second whole copy beside Pillow's would take memory."""
    mode = MODES.get(file.mode, "RGB")
    if file.has_transparency_data:
        mode = {"L": "LA", "RGB": "RGBA"}.get(mode, mode)
    pixels = np.empty((file.height, file.width, len(mode)), np.uint8)
    for y in range(0, file.height, ROWS):
        strip = file.crop((0, y, file.width, min(y + ROWS, file.height)))
        strip = strip.convert(mode) if convert is None else convert(strip)
        pixels[y : y + ROWS] = np.asarray(strip).reshape(strip.height, strip.width, -1)
    return pixels
