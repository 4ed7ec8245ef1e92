"""How visible a seam is: two numbers for every result, in the region at the background's resolution.

Widths are pixels of a 512-px region, as in `Blend`, so that the numbers mean the same at any resolution.
"""

from __future__ import annotations

import numpy as np
from torch import Tensor

from ldm.insertion.blend import pixel_unit, ring

FLOOR = 0.5 / 127.5  # half an 8-bit level: a ring flatter than that counts as that


def seam_ratio(image: Tensor, mask: np.ndarray, width: float = 8) -> float:
    """Gradient across the mask's edge over that in a ring of `width` px outside it; about 1 is no seam.

    `image` [3,h,w] in [-1,1], `mask` bool [h,w]. Mean absolute difference of neighbours: pairs with one pixel
    inside, against pairs with both in the ring.
    """
    around = ring(mask, max(width * pixel_unit(mask), 1))
    across, beside = [], []
    for axis in (0, 1):
        steps = np.abs(np.diff(image.numpy(), axis=axis + 1)).mean(axis=0)
        low, high = _pairs(mask, axis)
        across.append(steps[low != high])
        low, high = _pairs(around, axis)
        beside.append(steps[low & high])
    return _mean(across) / max(_mean(beside), FLOOR)


def ring_offset(background: Tensor, generated: Tensor, mask: np.ndarray, width: float = 8) -> float:
    """Colour offset on the ring outside the mask: largest mean difference of a channel, in 8-bit levels."""
    around = ring(mask, max(width * pixel_unit(mask), 1))
    if not around.any():
        return 0.0
    return float(np.abs((generated - background).numpy()[:, around].mean(axis=1)).max() * 127.5)


def _pairs(mask: np.ndarray, axis: int) -> tuple[np.ndarray, np.ndarray]:
    return (mask[:-1], mask[1:]) if axis == 0 else (mask[:, :-1], mask[:, 1:])


def _mean(parts: list[np.ndarray]) -> float:
    values = np.concatenate(parts)
    return float(values.mean()) if len(values) else 0.0
