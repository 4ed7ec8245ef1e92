"""What is inserted into one background, as arrays: the request, each square region of it, and the result."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
from torch import Generator, Tensor

from ldm.data.picture import Picture
from ldm.insertion.object_source import Subject
from ldm.insertion.paste import Patch, patched, region, shrunk_mask
from ldm.insertion.roi import Roi, crop


@dataclass(frozen=True, eq=False)
class Task:
    """`subject` into the background, once for each of `seeds`.

    The model generates in `hole`, and what it makes is pasted in `mask`, both bool [H,W]; mostly one array.
    `rois` are squares that cover both.
    """

    mask: np.ndarray
    hole: np.ndarray
    rois: Sequence[Roi]
    seeds: Sequence[int]
    subject: Subject = field(default_factory=Subject)


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


class Square(NamedTuple):
    """One region of a task: image [3,h,w] in [-1,1], hole and mask bool [h,w], noise for each sample.

    A region of more than `MOST` px is worked on at that size; `paste` is its mask at the background's own.
    """

    roi: Roi
    known: Tensor
    hole: np.ndarray
    mask: np.ndarray
    paste: np.ndarray
    noise: Sequence[Generator]


def square_in(background: Picture, task: Task, turn: int, noise: Sequence[Generator]) -> Square:
    """The region of a task whose number is `turn`."""
    roi = task.rois[turn]
    paste = crop(task.mask, roi)
    mask = shrunk_mask(paste, MOST)
    hole = mask if task.mask is task.hole else shrunk_mask(crop(task.hole, roi), MOST)
    return Square(roi, region(background, roi, MOST), hole, mask, paste, noise)


def square_of(known: Tensor, mask: np.ndarray, noise: Sequence[Generator]) -> Square:
    """A picture [3,h,w] in [-1,1] that is a region of its own; mask bool [h,w]."""
    whole = Roi(0, 0, known.shape[2], known.shape[1])
    return Square(whole, known, mask, mask, mask, noise)
