"""Read picture files: at their own depth for backgrounds, as 8-bit RGB for training and references.

In: PNG, TIFF, JPEG, WebP, BMP, GIF, AVIF, and HEIC with the extra `heic`. Out: `Picture` with
alpha, profile, EXIF and dpi, and its views: RGB and alpha (uint8). RGB is sRGB: profiles are applied here.
A picture is never converted to floats as a whole: 100 megapixels would be 1.2 GB.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError

from ldm.data.boxes import Frame
from ldm.data.colour_space import (
    ColourSpace,
    Convert,
    colour_space,
    profile_fault,
    srgb_converter,
    stated_profile,
)
from ldm.data.exif import is_adobe_rgb, orientation, photo_exif, upright

FORMATS = ("PNG", "TIFF", "JPEG", "WEBP", "BMP", "GIF", "AVIF")
HEIC = (b"heic", b"heix", b"heim", b"heis", b"hevc")  # brands, one of which is in such a file's first bytes
SEPARATED = ("CMYK", "LAB")  # colour modes that only a profile, or none, leads to RGB
MODES = {"1": "L", "L": "L", "LA": "LA", "RGB": "RGB", "RGBA": "RGBA", "P": "RGB", "PA": "RGBA"}
ROWS = 256  # converted at once
GREY = 128  # behind transparent pixels: mid-grey is (almost) 0 in [-1,1]
TINT = 16  # levels between the channels of a palette's colour: up to it, a shade of grey
OPAQUE = 127  # more opaque pixels belong to the object
ADOBE_RGB, AS_SRGB = "its EXIF block says Adobe RGB, but it has no profile", "its colours are taken as sRGB"
MIN_TRANSPARENT = 0.01  # share of a picture: with less of it transparent, its alpha is no silhouette


@dataclass(frozen=True, eq=False)
class Picture:
    """Upright pixels [H,W,C], uint8 or uint16, C = 1 grey, 2 grey + alpha, 3 RGB, 4 RGBA.

    Their colours are those of the profile; without one, sRGB. `colour_fault`: what is wrong with what the
    file says of them, and how they are taken instead; "" if nothing is.
    """

    pixels: np.ndarray
    icc_profile: bytes | None = None
    exif: bytes | None = None
    dpi: tuple[float, float] | None = None
    turn: int = 1  # the file's EXIF orientation, which is undone in `pixels`
    colour_fault: str = ""

    def __post_init__(self) -> None:
        assert self.pixels.ndim == 3 and 1 <= self.pixels.shape[2] <= 4, f"not [H,W,C]: {self.pixels.shape}"
        assert self.pixels.dtype in (np.uint8, np.uint16), f"neither 8 nor 16 bits: {self.pixels.dtype}"

    @property
    def size(self) -> tuple[int, int]:
        """(H, W)."""
        return self.pixels.shape[0], self.pixels.shape[1]

    @property
    def frame(self) -> Frame:
        """Size and orientation of the stored picture."""
        height, width = self.size if self.turn <= 4 else self.size[::-1]
        return Frame(width, height, self.turn)

    @property
    def n_colours(self) -> int:
        """1 for grey, 3 for RGB; an alpha channel comes after them."""
        return 1 if self.pixels.shape[2] <= 2 else 3

    @property
    def space(self) -> ColourSpace | None:
        """What its colours are; None: sRGB."""
        return colour_space(self.icc_profile, self.n_colours)


def read_picture(path: Path, convert: bool = False) -> Picture:
    """A picture file => `Picture`, upright, palette expanded, depth kept; 16-bit grey + alpha comes as RGBA.

    `convert`: other colour modes (CMYK, Lab) are converted to sRGB, and of an animation the first frame is
    read, with a warning; else they are refused, because they cannot be written back as they were. Raises
    FileNotFoundError if the file is missing and ValueError if it is unreadable or of another kind.
    """
    path = Path(path)
    with _one_line_errors(path):
        picture, turn = _opened(path, convert)
        if not picture.pixels.size:
            picture = replace(picture, pixels=upright(_read_deep(path), turn))
    fault = profile_fault(picture.icc_profile, picture.n_colours)
    return replace(picture, colour_fault=f"{fault}; {AS_SRGB}") if fault else picture


def warn_of_colours(path: Path, picture: Picture) -> None:
    """Warn if a picture's colours are taken otherwise than its file may mean."""
    if picture.colour_fault:
        warnings.warn(f"{path}: {picture.colour_fault}", stacklevel=2)


@dataclass(frozen=True)
class Header:
    """What a picture file's header says: upright width and height, bits a channel, profile."""

    width: int
    height: int
    bits: int
    icc_profile: bytes | None


def read_header(path: Path, convert: bool = False) -> Header:
    """The header of a picture file that `read_picture` can read, without its pixels; raises as it does."""
    with _one_line_errors(path), path.open("rb") as raw, Image.open(raw, formats=_formats(path)) as file:
        _check(path, file, convert)
        width, height = file.size if orientation(file) < 5 else file.size[::-1]
        return Header(width, height, 16 if _is_deep(path, file) else 8, file.info.get("icc_profile"))


def read_frame(path: Path) -> Frame:
    """Decode a whole picture file => its size as stored and its orientation; raises as `read_picture`."""
    with _one_line_errors(path), path.open("rb") as raw, Image.open(raw, formats=_formats(path)) as file:
        _check(path, file, convert=True)
        turn = orientation(file)  # before a TIFF is loaded: Pillow turns it, and forgets
        file.load()
        return Frame(*(file.size[::-1] if file.format == "TIFF" and turn > 4 else file.size), turn)


def read_rgb(path: Path) -> np.ndarray:
    """A picture file => sRGB, uint8 [H,W,3], upright, transparent pixels over mid-grey.

    Raises as `read_picture`; warns if its colours are in doubt.
    """
    picture = read_picture(path, convert=True)
    warn_of_colours(path, picture)
    return rgb_over_grey(picture)


def read_alpha(path: Path) -> np.ndarray | None:
    """A picture file's alpha, uint8 [H,W]; None if it is (almost) opaque. Raises as `read_picture`."""
    return _alpha(read_picture(path, convert=True))


def read_labels(path: Path) -> np.ndarray | None:
    """The indices of a palette picture, uint8 [H,W], upright; None if it is none, or its colours are shades.

    Its colour 0 is black, as in label maps (PASCAL VOC). Raises as `read_picture`.
    """
    with _one_line_errors(path), path.open("rb") as raw, Image.open(raw, formats=_formats(path)) as file:
        if file.mode != "P" or file.palette is None:
            return None
        file.load()
        used = np.flatnonzero(file.histogram())
        palette = np.array(file.getpalette("RGB"), np.uint8).reshape(-1, 3)[used]
        if used[0] != 0 or palette[0].any() or (np.ptp(palette.astype(int), axis=1) <= TINT).all():
            return None
        return upright(np.asarray(file), orientation(file))


def rgb_over_grey(picture: Picture) -> np.ndarray:
    """A picture of any depth => sRGB, uint8 [H,W,3], transparent pixels over mid-grey."""
    rgb, n = srgb_pixels(picture), picture.n_colours
    if picture.pixels.shape[2] == n:
        return rgb
    layer = Image.fromarray(np.concatenate([rgb, eight_bits(picture.pixels[..., n:])], axis=2))
    ground = Image.new("RGBA", layer.size, (GREY, GREY, GREY, 255))
    return np.array(Image.alpha_composite(ground, layer).convert("RGB"))


def srgb_pixels(picture: Picture) -> np.ndarray:
    """A picture's colours as sRGB, uint8 [H,W,3], a copy; alpha is left out, 16 bits are rounded."""
    shown, space = np.empty((*picture.size, 3), np.uint8), picture.space
    for y in range(0, len(shown), ROWS):
        rows = picture.pixels[y : y + ROWS, :, : picture.n_colours]
        if space is None:
            shown[y : y + ROWS] = eight_bits(rows)
        elif rows.dtype == np.uint8:
            strip = Image.fromarray(rows[..., 0] if rows.shape[2] == 1 else np.ascontiguousarray(rows))
            shown[y : y + ROWS] = np.asarray(space.forth(strip))
        else:
            levels = space.to_srgb(rows / np.iinfo(rows.dtype).max)
            shown[y : y + ROWS] = np.rint(levels.clip(0, 1) * 255)
    return shown


def eight_bits(pixels: np.ndarray) -> np.ndarray:
    """Pixels of either depth => uint8; 16 bits are rounded."""
    return pixels if pixels.dtype == np.uint8 else (pixels / 257).round().astype(np.uint8)


@contextmanager
def _one_line_errors(path: Path) -> Iterator[None]:
    """What readers raise on a bad file => FileNotFoundError or ValueError in one line, with the remedy."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such picture file")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # 100 megapixels are welcome
            yield
    except Image.DecompressionBombError as error:
        raise ValueError(
            f"{path}: {_megapixels(error)} megapixels are too many; give a smaller picture"
        ) from error
    except UnidentifiedImageError as error:
        raise ValueError(f"{path}: not a readable picture; save it as PNG, TIFF, JPEG or WebP") from error
    except (OSError, SyntaxError, cv2.error) as error:
        raise ValueError(f"{path}: broken picture ({error}); save it again") from error


def _alpha(picture: Picture) -> np.ndarray | None:
    if picture.pixels.shape[2] == picture.n_colours:
        return None
    alpha = eight_bits(picture.pixels[..., -1])
    return alpha if (alpha <= OPAQUE).mean() > MIN_TRANSPARENT else None


def _opened(path: Path, convert: bool) -> tuple[Picture, int]:
    """The picture as Pillow reads it, and its orientation; without pixels if 16 bits: OpenCV reads those.

    Pillow's own copy is freed when this returns.
    """
    # not by name: Pillow maps some files of a name into memory, and then does not turn sideways TIFFs
    with path.open("rb") as raw, Image.open(raw, formats=_formats(path)) as file:
        _check(path, file, convert)
        shown = orientation(file)
        turn = 1 if file.format == "TIFF" else shown  # Pillow and OpenCV turn TIFFs themselves
        exif, dpi, icc = photo_exif(file), file.info.get("dpi"), stated_profile(file, path)
        fault = f"{ADOBE_RGB}; {AS_SRGB}" if icc is None and is_adobe_rgb(file) else ""
        if _is_deep(path, file):
            pixels = np.empty((0, 0, 1), np.uint16)
        elif file.mode in SEPARATED:
            convert_strip, fault = _to_srgb(file.mode, icc)
            icc, pixels = None, upright(_read_shallow(file, convert_strip), turn)
        else:
            pixels = upright(_read_shallow(file), turn)
        resolution = (float(dpi[0]), float(dpi[1])) if dpi else None
        return Picture(pixels, icc, exif, resolution, shown, fault), turn


def _to_srgb(mode: str, icc: bytes | None) -> tuple[Convert, str]:
    """What converts the strips of a CMYK or Lab picture, and what is wrong with it."""
    fault = "CMYK without a colour profile"
    if icc is not None or mode != "CMYK":
        try:
            return srgb_converter(icc, mode), ""
        except ValueError as error:
            fault = str(error)
    return lambda strip: strip.convert("RGB"), f"{fault}; its colours are converted by a plain formula"


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


def _check(path: Path, file: Image.Image, convert: bool) -> None:
    frames = getattr(file, "n_frames", 1)
    if frames > 1 and file.format != "MPO":  # MPO: a phone's JPEG with a preview behind it
        if not convert:
            raise ValueError(
                f"{path}: animated or of several pages ({frames}); save the one you mean by itself"
            )
        warnings.warn(f"{path}: animated or of several pages, the first of {frames} is taken", stacklevel=5)
    if file.mode in ("I", "F") and not _is_deep(path, file):
        raise ValueError(f"{path}: 32 bits a channel, of unknown range; save it with 8 or 16 bits")
    if file.mode not in MODES and not convert and not _is_deep(path, file):
        raise ValueError(f"{path}: colour mode {file.mode} is none of grey, RGB, palette; convert it to RGB")
    if _is_deep(path, file) and file.format == "TIFF":
        tags = file.tag_v2  # type: ignore[attr-defined]
        if tags.get(284, 1) != 1 or tags.get(262) not in (1, 2):
            raise ValueError(
                f"{path}: 16-bit TIFF of separate planes or inverted; save it as interleaved RGB"
            )


def _is_deep(path: Path, file: Image.Image) -> bool:
    """Whether there are 16 bits a channel, by a PNG's header or a TIFF's tag 258: Pillow's mode may say 8."""
    if file.format == "PNG":
        with path.open("rb") as raw:
            return raw.read(25)[24] == 16
    if file.format == "TIFF":
        bits = file.tag_v2.get(258, (1,))  # type: ignore[attr-defined]
        return set(bits) == {16} and file.tag_v2.get(339, (1,))[0] == 1  # type: ignore[attr-defined]
    return False


def _read_deep(path: Path) -> np.ndarray:
    with Image.open(path) as file:
        sideways = file.format == "TIFF" and orientation(file) >= 5  # turned by OpenCV, which needs a copy
    if sideways:
        stored = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED)
    else:  # with dst None, imread returns its own array, not a copy
        stored = cv2.imread(str(path), None, cv2.IMREAD_UNCHANGED)
    if stored is None or stored.dtype != np.uint16:
        raise ValueError(f"{path}: this kind of 16-bit picture is not readable; save it as 16-bit RGB PNG")
    if stored.ndim == 2:
        return stored[..., None]
    for y in range(0, len(stored), ROWS):  # in place: 100 megapixels are 600 MB
        stored[y : y + ROWS, :, [0, 2]] = stored[y : y + ROWS, :, [2, 0]]
    return stored


def _read_shallow(file: Image.Image, convert: Convert | None = None) -> np.ndarray:
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
