"""One region of a task, ready to be inpainted: known pixels, hole, mask and noise."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from torch import Generator, Tensor

from ldm.data.picture import Picture
from ldm.insertion.paste import region, shrunk_mask
from ldm.insertion.roi import Roi, crop
from ldm.insertion.task import Task

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
