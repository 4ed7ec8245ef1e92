"""Read picture files: at their own depth for backgrounds, as 8-bit RGB for training and references.

In: PNG, TIFF, JPEG, WebP, BMP, GIF, AVIF, and HEIC with the extra `heic`. Out: `Picture` with
alpha, profile, EXIF and dpi, and its views: RGB, alpha, silhouette (uint8), colours (tensors in [-1,1]).
A picture is never converted to floats as a whole: 100 megapixels would be 1.2 GB.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import torch
from einops import rearrange
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from ldm.data.boxes import Frame
from ldm.data.exif import orientation, photo_exif, upright

FORMATS = ("PNG", "TIFF", "JPEG", "WEBP", "BMP", "GIF", "AVIF")
HEIC = (b"heic", b"heix", b"heim", b"heis", b"hevc")  # brands, one of which is in such a file's first bytes
MODES = {"1": "L", "L": "L", "LA": "LA", "RGB": "RGB", "RGBA": "RGBA", "P": "RGB", "PA": "RGBA"}
ROWS = 256  # converted at once
LUMA = (0.299, 0.587, 0.114)  # ITU-R 601, as in Pillow and OpenCV
GREY = 128  # behind transparent pixels: mid-grey is (almost) 0 in [-1,1]
OBJECT_LEVEL = 127  # brighter silhouette pixels, and more opaque alpha, belong to the object
MIN_TRANSPARENT = 0.01  # share of a picture: with less of it transparent, its alpha is no silhouette


@dataclass(frozen=True, eq=False)
class Picture:
    """Upright pixels [H,W,C], uint8 or uint16, C = 1 grey, 2 grey + alpha, 3 RGB, 4 RGBA."""

    pixels: np.ndarray
    icc_profile: bytes | None = None
    exif: bytes | None = None
    dpi: tuple[float, float] | None = None
    turn: int = 1  # the file's EXIF orientation, which is undone in `pixels`

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


def read_picture(path: Path, convert: bool = False) -> Picture:
    """A picture file => `Picture`, upright, palette expanded, depth kept; 16-bit grey + alpha comes as RGBA.

    `convert`: other colour modes (CMYK) are converted to RGB, and of an animation the first frame is read,
    with a warning; else they are refused, because they cannot be written back as they were. Raises
    FileNotFoundError if the file is missing and ValueError if it is unreadable or of another kind.
    """
    path = Path(path)
    with _one_line_errors(path):
        picture, turn = _opened(path, convert)
        if picture.pixels.size:
            return picture
        return replace(picture, pixels=upright(_read_deep(path), turn))


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
    """A picture file => uint8 [H,W,3], upright, transparency over mid-grey; raises as `read_picture`."""
    return rgb_over_grey(read_picture(path, convert=True))


def read_alpha(path: Path) -> np.ndarray | None:
    """A picture file's alpha, uint8 [H,W]; None if it is (almost) opaque. Raises as `read_picture`."""
    return _alpha(read_picture(path, convert=True))


def read_silhouette(path: Path) -> np.ndarray:
    """A picture file that is white, or opaque, where an object is => uint8 [H,W], upright.

    Raises as `read_picture`, and ValueError if it is white nowhere.
    """
    picture = read_picture(path, convert=True)
    alpha = _alpha(picture)
    levels = np.array(Image.fromarray(rgb_over_grey(picture)).convert("L")) if alpha is None else alpha
    if levels.max() <= OBJECT_LEVEL:
        raise ValueError(
            f"{path}: its brightest level is {levels.max()}; a silhouette is white, 255, on black"
        )
    return levels


def rgb_over_grey(picture: Picture) -> np.ndarray:
    """A picture of any depth => uint8 [H,W,3], 16 bits rounded, transparent pixels over mid-grey."""
    pixels = eight_bits(picture.pixels)
    n = picture.n_colours
    rgb = pixels[..., :1].repeat(3, axis=2) if n == 1 else pixels[..., :3]
    if pixels.shape[2] == n:
        return rgb
    layer = Image.fromarray(np.concatenate([rgb, pixels[..., n:]], axis=2))
    ground = Image.new("RGBA", layer.size, (GREY, GREY, GREY, 255))
    return np.array(Image.alpha_composite(ground, layer).convert("RGB"))


def eight_bits(pixels: np.ndarray) -> np.ndarray:
    """Pixels of either depth => uint8; 16 bits are rounded."""
    return pixels if pixels.dtype == np.uint8 else (pixels / 257).round().astype(np.uint8)


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
        raise ValueError(f"{path}: {error}; give a smaller picture") from error
    except UnidentifiedImageError as error:
        raise ValueError(f"{path}: not a readable picture; save it as PNG, TIFF, JPEG or WebP") from error
    except (OSError, SyntaxError, cv2.error) as error:
        raise ValueError(f"{path}: broken picture ({error}); save it again") from error


def _alpha(picture: Picture) -> np.ndarray | None:
    if picture.pixels.shape[2] == picture.n_colours:
        return None
    alpha = eight_bits(picture.pixels[..., -1])
    return alpha if (alpha <= OBJECT_LEVEL).mean() > MIN_TRANSPARENT else None


def _opened(path: Path, convert: bool) -> tuple[Picture, int]:
    """The picture as Pillow reads it, and its orientation; without pixels if 16 bits: OpenCV reads those.

    Pillow's own copy is freed when this returns.
    """
    # not by name: Pillow maps some files of a name into memory, and then does not turn sideways TIFFs
    with path.open("rb") as raw, Image.open(raw, formats=_formats(path)) as file:
        _check(path, file, convert)
        shown = orientation(file)
        turn = 1 if file.format == "TIFF" else shown  # Pillow and OpenCV turn TIFFs themselves
        exif, dpi, icc = photo_exif(file), file.info.get("dpi"), file.info.get("icc_profile")
        deep = _is_deep(path, file)
        pixels = np.empty((0, 0, 1), np.uint16) if deep else upright(_read_shallow(file), turn)
        return Picture(pixels, icc, exif, (float(dpi[0]), float(dpi[1])) if dpi else None, shown), turn


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


def _read_shallow(file: Image.Image) -> np.ndarray:
    """8-bit pixels, converted strip by strip: a second whole copy beside Pillow's would take memory."""
    mode = MODES.get(file.mode, "RGB")
    if file.has_transparency_data:
        mode = {"L": "LA", "RGB": "RGBA"}.get(mode, mode)
    pixels = np.empty((file.height, file.width, len(mode)), np.uint8)
    for y in range(0, file.height, ROWS):
        strip = file.crop((0, y, file.width, min(y + ROWS, file.height)))
        pixels[y : y + ROWS] = np.asarray(strip.convert(mode)).reshape(strip.height, strip.width, -1)
    return pixels
