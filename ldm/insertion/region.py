"""The request for one background, each square region of it, and the result, as arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
from torch import Generator, Tensor

from ldm.data.picture import Picture
from ldm.insertion.crop_paste import Patch, crop_region, patched, shrunk_mask
from ldm.insertion.object_source import ObjectSource
from ldm.insertion.roi import Roi, crop


@dataclass(frozen=True, eq=False)
class InsertRequest:
    """Insert the object `source` once for each of `seeds`.

    The model generates in `mask`; `paste_mask` is the part of it that is pasted; both bool [H,W], often one
    array. `rois`: squares that cover both.
    """

    mask: np.ndarray
    paste_mask: np.ndarray
    rois: Sequence[Roi]
    seeds: Sequence[int]
    source: ObjectSource = field(default_factory=ObjectSource)


@dataclass(frozen=True, eq=False)
class Result:
    """One composite, as patches on its background, and its record: seed, regions, seams, seconds."""

    background: Picture
    patches: tuple[Patch, ...]
    record: dict[str, Any]

    @property
    def picture(self) -> Picture:
        """The composite; it is not stored, because memory holds only one large picture."""
        return patched(self.background, self.patches)

    def part(self, box: Roi) -> np.ndarray:
        """The picture's pixels [h,w,C] in a box that holds all patches."""
        within = [Patch(patch.box.within(box), patch.pixels) for patch in self.patches]
        part = replace(self.background, pixels=self.background.pixels[box.slices])
        return patched(part, within).pixels


MOST = 2048  # px: no model makes more detail, and 100 megapixels in floats would be 1.2 GB a copy


class Region(NamedTuple):
    """One region of a request: image [3,h,w] in [-1,1], masks bool [h,w], noise generators.

    A region of more than `MOST` px is processed at that size; `full_paste_mask` has the original size.
    """

    roi: Roi
    known: Tensor
    mask: np.ndarray
    paste_mask: np.ndarray
    full_paste_mask: np.ndarray
    noise: Sequence[Generator]


def region_in(background: Picture, request: InsertRequest, turn: int, noise: Sequence[Generator]) -> Region:
    """Region number `turn` of a request, from 0."""
    roi = request.rois[turn]
    full = crop(request.paste_mask, roi)
    paste_mask = shrunk_mask(full, MOST)
    alike = request.paste_mask is request.mask
    mask = paste_mask if alike else shrunk_mask(crop(request.mask, roi), MOST)
    return Region(roi, crop_region(background, roi, MOST), mask, paste_mask, full, noise)


def region_of(known: Tensor, mask: np.ndarray, noise: Sequence[Generator]) -> Region:
    """A whole image [3,h,w] in [-1,1] as a region; mask bool [h,w]."""
    whole = Roi(0, 0, known.shape[2], known.shape[1])
    return Region(whole, known, mask, mask, mask, noise)
