"""Regions of interest (ROIs): a mask => the squares to inpaint, with context, in a background of any size.

`crop_paste.crop_region` crops the pixels of a region. Sizes are (H, W); boxes are x0, y0, x1, y1 in pixels of
the background, x1 and y1 exclusive.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy import ndimage
from scipy.sparse.csgraph import connected_components

TOUCHING = np.ones((3, 3), bool)  # corners connect too
MAX_SHRINK = 1.5  # a region that is shrunk more for the model loses detail
LEAST = 16  # model pixels (two latents): a smaller mask has no room for an object
LEAST_CONTEXT = 1.1  # region side over mask side; below, the model sees nothing of the scene
ROOM = 1.25  # likewise: a region is larger than the picture's short side if it needs it for so much context
MANY = 8  # more regions than this are likely noise of the mask, not objects


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


@dataclass(frozen=True)
class CropContext:
    """How much of the scene a region shows around the mask.

    Its side is `roi_factor` times the mask's longer side or, if `context_px` is 0 or more, that side plus
    `context_px` on each side. `model_side` is the model's resolution; a region is enlarged at most `zoom`
    times to reach it. It is at most the picture's short side, unless a mask along the long side needs more:
    ROOM times the mask, within the long side.
    """

    model_side: int = 0
    roi_factor: float = 2.0
    context_px: int = -1
    zoom: float = 1.0

    def side(self, mask: tuple[int, int], size: tuple[int, ...]) -> int:
        """The side of a region for a mask of size (h, w), in a picture of size (H, W)."""
        if self.zoom <= 0:
            raise ValueError(f"zoom {self.zoom:g}: expected more than 0, like 4 for regions enlarged 4 times")
        longer, given = max(mask), self.context_px >= 0
        side = longer + 2 * self.context_px if given else round(self.roi_factor * longer)
        if side < longer:
            raise ValueError(f"context of factor {self.roi_factor:g} cuts the mask; give 1 or more")
        room = max(min(math.ceil(ROOM * own), whole) for own, whole in zip(mask, size[:2], strict=True))
        return min(max(side, math.ceil(self.model_side / self.zoom)), max(min(size[:2]), room))


AROUND = CropContext()


def plan_roi(mask: np.ndarray, context: CropContext = AROUND) -> Roi:
    """The one square to inpaint for all of a mask [H,W], shifted to stay inside the picture, else centred."""
    return _square(box_of(mask), mask.shape, context)


def plan_rois(mask: np.ndarray, context: CropContext = AROUND) -> list[Roi]:
    """One square for each group of the mask's components, in reading order.

    Components share a square as soon as one's square would show another's masked pixels; so every masked
    pixel lies in exactly one square, and the squares can be filled independently.
    """
    found = ndimage.find_objects(ndimage.label(mask, TOUCHING)[0])
    boxes = np.array([(x.start, y.start, x.stop, y.stop) for y, x in found], int)
    if not len(boxes):
        raise ValueError("the mask is empty; mark the region for the object in white")
    while True:
        rois = [_square(Roi(*map(int, box)), mask.shape, context) for box in boxes]
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


def lines(mask: np.ndarray, rois: Sequence[Roi], model_side: int) -> list[str]:
    """The plan of a mask [H,W] as text: a line for the image, for each region, and for each warning."""
    height, width = mask.shape
    count = "1 region" if len(rois) == 1 else f"{len(rois)} regions"
    out = [f"{width} x {height} px, {mask.mean():.1%} masked, {count}"]
    for number, roi in enumerate(rois, start=1):
        box = f"x {roi.x0}..{roi.x1}, y {roi.y0}..{roi.y1}"
        out.append(f"  region {number}: {roi.size[0]} px square ({box}), {scaling(roi, model_side)}")
    return out + [f"  warning: {note}" for note in cautions(mask, rois, model_side)]


def cautions(mask: np.ndarray, rois: Sequence[Roi], model_side: int) -> list[str]:
    """What the model cannot see well, each with its region's number if there are several."""
    out = []
    if len(rois) > MANY:
        count = ndimage.label(mask, TOUCHING)[1]
        out.append(f"{count} separate parts make {len(rois)} regions; if this is noise, raise the threshold")
    for number, roi in enumerate(rois, start=1):
        place = f"region {number}: " if len(rois) > 1 else ""
        out += [place + note for note in _notes(mask, roi, model_side)]
    return out


def scaling(roi: Roi, model_side: int) -> str:
    """ "1024 => 512 px, shrunk 2.0x"."""
    side, scale = max(roi.size), model_side / max(roi.size)
    if scale == 1:
        return f"{side} => {model_side} px, not resized"
    how = f"enlarged {scale:.1f}x" if scale > 1 else f"shrunk {1 / scale:.1f}x"
    return f"{side} => {model_side} px, {how}"


def _square(box: Roi, size: tuple[int, ...], context: CropContext) -> Roi:
    side = context.side(box.size, size)
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


def _reaches_border(mask: np.ndarray, seen: Roi) -> bool:
    """Whether a mask [H,W] goes on, or could, where the visible part of a region ends inside the picture."""
    part, (height, width) = mask[seen.slices], mask.shape
    return bool(
        (seen.y0 > 0 and part[0].any())
        or (seen.x0 > 0 and part[:, 0].any())
        or (seen.y1 < height and part[-1].any())
        or (seen.x1 < width and part[:, -1].any())
    )


def _notes(mask: np.ndarray, roi: Roi, model_side: int) -> list[str]:
    seen = visible(roi, (mask.shape[0], mask.shape[1]))
    inside = mask[seen.slices]
    longer, side = max(box_of(inside).size), max(roi.size)
    scale, notes = model_side / side, []
    if scale < 1 / MAX_SHRINK:
        notes.append(f"the region is shrunk {1 / scale:.1f} times for the model, which draws no finer detail")
    if math.sqrt(inside.sum()) * scale < LEAST:
        notes.append(
            f"the mask is {longer * scale:.0f} px for the model, too small for an object; grow it, "
            "or give a smaller roi_factor"
        )
    if side < LEAST_CONTEXT * longer:
        notes.append(
            "the mask fills its region, so that the model sees almost nothing of the scene; give a larger "
            "roi_factor, or a smaller mask"
        )
    if _reaches_border(mask, seen):
        notes.append("the mask reaches the region's border and has a hard edge there; give a larger region")
    if seen != roi:
        notes.append("the region is larger than the image; the image is mirrored at its border")
    return notes
