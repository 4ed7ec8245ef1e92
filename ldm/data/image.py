"""Arrays <=> tensors, exactly.

Pixels are uint8 [H,W,3]; images are float [3,H,W] or [b,3,H,W] in [-1,1]; masks are float [b,1,H,W] in {0,1}.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor


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


def resize(image: Tensor, size: int | tuple[int, int]) -> Tensor:
    """Bicubic, antialiased: [b,c,H,W] => [b,c,*size]; the value range is kept by clamping to the input's."""
    size = (size, size) if isinstance(size, int) else size
    if tuple(image.shape[-2:]) == tuple(size):
        return image
    out = F.interpolate(image.float(), size=size, mode="bicubic", antialias=True)
    return out.clamp(image.min(), image.max()).to(image.dtype)
