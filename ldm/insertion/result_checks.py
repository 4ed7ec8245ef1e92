"""Checks of every result: visibility of the seam, and no change outside the mask."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from ldm.data.picture import Picture, read_picture
from ldm.insertion.blend import pixel_unit, ring

FLOOR = 0.5 / 127.5  # half an 8-bit level: the smallest gradient that the ring is taken to have


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


def colour_offset(background: Tensor, generated: Tensor, mask: np.ndarray, width: float = 8) -> float:
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


ROWS = 64  # compared at once: 100 megapixels fit into memory a few times only
SEAM = ("seam_before", "seam", "colour_offset_before", "colour_offset")


def difference_outside(pixels: np.ndarray, background: np.ndarray, mask: np.ndarray) -> int:
    """Largest difference of stored pixels [H,W,C] outside the mask, in levels; it must be 0."""
    return max(int(apart.max(initial=0)) for apart in _apart_outside(pixels, background, mask))


def mean_difference_outside(pixels: np.ndarray, background: np.ndarray, mask: np.ndarray) -> float:
    """The mean of the same differences; 0 if nothing is outside."""
    parts = [(int(apart.sum()), apart.size) for apart in _apart_outside(pixels, background, mask)]
    return sum(total for total, _ in parts) / max(sum(count for _, count in parts), 1)


def check_result(
    file: Path, background: Picture, mask: np.ndarray, regions: Sequence[Mapping[str, Any]]
) -> dict:
    """Checks for the record of a written result: `outside`, and the worst seam values of its regions."""
    outside = difference_outside(read_picture(file).pixels, background.pixels, mask)
    return {"outside": outside} | {name: max(region[name] for region in regions) for name in SEAM}


def _apart_outside(pixels: np.ndarray, background: np.ndarray, mask: np.ndarray) -> Iterator[np.ndarray]:
    """Absolute differences outside the mask, some rows at a time."""
    assert pixels.shape == background.shape and pixels.dtype == background.dtype, (
        f"{pixels.shape} of {pixels.dtype} against {background.shape} of {background.dtype}"
    )
    for y in range(0, len(mask), ROWS):
        rows = slice(y, y + ROWS)
        outside = ~mask[rows]
        yield np.abs(pixels[rows][outside].astype(np.int32) - background[rows][outside])
