"""Read picture files: at their own depth for backgrounds, as 8-bit RGB for training and references.

In: PNG, TIFF, JPEG, WebP, BMP, GIF, AVIF, and HEIC with the extra `heic`. Out: `Picture` with
alpha, profile, EXIF and dpi, and its views: RGB and alpha (uint8). RGB is sRGB: profiles are applied here.
A picture is never converted to floats as a whole: 100 megapixels would be 1.2 GB.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image

from ldm.data.boxes import Frame
from ldm.data.colour_space import (
    ColourSpace,
    Convert,
    colour_space,
    profile_fault,
    srgb_converter,
    stated_profile,
)
from ldm.data.exif import is_adobe_rgb, orientation, photo_exif, upright_pixels
from ldm.data.picture_decode import (
    ROWS,
    check_kind,
    is_deep,
    one_line_errors,
    opened,
    read_deep,
    read_shallow,
)

SEPARATED = ("CMYK", "LAB")  # colour modes that only a profile, or none, leads to RGB
GREY = 128  # behind transparent pixels: mid-grey is (almost) 0 in [-1,1]
TINT = 16  # levels between the channels of a palette's colour: up to it, a shade of grey
OPAQUE = 127  # more opaque pixels belong to the object
ADOBE_RGB, AS_SRGB = "its EXIF block says Adobe RGB, but it has no profile", "its colours are taken as sRGB"
MOST_DPI = 1e6  # PNG holds no more than 1e8
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
    """A picture file => `Picture`, upright, palette expanded, depth kept.

    `convert`: other colour modes (CMYK, Lab) are converted to sRGB, and of an animation the first frame is
    read, with a warning; else they are refused, because they cannot be written back as they were. Raises
    FileNotFoundError if the file is missing and ValueError if it is unreadable or of another kind.
    """
    path = Path(path)
    with one_line_errors(path):
        picture, turn = _decoded(path, convert)
        if not picture.pixels.size:
            picture = replace(picture, pixels=upright_pixels(read_deep(path), turn))
    fault = profile_fault(picture.icc_profile, picture.n_colours)
    return replace(picture, colour_fault=f"{fault}; {AS_SRGB}") if fault else picture


def warn_of_colours(path: Path, picture: Picture) -> None:
    """Warn if a picture's colours are taken otherwise than its file may mean."""
    if picture.colour_fault:
        warnings.warn(f"{path}: {picture.colour_fault}", stacklevel=2)


def read_size(path: Path, convert: bool = False) -> tuple[int, int]:
    """Upright width and height of a file that `read_picture` can read, by its header; raises as it does."""
    with opened(path) as file:
        check_kind(path, file, convert)
        return _stored_frame(file).shown


def read_frame(path: Path, whole: bool = True) -> Frame:
    """A picture file's size as stored and its orientation; raises as `read_picture`.

    `whole`: all of it is decoded, so that damage shows; else its header is enough.
    """
    with opened(path) as file:
        check_kind(path, file, convert=True)
        frame = _stored_frame(file)  # before a TIFF is loaded: then Pillow forgets how it turned it
        if whole:
            file.load()
        return frame


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
    with opened(path) as file:
        if file.mode != "P" or file.palette is None:
            return None
        file.load()
        used = np.flatnonzero(file.histogram())
        palette = np.array(file.getpalette("RGB"), np.uint8).reshape(-1, 3)[used]
        if used[0] != 0 or palette[0].any() or (np.ptp(palette.astype(int), axis=1) <= TINT).all():
            return None
        return upright_pixels(np.asarray(file), orientation(file))


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


def _stored_frame(file: Image.Image) -> Frame:
    """The frame of an opened file; of a TIFF Pillow gives the size as shown."""
    turn = orientation(file)
    return Frame(*(file.size[::-1] if file.format == "TIFF" and turn > 4 else file.size), turn)


def _alpha(picture: Picture) -> np.ndarray | None:
    if picture.pixels.shape[2] == picture.n_colours:
        return None
    alpha = eight_bits(picture.pixels[..., -1])
    return alpha if (alpha <= OPAQUE).mean() > MIN_TRANSPARENT else None


def _decoded(path: Path, convert: bool) -> tuple[Picture, int]:
    """The picture as Pillow reads it, and its orientation; without pixels if 16 bits: OpenCV reads those.

    Pillow's own copy is freed when this returns.
    """
    with opened(path) as file:
        check_kind(path, file, convert)
        shown = orientation(file)
        turn = 1 if file.format == "TIFF" else shown  # Pillow and OpenCV turn TIFFs themselves
        exif, dpi, icc = photo_exif(file), file.info.get("dpi"), stated_profile(file, path)
        fault = f"{ADOBE_RGB}; {AS_SRGB}" if icc is None and is_adobe_rgb(file) else ""
        if is_deep(path, file):
            pixels = np.empty((0, 0, 1), np.uint16)
        elif file.mode in SEPARATED:
            convert_strip, fault = _to_srgb(file.mode, icc)
            icc, pixels = None, upright_pixels(read_shallow(file, convert_strip), turn)
        else:
            pixels = upright_pixels(read_shallow(file), turn)
        return Picture(pixels, icc, exif, _resolution(dpi), shown, fault), turn


def _resolution(dpi: tuple[float, float] | None) -> tuple[float, float] | None:
    """The resolution that a file states; None if it is none that can be written."""
    return (float(dpi[0]), float(dpi[1])) if dpi and all(0 < side <= MOST_DPI for side in dpi) else None


def _to_srgb(mode: str, icc: bytes | None) -> tuple[Convert, str]:
    """What converts the strips of a CMYK or Lab picture, and what is wrong with it."""
    fault = "CMYK without a colour profile"
    if icc is not None or mode != "CMYK":
        try:
            return srgb_converter(icc, mode), ""
        except ValueError as error:
            fault = str(error)
    return lambda strip: strip.convert("RGB"), f"{fault}; its colours are converted by a plain formula"
