"""Proof of a result, from the pixels as they were written: what changed outside the mask, and the seam."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ldm.data.picture import Picture, read_picture

ROWS = 64  # compared at once: 100 megapixels fit into memory a few times only
SEAM = ("seam_before", "seam", "ring_offset_before", "ring_offset")


def difference_outside(pixels: np.ndarray, background: np.ndarray, mask: np.ndarray) -> int:
    """Largest difference of stored pixels [H,W,C] outside the mask, in levels; 0 is what it must be."""
    return max(int(apart.max(initial=0)) for apart in _apart_outside(pixels, background, mask))


def mean_difference_outside(pixels: np.ndarray, background: np.ndarray, mask: np.ndarray) -> float:
    """The mean of the same differences; 0 if nothing is outside."""
    parts = [(int(apart.sum()), apart.size) for apart in _apart_outside(pixels, background, mask)]
    return sum(total for total, _ in parts) / max(sum(count for _, count in parts), 1)


def prove(file: Path, background: Picture, mask: np.ndarray, regions: Sequence[Mapping[str, Any]]) -> dict:
    """What a record says of a written result: `outside`, and the worst seam numbers of its regions."""
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
