"""Cut-outs in an object file: a PNG's bytes, a third of the pixels' own and as exact.

A file's other tensors, and pictures without alpha, are left as they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from io import BytesIO

import numpy as np
import torch
from einops import rearrange
from PIL import Image
from torch import Tensor

REFERENCE, VIEWS = "reference", "views"  # names of one picture, and of several
CHANNELS = 4


def packed(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Cut-outs, uint8 [4,P,P] or [N,4,P,P], become the bytes [n] of one PNG, one below the other."""
    return {name: _png(x) if _is_cut_out(x) else x for name, x in tensors.items()}


def unpacked(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The inverse: only VIEWS are several pictures. ValueError if the bytes are no such PNG."""
    found = {name: _pictures(x, name) if _is_png(x) else x for name, x in tensors.items()}
    return {name: x[0] if _is_png(tensors[name]) and name != VIEWS else x for name, x in found.items()}


def _is_cut_out(x: Tensor) -> bool:
    return x.dtype == torch.uint8 and x.ndim > 2 and x.shape[-3] == CHANNELS


def _is_png(x: Tensor) -> bool:
    return x.dtype == torch.uint8 and x.ndim == 1


def _png(pictures: Tensor) -> Tensor:
    stacked = pictures.reshape(-1, *pictures.shape[-3:])
    pixels = rearrange(stacked.cpu(), "n c h w -> (n h) w c").contiguous().numpy()
    out = BytesIO()
    Image.fromarray(pixels, "RGBA").save(out, "PNG", optimize=True)
    return torch.frombuffer(bytearray(out.getvalue()), dtype=torch.uint8)


def _pictures(stored: Tensor, name: str) -> Tensor:
    try:
        with Image.open(BytesIO(stored.numpy().tobytes())) as file:
            pixels = torch.from_numpy(np.array(file.convert("RGBA")))
        return rearrange(pixels, "(n h) w c -> n c h w", h=pixels.shape[1]).contiguous()
    except (OSError, SyntaxError, ValueError, RuntimeError) as error:
        raise ValueError(f"its {name} is no PNG of square pictures; write it again") from error
