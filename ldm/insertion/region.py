"""What is inserted into one background, as arrays: the request, each square region of it, and the result."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
from torch import Generator, Tensor

from ldm.data.picture import Picture
from ldm.insertion.object_source import ObjectSource
from ldm.insertion.paste import Patch, cut_region, patched, shrunk_mask
from ldm.insertion.roi import Roi, crop


@dataclass(frozen=True, eq=False)
class InsertRequest:
    """`subject` into the background, once for each of `seeds`.

    The model generates in `hole`, and what it makes is pasted in `mask`, both bool [H,W]; mostly one array.
    `rois` are squares that cover both.
    """

    mask: np.ndarray
    hole: np.ndarray
    rois: Sequence[Roi]
    seeds: Sequence[int]
    source: ObjectSource = field(default_factory=ObjectSource)


@dataclass(frozen=True, eq=False)
class Result:
    """One composite, as what lies over its background, and its record: seed, regions, seams, seconds."""

    background: Picture
    patches: tuple[Patch, ...]
    record: dict[str, Any]

    @property
    def picture(self) -> Picture:
        """Put together anew each time it is asked for: of large pictures only one fits into memory."""
        return patched(self.background, self.patches)

    def part(self, box: Roi) -> np.ndarray:
        """The picture's pixels [h,w,C] in a box that holds all patches."""
        within = [Patch(patch.box.within(box), patch.pixels) for patch in self.patches]
        part = replace(self.background, pixels=self.background.pixels[box.slices])
        return patched(part, within).pixels


MOST = 2048  # px: no model makes more detail, and 100 megapixels in floats would be 1.2 GB a copy


class Region(NamedTuple):
    """One region of a task: image [3,h,w] in [-1,1], hole and mask bool [h,w], noise for each sample.

    A region of more than `MOST` px is worked on at that size; `paste` is its mask at the background's own.
    """

    roi: Roi
    known: Tensor
    hole: np.ndarray
    mask: np.ndarray
    paste: np.ndarray
    noise: Sequence[Generator]


def region_in(background: Picture, request: InsertRequest, turn: int, noise: Sequence[Generator]) -> Region:
    """The region of a task whose number is `turn`."""
    roi = request.rois[turn]
    paste = crop(request.mask, roi)
    mask = shrunk_mask(paste, MOST)
    hole = mask if request.mask is request.hole else shrunk_mask(crop(request.hole, roi), MOST)
    return Region(roi, cut_region(background, roi, MOST), hole, mask, paste, noise)


def region_of(known: Tensor, mask: np.ndarray, noise: Sequence[Generator]) -> Region:
    """A picture [3,h,w] in [-1,1] that is a region of its own; mask bool [h,w]."""
    whole = Roi(0, 0, known.shape[2], known.shape[1])
    return Region(whole, known, mask, mask, mask, noise)
