"""What a picture's numbers look like: its colours <=> sRGB, by the profile that its file carries.

Everything that a model or a person sees is sRGB; a picture keeps its own numbers and its profile. Floats here
are [...,1] or [...,3], 0 to 1; outside of it are colours that sRGB cannot show.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageCms

from ldm.data.icc_profile import (
    BT709_CURVE,
    D65,
    LEVELS,
    SRGB,
    SRGB_CURVE,
    colour_model,
    make_icc,
    read_icc,
    rgb_matrix,
    tags_of,
)

Convert = Callable[[Image.Image], Image.Image]
MODELS = {1: "GRAY", 3: "RGB"}  # by colour channels
SAME = 1 / 255  # a profile that differs less from sRGB is taken as sRGB
GRID = 17  # levels a channel at which that is measured
SRGB_GAMMA = 0.45455  # what PNG files of sRGB state: close to its curve
GREY, GREY_ALPHA = 0, 4  # colour types of a PNG
SIGNATURE, CHUNKS = b"\x89PNG\r\n\x1a\n", 64  # read at most, before a PNG's pixels
NCLX, NCLX_WITHIN = b"colrnclx", 1 << 16  # the box of AVIF and HEIC that holds code points; bytes searched
BMP_V5, BMP_PROFILE = 124, b"DEBM"  # size of its header; its colours are those of a profile in the file
# code points of cICP and nclx, as in ITU-T H.273
PRIMARIES = {
    1: ("BT.709", SRGB),
    5: ("BT.601, 625 lines", ((0.64, 0.33), (0.29, 0.60), (0.15, 0.06))),
    6: ("BT.601, 525 lines", ((0.630, 0.340), (0.310, 0.595), (0.155, 0.070))),
    9: ("BT.2020", ((0.708, 0.292), (0.170, 0.797), (0.131, 0.046))),
    12: ("Display P3", ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060))),
}
CURVES = {
    **dict.fromkeys((1, 6, 14, 15), BT709_CURVE), 4: (2.2,), 5: (2.8,), 8: (1.0,), 13: SRGB_CURVE,
}  # fmt: skip
UNSPECIFIED = 2  # of primaries or transfer: the chunk says nothing
HDR = {16: "PQ", 18: "HLG"}


@dataclass(frozen=True, eq=False)
class ColourSpace:
    """The colours of one profile; grey pictures have one channel.

    `forth` and `back` convert 8-bit pictures to sRGB, RGB, and back (littleCMS). What this class computes
    with them has 8 bits and ends at the colours of sRGB.
    """

    forth: Convert
    back: Convert

    def to_srgb(self, levels: np.ndarray) -> np.ndarray:
        """Floats [...,c] => sRGB floats [...,c]."""
        return _applied(self.forth, levels)[..., : levels.shape[-1]]

    def from_srgb(self, srgb: np.ndarray) -> np.ndarray:
        """The inverse, except for rounding."""
        return _applied(self.back, srgb.repeat(3, axis=-1) if srgb.shape[-1] == 1 else srgb)


@dataclass(frozen=True, eq=False)
class MatrixSpace(ColourSpace):
    """Curves and a matrix [3,3] to linear sRGB (grey: none): computed exactly, also beyond sRGB."""

    curves: tuple[np.ndarray, ...]
    matrix: np.ndarray | None

    def to_srgb(self, levels: np.ndarray) -> np.ndarray:
        index = np.rint(levels * (LEVELS - 1)).astype(np.int32)
        linear = np.stack([curve[index[..., i]] for i, curve in enumerate(self.curves)], axis=-1)
        return encoded(linear if self.matrix is None else linear @ self.matrix.T)

    def from_srgb(self, srgb: np.ndarray) -> np.ndarray:
        linear, x = decoded(srgb), np.linspace(0, 1, LEVELS)
        if self.matrix is not None:
            linear = linear @ np.linalg.inv(self.matrix).T
        return np.stack([np.interp(linear[..., i], c, x) for i, c in enumerate(self.curves)], axis=-1)


def colour_space(profile: bytes | None, n_colours: int) -> ColourSpace | None:
    """The colours of a picture with this profile; None: sRGB, also if the profile is unusable."""
    return None if profile is None else _space(profile, n_colours)[0]


def profile_fault(profile: bytes | None, n_colours: int) -> str:
    """Why a picture's profile is unusable; "" if it is not."""
    return "" if profile is None else _space(profile, n_colours)[1]


def encoded(linear: np.ndarray) -> np.ndarray:
    """Linear light => sRGB levels; negative values as the negative of positive ones."""
    size = np.abs(linear)
    return np.copysign(np.where(size > 0.0031308, 1.055 * size ** (1 / 2.4) - 0.055, 12.92 * size), linear)


def decoded(srgb: np.ndarray) -> np.ndarray:
    """The inverse of `encoded`."""
    size = np.abs(srgb)
    return np.copysign(np.where(size > 0.04045, ((size + 0.055) / 1.055) ** 2.4, size / 12.92), srgb)


def srgb_converter(profile: bytes | None, mode: str) -> Convert:
    """Converts pictures of Pillow's mode CMYK or LAB to sRGB; ValueError if the profile is unusable."""
    try:
        source: Any = ImageCms.createProfile("LAB") if mode == "LAB" else _opened(profile or b"")
        return _transform(source, ImageCms.createProfile("sRGB"), mode, "RGB")
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError) as error:
        raise ValueError(f"its colour profile is unusable ({error})") from error


def stated_profile(file: Image.Image, path: Path) -> bytes | None:
    """The profile of a file opened by Pillow, made of what else states its colours; b"" if it is damaged.

    As PNG has it, cICP comes before iCCP, sRGB, and gAMA with cHRM; in AVIF and HEIC a profile comes before
    the code points nclx. ValueError for high dynamic range.
    """
    info, kind = file.info, file.format
    if kind == "BMP":
        return _bmp_profile(path)
    if kind in ("AVIF", "HEIF"):
        codes = None if info.get("icc_profile") else _nclx(path)
        return info.get("icc_profile") if codes is None else _coded_profile(path, *codes, file.mode == "L")
    if kind == "PNG" and (code := _png_chunk(path, b"cICP")):
        if len(code) != 4:
            raise ValueError(f"{path}: its cICP chunk is damaged; save it again")
        if code[1] in HDR or UNSPECIFIED not in code[:2]:
            if (code[2], code[3]) != (0, 1):
                raise ValueError(f"{path}: its cICP chunk states Y'CbCr or a narrow range; save it as sRGB")
            return _coded_profile(path, code[0], code[1], png_header(path)[1] in (GREY, GREY_ALPHA))
    if "icc_profile" in info:  # None: Pillow could not put it together
        return info["icc_profile"] or b""
    return _chunks_profile(path, info) if kind == "PNG" and "srgb" not in info else None


def _chunks_profile(path: Path, info: Mapping[Any, Any]) -> bytes | None:
    """A profile of a PNG's gAMA and cHRM; None if they say sRGB, or nothing that is possible."""
    grey = png_header(path)[1] in (GREY, GREY_ALPHA)
    gamma, points = info.get("gamma"), info.get("chromaticity", (*D65, *sum(SRGB, ())))
    if len(points) != 8:
        raise ValueError(f"{path}: its cHRM chunk is damaged; save it again")
    white, primaries = points[:2], tuple(zip(points[2::2], points[3::2], strict=True))
    plain = np.allclose(points, (*D65, *sum(SRGB, ())), atol=0.004)
    if (gamma is None or abs(gamma - SRGB_GAMMA) < 0.002 or not 0.05 < gamma < 5) and (plain or grey):
        return None
    if not min(points) > 0 or not np.linalg.det(np.array([[*p, 1] for p in primaries])):
        return None
    curve = SRGB_CURVE if gamma is None or not 0.05 < gamma < 5 else (1 / gamma,)
    return make_icc("PNG gAMA and cHRM", curve, () if grey else primaries, white)


def _coded_profile(path: Path, primaries: int, transfer: int, grey: bool) -> bytes | None:
    """A profile of code points; None if they say sRGB."""
    if transfer in HDR:
        raise ValueError(f"{path}: of high dynamic range ({HDR[transfer]}); save it with the range of sRGB")
    if primaries not in PRIMARIES or transfer not in CURVES:
        raise ValueError(f"{path}: it states unknown colours ({primaries}, {transfer}); save it as sRGB")
    if (primaries == 1 or grey) and transfer == 13:
        return None
    name, points = PRIMARIES[primaries]
    return make_icc(f"{name}, curve {transfer}", CURVES[transfer], () if grey else points)


def _nclx(path: Path) -> tuple[int, int] | None:
    """The code points of primaries and transfer of an AVIF or HEIC; None if it states none."""
    with path.open("rb") as file:
        head = file.read(NCLX_WITHIN)
    place = head.find(NCLX) + len(NCLX)
    if place < len(NCLX) or len(head) < place + 4:
        return None
    primaries, transfer = struct.unpack_from(">HH", head, place)
    return None if UNSPECIFIED in (primaries, transfer) and transfer not in HDR else (primaries, transfer)


def _bmp_profile(path: Path) -> bytes | None:
    """The profile in a BMP, which Pillow does not read; None if it has none."""
    with path.open("rb") as file:
        head = file.read(14 + BMP_V5)
        if len(head) < 14 + BMP_V5 or struct.unpack_from("<I", head, 14)[0] != BMP_V5:
            return None
        if head[70:74] != BMP_PROFILE:
            return None
        start, size = struct.unpack_from("<II", head, 126)
        file.seek(14 + start)
        return file.read(size)


def png_header(path: Path) -> tuple[int, int]:
    """Bits a channel and colour type of a PNG that Pillow has opened: its mode may say otherwise."""
    header = _png_chunk(path, b"IHDR")
    assert header is not None, "Pillow needs it, too"
    return header[8], header[9]


def _png_chunk(path: Path, wanted: bytes) -> bytes | None:
    """The content of a PNG's chunk before its pixels; None if it has none."""
    with path.open("rb") as file:
        if file.read(8) != SIGNATURE:
            return None
        for _ in range(CHUNKS):
            head = file.read(8)
            if len(head) < 8 or head[4:] == b"IDAT":
                return None
            [size] = struct.unpack(">I", head[:4])
            if head[4:] == wanted:
                return file.read(size)
            file.seek(size + 4, 1)
    return None


@lru_cache(maxsize=32)
def _space(profile: bytes, n_colours: int) -> tuple[ColourSpace | None, str]:
    try:
        tags = tags_of(profile)
        if colour_model(profile) != MODELS[n_colours]:
            return None, f"its colour profile is of {colour_model(profile)}, its pixels are not"
        space = _usable(profile, tags, n_colours)
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError) as error:
        return None, f"its colour profile is unusable ({error})"
    return (None if _is_srgb(space, n_colours) else space), ""


def _usable(profile: bytes, tags: dict[str, bytes], n_colours: int) -> ColourSpace:
    ours, srgb = _opened(profile), ImageCms.createProfile("sRGB")
    mode = {1: "L", 3: "RGB"}[n_colours]
    ways = _transform(ours, srgb, mode, "RGB"), _transform(srgb, ours, "RGB", mode)
    found = None if profile[20:24] == b"Lab " and n_colours == 1 else read_icc(tags)
    if found is None:
        return ColourSpace(*ways)
    rising = tuple(np.maximum.accumulate(curve) for curve in found.curves)
    if any(curve[-1] - curve[0] < 0.5 for curve in rising):
        raise ValueError("its curve does not rise")
    if found.matrix is None:
        return MatrixSpace(*ways, rising, None)
    return MatrixSpace(*ways, rising, np.linalg.inv(rgb_matrix(SRGB, D65)) @ found.matrix)


def _is_srgb(space: ColourSpace, n_colours: int) -> bool:
    level = np.linspace(0, 1, GRID)
    grid = np.stack(np.meshgrid(*[level] * n_colours), axis=-1)
    return bool(np.abs(space.to_srgb(grid) - grid).max() < SAME)


def _opened(profile: bytes) -> ImageCms.ImageCmsProfile:
    return ImageCms.ImageCmsProfile(BytesIO(profile))


def _transform(source: Any, target: Any, mode: str, out: str) -> Convert:
    found = ImageCms.buildTransform(
        source, target, mode, out, ImageCms.Intent.RELATIVE_COLORIMETRIC,
        ImageCms.Flags.BLACKPOINTCOMPENSATION,
    )  # fmt: skip

    def convert(picture: Image.Image) -> Image.Image:
        shown = Image.new(out, picture.size)  # applyTransform would also write the profile, which may fail
        found.transform.apply(picture.getim(), shown.getim())
        return shown

    return convert


def _applied(convert: Convert, levels: np.ndarray) -> np.ndarray:
    """Floats [...,c] through an 8-bit conversion of pictures => floats [...,c']."""
    stored = np.rint(levels.clip(0, 1) * 255).astype(np.uint8)
    flat = stored.reshape(-1, 1, stored.shape[-1])
    picture = Image.fromarray(flat[..., 0] if flat.shape[-1] == 1 else flat)
    shown = np.asarray(convert(picture)).reshape(*levels.shape[:-1], -1)
    return shown / 255
