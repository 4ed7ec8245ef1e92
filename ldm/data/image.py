"""Arrays <=> tensors, exactly.

Pixels are uint8 [H,W,3] of sRGB, or a picture's own, in its depth and colours; images are float [3,H,W] or
[b,3,H,W] in [-1,1]; masks are float [b,1,H,W] in {0,1}.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from ldm.data.colour_space import ColourSpace

LUMA = (0.299, 0.587, 0.114)  # ITU-R 601, as in Pillow and OpenCV


def to_image(pixels: np.ndarray) -> Tensor:
    """uint8 pixels [H,W,3] => image [3,H,W] in [-1,1]."""
    return rearrange(torch.from_numpy(np.ascontiguousarray(pixels)), "H W c -> c H W").float() / 127.5 - 1


def to_pixels(image: Tensor) -> np.ndarray:
    """Image [3,H,W] in [-1,1] => uint8 pixels [H,W,3]; the exact inverse of `to_image`."""
    return rearrange(to_bytes(image.detach().float().cpu()), "c H W -> H W c").numpy()


def to_bytes(image: Tensor) -> Tensor:
    """Image [...,3,R,R] in [-1,1] => uint8, exactly if it came from 8 bits; a channel 4 is alpha in [0,1]."""
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


def colours(pixels: np.ndarray, space: ColourSpace | None = None) -> Tensor:
    """Pixels [h,w,C] of either depth => sRGB image [3,h,w] in [-1,1]; alpha is left out, grey is repeated.

    Colours of `space` that sRGB cannot show are outside of [-1,1].
    """
    shown = pixels[..., :1] if pixels.shape[2] <= 2 else pixels[..., :3]
    half = np.iinfo(pixels.dtype).max / 2
    levels = shown if space is None else space.to_srgb(shown / (2 * half)) * (2 * half)
    levels = levels.repeat(3, axis=2) if levels.shape[2] == 1 else levels
    return rearrange(torch.from_numpy(levels.astype(np.float32)), "h w c -> c h w") / half - 1


def colour_levels(image: Tensor, like: np.ndarray, space: ColourSpace | None = None) -> np.ndarray:
    """sRGB image [3,h,w] in [-1,1] => pixels [h,w,1|3], in depth and colour like `like`; undoes `colours`."""
    image = image.detach().float().cpu()
    if like.shape[2] <= 2:
        image = torch.einsum("c,chw->hw", torch.tensor(LUMA), image)[None]
    top = int(np.iinfo(like.dtype).max)
    if space is not None:
        levels = space.from_srgb(rearrange(image, "c h w -> h w c").double().numpy() / 2 + 0.5)
        return np.rint(levels.clip(0, 1) * top).astype(like.dtype)
    stored = (image * (top / 2) + top / 2).round().clamp(0, top)
    return rearrange(stored, "c h w -> h w c").numpy().astype(like.dtype)


def resize(image: Tensor, size: int | tuple[int, int]) -> Tensor:
    """Bicubic, antialiased: [b,c,H,W] => [b,c,*size]; each image is clamped to its own value range."""
    size = (size, size) if isinstance(size, int) else size
    if tuple(image.shape[-2:]) == tuple(size):
        return image
    out = F.interpolate(image.float(), size=size, mode="bicubic", antialias=True)
    low, high = (bound(dim=(1, 2, 3), keepdim=True) for bound in (image.amin, image.amax))
    return out.clamp(low, high).to(image.dtype)
