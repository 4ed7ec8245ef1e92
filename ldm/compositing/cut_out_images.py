"""How a base of composites is shown an object: cut out of its pictures, in the light that these have in common."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ldm.compositing.composite import nearest
from ldm.compositing.cut_out import cut_out_of, cut_out_picture, silhouette_of
from ldm.compositing.white_balance import balanced
from ldm.data.boxes import Box
from ldm.data.image import from_bytes, to_bytes
from ldm.data.insertset import InsertSet, Sample
from ldm.data.object_crops import NEAREST, ObjectImages
from ldm.data.picture import read_rgb

SIZE = 320  # pixels: as much as an object has in a region of 512


class CutOutImages(ObjectImages):
    """Cut-outs [4,size,size], see `CutOut.picture`; larger than a reference, for they stand in the scene."""

    stored = True
    bends = False  # the base draws what it is shown

    def __init__(self, size: int = SIZE) -> None:
        super().__init__(size)
        self._known: dict[tuple[Path, Box, int], tuple[Tensor, Box]] = {}

    def reference(self, path: Path) -> Tensor:
        return cut_out_picture(path).picture(self.size)[None]

    def few_shot(self, insertset: InsertSet) -> Tensor:
        cut_outs = [cut_out_of(x, x.boxes[0], read_rgb(x.image)) for x in insertset.few_shot]
        return torch.stack([cut_out.picture(self.size) for cut_out in cut_outs])

    def own_reference(self, insertset: InsertSet, few_shot: Tensor) -> Tensor:
        """The reference's cut-out; if only few-shot pictures have silhouettes, that of these most like it.

        GrabCut errs, silhouettes do not.
        """
        reference = self.reference(insertset.reference)
        known = [i for i, sample in enumerate(insertset.few_shot) if sample.mask is not None]
        if not known or silhouette_of(insertset.reference) is not None:
            return reference
        return few_shot[known][nearest(reference[0], few_shot[known])][None]

    def in_picture(self, sample: Sample, box: Box, pixels: np.ndarray, size: int, pad: int = 0) -> Tensor:
        """The cut-out over mid-grey."""
        return from_bytes(self._cut_out(sample, box, pixels, size)[0])[:3]

    def own_box(self, sample: Sample, box: Box, pixels: np.ndarray, size: int) -> Box:
        return self._cut_out(sample, box, pixels, size)[1]

    def select(
        self, few_shot: Tensor | None, reference: Tensor, view: int, keep: bool = False
    ) -> tuple[Tensor, int]:
        """The reference, or the few-shot picture of this view, in the light that the few-shot pictures share.

        A reference that is to be kept is shown as it is. NEAREST is the few-shot picture most like it.
        """
        if few_shot is None:
            return super().select(few_shot, reference, view, keep)
        lit, few_shot = balanced(reference, few_shot), balanced(few_shot, few_shot)
        if not keep:
            reference = lit
        if view == NEAREST:
            return reference, 1 + nearest(lit[0], few_shot)
        if keep or not 0 < view <= len(few_shot):
            return reference, view
        return few_shot[view - 1 : view], view

    def _cut_out(self, sample: Sample, box: Box, pixels: np.ndarray, size: int) -> tuple[Tensor, Box]:
        """A cut-out as bytes [4,size,size], and its box; made once."""
        key = sample.image, box, size
        if key not in self._known:
            cut = cut_out_of(sample, box, pixels)
            self._known[key] = to_bytes(cut.picture(size)), cut.box
        return self._known[key]
