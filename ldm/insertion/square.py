"""One region of a task, ready to be painted: known pixels, hole, mask, noise, and the object laid in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Generator, Tensor

from ldm.data.picture import Picture
from ldm.data.visible import VISIBLE
from ldm.insertion.layer import shadowed
from ldm.insertion.paste import region, shrunk_mask
from ldm.insertion.roi import Roi, crop
from ldm.insertion.task import Task
from ldm.models.collage import Collage, flattened, laid_over

MOST = 2048  # px: no model makes more detail, and 100 megapixels in floats would be 1.2 GB a copy


class Square(NamedTuple):
    """One region of a task: image [3,h,w] in [-1,1], hole and mask bool [h,w], noise for each sample.

    A region of more than `MOST` px is worked on at that size; `paste` is its mask at the background's own.
    `layer` [4,h,w] is the object, laid in, `shaded` with its shadow; None: the model is not shown it.
    """

    roi: Roi
    known: Tensor
    hole: np.ndarray
    mask: np.ndarray
    paste: np.ndarray
    noise: Sequence[Generator]
    layer: Tensor | None = None
    shaded: Tensor | None = None

    @property
    def shown(self) -> np.ndarray | None:
        """Where the object and its shadow are, bool [h,w]."""
        return None if self.shaded is None else self.shaded[3].numpy() > VISIBLE

    @property
    def begun(self) -> Tensor:
        """The square with its object laid in, [3,h,w]."""
        return self.known if self.shaded is None else laid_over(self.shaded[None], self.known[None])[0]


def square_in(
    background: Picture,
    task: Task,
    turn: int,
    noise: Sequence[Generator],
    collage: Collage | None,
    shadow: float = 0,
) -> Square:
    """The region of a task whose number is `turn`; its object is laid in if there is a collage."""
    roi = task.rois[turn]
    paste = crop(task.mask, roi)
    mask = shrunk_mask(paste, MOST)
    hole = mask if task.mask is task.hole else shrunk_mask(crop(task.hole, roi), MOST)
    layers = _layers(collage, hole, shadow)
    return Square(roi, region(background, roi, MOST), hole, mask, paste, noise, *layers)


def square_of(
    known: Tensor, mask: np.ndarray, collage: Collage | None, noise: Sequence[Generator], shadow: float = 0
) -> Square:
    """A picture [3,h,w] in [-1,1] that is a region of its own; mask bool [h,w]."""
    whole = Roi(0, 0, known.shape[2], known.shape[1])
    return Square(whole, known, mask, mask, mask, noise, *_layers(collage, mask, shadow))


def _layers(collage: Collage | None, hole: np.ndarray, shadow: float) -> tuple[Tensor, ...]:
    """The object of a collage as it is laid into a hole, bool [h,w]: [4,h,w], and with its shadow."""
    if collage is None:
        return ()
    inside = torch.from_numpy(hole)[None].float()
    each = collage.each(inside[None])
    shaded = torch.stack([shadowed(layer, shadow) for layer in each])
    return flattened(each)[0], flattened(shaded)[0] * inside
