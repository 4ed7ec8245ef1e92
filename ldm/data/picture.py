"""Pictures at their own depth: 8 or 16 bits, grey or colour, with alpha, profile, EXIF and dpi.

In: PNG, TIFF, JPEG, WebP (also BMP and GIF). Out: `Picture`, and its colours as tensors in [-1,1].
A picture is never turned into floats as a whole: 100 megapixels would be 1.2 GB.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import torch
from einops import rearrange
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from ldm.data.exif import orientation, photo_exif, upright

FORMATS = ("PNG", "TIFF", "JPEG", "WEBP", "BMP", "GIF")
MODES = {"1": "L", "L": "L", "LA": "LA", "RGB": "RGB", "RGBA": "RGBA", "P": "RGB", "PA": "RGBA"}
ROWS = 256  # converted at once
LUMA = (0.299, 0.587, 0.114)  # ITU-R 601, as Pillow and OpenCV weigh


@dataclass(frozen=True, eq=False)
class Picture:
    """Upright pixels [H,W,C], uint8 or uint16, C = 1 grey, 2 grey + alpha, 3 RGB, 4 RGBA."""

    pixels: np.ndarray
    icc_profile: bytes | None = None
    exif: bytes | None = None
    dpi: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        assert self.pixels.ndim == 3 and 1 <= self.pixels.shape[2] <= 4, f"not [H,W,C]: {self.pixels.shape}"
        assert self.pixels.dtype in (np.uint8, np.uint16), f"neither 8 nor 16 bits: {self.pixels.dtype}"

    @property
    def size(self) -> tuple[int, int]:
        """(H, W)."""
        return self.pixels.shape[0], self.pixels.shape[1]

    @property
    def n_colours(self) -> int:
        """1 for grey, 3 for RGB; an alpha channel comes after them."""
        return 1 if self.pixels.shape[2] <= 2 else 3


def read_picture(path: Path) -> Picture:
    """A picture file => `Picture`, upright, palette expanded, depth kept; 16-bit grey + alpha comes as RGBA.

    Raises FileNotFoundError if it is missing and ValueError if it is unreadable, animated or of another kind.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such picture file")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # 100 megapixels are welcome
            picture, turn = _opened(path)
            if picture.pixels.size:
                return picture
            return replace(picture, pixels=upright(_read_deep(path), turn))
    except Image.DecompressionBombError as error:
        raise ValueError(f"{path}: {error}; give a smaller picture") from error
    except UnidentifiedImageError as error:
        raise ValueError(f"{path}: not a readable picture; give PNG, TIFF, JPEG or WebP") from error
    except (OSError, SyntaxError, cv2.error) as error:
        raise ValueError(f"{path}: broken picture ({error}); save it again") from error


def colours(pixels: np.ndarray) -> Tensor:
    """Pixels [h,w,C] of either depth => image [3,h,w] in [-1,1]; alpha is left out, grey is repeated."""
    shown = pixels[..., :1].repeat(3, axis=2) if pixels.shape[2] <= 2 else pixels[..., :3]
    half = np.iinfo(pixels.dtype).max / 2
    return rearrange(torch.from_numpy(shown.astype(np.float32)), "h w c -> c h w") / half - 1


def colour_levels(image: Tensor, like: np.ndarray) -> np.ndarray:
    """Image [3,h,w] in [-1,1] => pixels [h,w,1|3], in depth and colour like `like`; undoes `colours`."""
    image = image.detach().float().cpu()
    if like.shape[2] <= 2:
        image = torch.einsum("c,chw->hw", torch.tensor(LUMA), image)[None]
    top = int(np.iinfo(like.dtype).max)
    levels = (image * (top / 2) + top / 2).round().clamp(0, top)
    return rearrange(levels, "c h w -> h w c").numpy().astype(like.dtype)


def _opened(path: Path) -> tuple[Picture, int]:
    """The picture as Pillow reads it, and its orientation; of 16 bits, for which OpenCV is asked, no pixels.

    Pillow's own copy is gone when this returns.
    """
    with Image.open(path, formats=FORMATS) as file:
        _check(path, file)
        turn = 1 if file.format == "TIFF" else orientation(file)  # Pillow and OpenCV turn TIFFs themselves
        exif, dpi, icc = photo_exif(file), file.info.get("dpi"), file.info.get("icc_profile")
        deep = _is_deep(path, file)
        pixels = np.empty((0, 0, 1), np.uint16) if deep else upright(_read_shallow(file), turn)
        return Picture(pixels, icc, exif, (float(dpi[0]), float(dpi[1])) if dpi else None), turn


def _check(path: Path, file: Image.Image) -> None:
    frames = getattr(file, "n_frames", 1)
    if frames > 1 and file.format != "MPO":  # a phone's JPEG with a preview behind it
        raise ValueError(f"{path}: animated or of several pages ({frames}); save the one you mean by itself")
    if file.mode not in MODES and not _is_deep(path, file):
        raise ValueError(f"{path}: colour mode {file.mode} is none of grey, RGB, palette; convert it to RGB")
    if _is_deep(path, file) and file.format == "TIFF":
        tags = file.tag_v2  # type: ignore[attr-defined]
        if tags.get(284, 1) != 1 or tags.get(262) not in (1, 2):
            raise ValueError(
                f"{path}: 16-bit TIFF of separate planes or inverted; save it as interleaved RGB"
            )


def _is_deep(path: Path, file: Image.Image) -> bool:
    """16 bits a channel: a PNG's header says so, a TIFF's tag 258, whatever mode Pillow would cut it to."""
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
    else:
        stored = cv2.imread(
            str(path), None, cv2.IMREAD_UNCHANGED
        )  # into None: what it returns else is a copy
    if stored is None or stored.dtype != np.uint16:
        raise ValueError(f"{path}: this kind of 16-bit picture is not readable; save it as 16-bit RGB PNG")
    if stored.ndim == 2:
        return stored[..., None]
    for y in range(0, len(stored), ROWS):  # in place: 100 megapixels are 600 MB
        stored[y : y + ROWS, :, [0, 2]] = stored[y : y + ROWS, :, [2, 0]]
    return stored


def _read_shallow(file: Image.Image) -> np.ndarray:
    """Strip by strip: Pillow's own copy of the pixels is large enough."""
    mode = MODES[file.mode]
    if file.has_transparency_data:
        mode = {"L": "LA", "RGB": "RGBA"}.get(mode, mode)
    pixels = np.empty((file.height, file.width, len(mode)), np.uint8)
    for y in range(0, file.height, ROWS):
        strip = file.crop((0, y, file.width, min(y + ROWS, file.height)))
        pixels[y : y + ROWS] = np.asarray(strip.convert(mode)).reshape(strip.height, strip.width, -1)
    return pixels
