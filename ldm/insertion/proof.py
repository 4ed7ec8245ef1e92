"""Proof of a result, from the pixels as they were written: what changed outside the mask, and the seam."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ldm.data.picture import Picture, read_picture

ROWS = 256  # compared at once: 100 megapixels fit into memory a few times only
SEAM = ("seam_before", "seam", "ring_offset_before", "ring_offset")


def difference_outside(pixels: np.ndarray, background: np.ndarray, mask: np.ndarray) -> int:
    """Largest difference of stored pixels [H,W,C] outside the mask, in levels; 0 is what it must be."""
    assert pixels.shape == background.shape and pixels.dtype == background.dtype, (
        f"{pixels.shape} of {pixels.dtype} against {background.shape} of {background.dtype}"
    )
    largest = 0
    for y in range(0, len(mask), ROWS):
        rows = slice(y, y + ROWS)
        outside = ~mask[rows]
        apart = pixels[rows][outside].astype(np.int32) - background[rows][outside]
        largest = max(largest, int(np.abs(apart).max(initial=0)))
    return largest


def prove(file: Path, background: Picture, mask: np.ndarray, regions: Sequence[Mapping[str, Any]]) -> dict:
    """What a record says of a written result: `outside`, and the worst seam numbers of its regions."""
    outside = difference_outside(read_picture(file).pixels, background.pixels, mask)
    return {"outside": outside} | {name: max(region[name] for region in regions) for name in SEAM}
