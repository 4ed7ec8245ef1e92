"""Geometry of regions: a mask => square regions of interest (ROIs) with context, in a background of any size.

`crop_plan` calls it with the settings; `paste.cut_region` crops the pixels of a region.
Sizes are (H, W); boxes are x0, y0, x1, y1 in pixels, x1 and y1 exclusive.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy import ndimage
from scipy.sparse.csgraph import connected_components

TOUCHING = np.ones((3, 3), bool)  # corners connect too


class Roi(NamedTuple):
    """A box in background pixels; it may reach beyond a picture that is too small for it."""

    x0: int
    y0: int
    x1: int
    y1: int

    @property
    def size(self) -> tuple[int, int]:
        """(h, w)."""
        return self.y1 - self.y0, self.x1 - self.x0

    @property
    def slices(self) -> tuple[slice, slice]:
        """Rows and columns of an array, for a box that lies inside it."""
        return slice(self.y0, self.y1), slice(self.x0, self.x1)

    def within(self, frame: Roi) -> Roi:
        """The same box, counted from the frame's corner."""
        return self.moved(-frame.x0, -frame.y0)

    def moved(self, x: int, y: int) -> Roi:
        """The box, so many pixels further to the right and down."""
        return Roi(self.x0 + x, self.y0 + y, self.x1 + x, self.y1 + y)


def box_of(mask: np.ndarray) -> Roi:
    """The smallest box around the pixels of a mask [H,W]; ValueError if it is empty."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        raise ValueError("the mask is empty; mark the region for the object in white")
    return Roi(int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1)


def plan_roi(
    mask: np.ndarray, *, factor: float = 2.0, min_side: int = 0, context_px: int | None = None
) -> Roi:
    """The square around a mask [H,W] that shows enough context.

    Its side is `factor` times the mask's longer side (or that side + 2 `context_px`), at least `min_side`,
    at most the picture's short side unless the mask is longer; shifted to stay inside, else centred.
    """
    return _square(box_of(mask), mask.shape, factor, min_side, context_px)


def plan_rois(
    mask: np.ndarray, *, factor: float = 2.0, min_side: int = 0, context_px: int | None = None
) -> list[Roi]:
    """One square for each group of the mask's components, in reading order.

    Components share a square as soon as one's square would show another's masked pixels; so every masked
    pixel lies in exactly one square, and the squares can be filled independently.
    """
    found = ndimage.find_objects(ndimage.label(mask, TOUCHING)[0])
    boxes = np.array([(x.start, y.start, x.stop, y.stop) for y, x in found], int)
    if not len(boxes):
        raise ValueError("the mask is empty; mark the region for the object in white")
    while True:
        rois = [_square(Roi(*map(int, box)), mask.shape, factor, min_side, context_px) for box in boxes]
        groups, group = connected_components(_meet(rois, boxes))
        if groups == len(boxes):
            return rois
        boxes = np.array([_hull(boxes[group == i]) for i in range(groups)])


def visible(roi: Roi, size: tuple[int, int]) -> Roi:
    """The part of a box inside a picture of size (H, W)."""
    height, width = size
    seen = Roi(max(roi.x0, 0), max(roi.y0, 0), min(roi.x1, width), min(roi.y1, height))
    assert min(seen.size) > 0, f"{roi} lies outside a picture of {width} x {height} px"
    return seen


def squared(roi: Roi, size: tuple[int, int]) -> Roi:
    """The square around a box's centre with its longer side, shifted to stay inside a picture of size (H, W).

    A square box stays as it is; ValueError if the picture is too small for the square.
    """
    side = max(roi.size)
    if side == min(roi.size):
        return roi
    if side > min(size):
        raise ValueError(
            f"the given ROI is {roi.size[1]} x {roi.size[0]} px, the model sees squares, and none around it "
            f"fits into the background of {size[1]} x {size[0]} px; give a square, {min(size)} px at most"
        )
    y0, x0 = _start(roi.y0, roi.y1, side, size[0]), _start(roi.x0, roi.x1, side, size[1])
    return Roi(x0, y0, x0 + side, y0 + side)


def covered(mask: np.ndarray, roi: Roi) -> bool:
    """Whether all of a mask [H,W] lies in the box."""
    box = box_of(mask)
    return roi.x0 <= box.x0 and roi.y0 <= box.y0 and roi.x1 >= box.x1 and roi.y1 >= box.y1


def crop(array: np.ndarray, roi: Roi) -> np.ndarray:
    """Cut a box out of [H,W,...], a view; what lies beyond the picture is its reflection, and it a copy."""
    seen = visible(roi, array.shape[:2])
    part = array[seen.slices]
    if seen == roi:
        return part
    beyond = [(seen.y0 - roi.y0, roi.y1 - seen.y1), (seen.x0 - roi.x0, roi.x1 - seen.x1)]
    return np.pad(part, beyond + [(0, 0)] * (array.ndim - 2), mode="reflect")


def _square(box: Roi, size: tuple[int, ...], factor: float, min_side: int, context_px: int | None) -> Roi:
    longer = max(box.size)
    side = round(factor * longer) if context_px is None else longer + 2 * context_px
    if side < longer:
        shown, least = (f"factor {factor:g}", 1) if context_px is None else (f"{context_px} px", 0)
        raise ValueError(f"context of {shown} cuts the mask; give {least} or more")
    side = min(max(side, min_side), max(min(size[:2]), longer))
    y0 = _start(box.y0, box.y1, side, size[0])
    x0 = _start(box.x0, box.x1, side, size[1])
    return Roi(x0, y0, x0 + side, y0 + side)


def _start(low: int, high: int, side: int, length: int) -> int:
    """Where a span of `side` begins that has low..high in its middle and stays inside 0..length if it can."""
    if side > length:
        return (length - side) // 2
    return min(max((low + high - side) // 2, 0), length - side)


def _meet(rois: list[Roi], boxes: np.ndarray) -> np.ndarray:
    """[n,n]: does square i reach into the box of component j?"""
    a = np.array(rois)[:, None]
    return np.all((a[..., :2] < boxes[:, 2:]) & (a[..., 2:] > boxes[:, :2]), axis=-1)


def _hull(boxes: np.ndarray) -> tuple[int, ...]:
    return (*boxes[:, :2].min(0), *boxes[:, 2:].max(0))
