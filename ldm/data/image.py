"""Picture files <=> arrays and tensors, exactly.

Pixels are uint8 [H,W,3]; images are float [3,H,W] or [b,3,H,W] in [-1,1]; masks are float [b,1,H,W] in {0,1}.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from PIL import Image, ImageOps
from torch import Tensor

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff")
SEEN_THROUGH = 0.01  # of a picture: less transparency than this says nothing about its object
HALF = 127  # of a silhouette: what is brighter is the object
GREY = 128  # behind transparent pixels: mid-grey is (almost) 0 in [-1,1]


def read_rgb(path: Path) -> np.ndarray:
    """A picture file => uint8 pixels [H,W,3], turned upright (EXIF), transparent pixels over mid-grey.

    Raises FileNotFoundError if it is missing and ValueError if it is unreadable.
    """
    try:
        with Image.open(path) as file:
            picture = _eight_bits(ImageOps.exif_transpose(file))
            if picture.has_transparency_data:
                picture = picture.convert("RGBA")
                ground = Image.new("RGBA", picture.size, (GREY, GREY, GREY, 255))
                picture = Image.alpha_composite(ground, picture)
            return np.array(picture.convert("RGB"))  # a copy: torch wants writable memory
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: no such picture file") from None
    except (OSError, SyntaxError, ValueError) as error:
        raise ValueError(f"{path}: not readable ({error}); give PNG, TIFF, JPEG or WebP") from error


def read_alpha(path: Path) -> np.ndarray | None:
    """How opaque a picture file is, uint8 [H,W], upright; None if it is so (almost) everywhere.

    Raises as `read_rgb`.
    """
    try:
        with Image.open(path) as file:
            if not file.has_transparency_data:
                return None
            alpha = np.array(ImageOps.exif_transpose(file).convert("RGBA"))[..., 3]
    except (OSError, SyntaxError, ValueError) as error:
        raise ValueError(f"{path}: not readable ({error}); give PNG, TIFF, JPEG or WebP") from error
    return alpha if (alpha <= HALF).mean() > SEEN_THROUGH else None


def read_silhouette(path: Path) -> np.ndarray:
    """A picture file that is white, or opaque, where an object is => uint8 [H,W], upright.

    Raises as `read_rgb`, and ValueError if it is white nowhere.
    """
    alpha = read_alpha(path)
    levels = np.array(Image.fromarray(read_rgb(path)).convert("L")) if alpha is None else alpha
    if levels.max() <= HALF:
        raise ValueError(
            f"{path}: its brightest level is {levels.max()}; a silhouette is white, 255, on black"
        )
    return levels


def _eight_bits(picture: Image.Image) -> Image.Image:
    """16-bit grey scaled to 8 bits, which Pillow's `convert` would clip; colour it cuts by itself."""
    if picture.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(picture) / 257).round().astype(np.uint8))
    if picture.mode in ("I", "F"):
        raise ValueError("32 bits a pixel, of unknown range; save it with 8 or 16 bits")
    return picture


def to_image(pixels: np.ndarray) -> Tensor:
    """uint8 pixels [H,W,3] => image [3,H,W] in [-1,1]."""
    return rearrange(torch.from_numpy(np.ascontiguousarray(pixels)), "H W c -> c H W").float() / 127.5 - 1


def to_pixels(image: Tensor) -> np.ndarray:
    """Image [3,H,W] in [-1,1] => uint8 pixels [H,W,3]; the exact inverse of `to_image`."""
    return rearrange(to_bytes(image.detach().float().cpu()), "c H W -> H W c").numpy()


def to_bytes(image: Tensor) -> Tensor:
    """Image [...,3,R,R] in [-1,1] => uint8, exactly if it came from 8 bits; a fourth is alpha in [0,1]."""
    levels = image * 127.5 + 127.5
    if image.shape[-3] == 4:
        levels[..., 3, :, :] = image[..., 3, :, :] * 255
    return levels.round().clamp(0, 255).to(torch.uint8)


def from_bytes(stored: Tensor) -> Tensor:
    """The inverse of `to_bytes`; colours where alpha is 0 are 0."""
    image = stored.float() / 127.5 - 1
    if stored.shape[-3] == 4:
        image[..., 3, :, :] = stored[..., 3, :, :].float() / 255
        image = torch.where(stored[..., 3:, :, :] > 0, image, 0.0)
    return image


def resize(image: Tensor, size: int | tuple[int, int]) -> Tensor:
    """Bicubic, antialiased: [b,c,H,W] => [b,c,*size]; the value range is kept by clamping to the input's."""
    size = (size, size) if isinstance(size, int) else size
    if tuple(image.shape[-2:]) == tuple(size):
        return image
    out = F.interpolate(image.float(), size=size, mode="bicubic", antialias=True)
    return out.clamp(image.min(), image.max()).to(image.dtype)
