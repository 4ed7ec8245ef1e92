"""How a base trained on composites is shown an object: as white-balanced cut-outs of its pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ldm.compositing.composite import nearest
from ldm.compositing.cut_out import Segmenter, cut_out_of, cut_out_picture
from ldm.data.boxes import Box
from ldm.data.image import from_bytes, to_bytes
from ldm.data.insertset import InsertSet, Sample
from ldm.data.object_crops import NEAREST, ObjectImages
from ldm.data.picture import read_rgb

SIZE = 320  # pixels: about the size of an object in a region of 512
GAMMA = 2.2  # of pixel values: light is averaged and scaled in linear values
DARK = 0.02  # of white: a channel darker than this is too noisy to correct
OPAQUE_SHARE = 0.9  # of the highest alpha: pixels that certainly belong to the object
MAX_GAIN = 4.0  # a channel is brightened or darkened by at most this factor
FAINT = 1e-3  # alpha below which a colour is unknown


class CutOutImages(ObjectImages):
    """Cut-outs [4,size,size], see `CutOut.picture`; larger than CLIP's input, because they are composited."""

    stored = True
    bends = False  # the base draws the cut-out as it is shown

    def __init__(self, size: int = SIZE, segmenter: Segmenter | None = None) -> None:
        """`segmenter`: finds the objects without a silhouette; None: GrabCut."""
        super().__init__(size)
        self.segmenter = segmenter
        self._cut_outs: dict[tuple[Path, Box, int], tuple[Tensor, Box]] = {}

    def reference(self, path: Path) -> Tensor:
        return cut_out_picture(path, self.segmenter).picture(self.size)[None]

    def few_shot(self, insertset: InsertSet) -> Tensor:
        cut_outs = [cut_out_of(x, x.boxes[0], read_rgb(x.image), self.segmenter) for x in insertset.few_shot]
        return torch.stack([cut_out.picture(self.size) for cut_out in cut_outs])

    def cut_out(self, sample: Sample, box: Box, pixels: np.ndarray, size: int) -> Tensor:
        return from_bytes(self._cut_out(sample, box, pixels, size)[0])

    def in_picture(self, sample: Sample, box: Box, pixels: np.ndarray, size: int, pad: int = 0) -> Tensor:
        """The cut-out over mid-grey."""
        return self.cut_out(sample, box, pixels, size)[:3]

    def own_box(self, sample: Sample, box: Box, pixels: np.ndarray, size: int) -> Box:
        return self._cut_out(sample, box, pixels, size)[1]

    def select(
        self, few_shot: Tensor | None, reference: Tensor, view: int, keep: bool = False
    ) -> tuple[Tensor, int]:
        """The reference, or the few-shot picture of this view, white-balanced to the few-shot pictures.

        With `keep` the reference keeps its hue, and only its brightness becomes theirs. NEAREST selects the
        few-shot picture most similar to it.
        """
        if few_shot is None:
            return super().select(few_shot, reference, view, keep)
        neutral, few_shot = white_balanced(reference, few_shot), white_balanced(few_shot, few_shot)
        reference = white_balanced(reference, few_shot, hue=False) if keep else neutral
        if view == NEAREST:
            return reference, 1 + nearest(neutral[0], few_shot)
        if keep or not 0 < view <= len(few_shot):
            return reference, view
        return few_shot[view - 1 : view], view

    def _cut_out(self, sample: Sample, box: Box, pixels: np.ndarray, size: int) -> tuple[Tensor, Box]:
        """A cut-out, uint8 [4,size,size], and its box; cached."""
        key = sample.image, box, size
        if key not in self._cut_outs:
            cut = cut_out_of(sample, box, pixels, self.segmenter)
            self._cut_outs[key] = to_bytes(cut.picture(size)), cut.box
        return self._cut_outs[key]


def white_balanced(cut_outs: Tensor, views: Tensor, hue: bool = True) -> Tensor:
    """Scale the channels of cut-outs [n,4,P,P] to the mean colour of an object's views [N,4,P,P].

    The mean colour is taken in linear light; one gain a channel corrects exposure and white balance (von
    Kries). The target is the geometric mean over the views, so that a photo at night or under a blue sky
    counts little. Without `hue` all channels have one gain, their geometric mean. Empty cut-outs are ignored
    and unchanged, as are pictures without alpha, [n,3,P,P].
    """
    if cut_outs.shape[1] != 4 or views.shape[1] != 4:
        return cut_outs
    known = [mean_colour(view) for view in views if _is_visible(view)]
    if not known:
        return cut_outs
    common = torch.stack(known).log().mean(0)
    gains = [(common - mean_colour(x).log()).exp() if _is_visible(x) else None for x in cut_outs]
    if not hue:
        gains = [None if gain is None else gain.log().mean().exp().expand(3) for gain in gains]
    scaled = [x if gain is None else _with_gain(x, gain) for x, gain in zip(cut_outs, gains, strict=True)]
    return torch.stack(scaled)


def mean_colour(cut_out: Tensor) -> Tensor:
    """The mean linear colour [3] of a non-empty cut-out [4,P,P], white = 1, plus DARK."""
    alpha = cut_out[3]
    solid = alpha > OPAQUE_SHARE * alpha.max()
    return DARK + _linear(cut_out[:3, solid] / alpha[solid]).mean(1)


def _is_visible(cut_out: Tensor) -> bool:
    return bool(cut_out[3].max() > FAINT)


def _with_gain(cut_out: Tensor, gain: Tensor) -> Tensor:
    alpha = cut_out[3:]
    light = _linear(cut_out[:3] / alpha.clamp_min(FAINT)) * gain.clamp(1 / MAX_GAIN, MAX_GAIN)[:, None, None]
    return torch.cat([(light.clamp(0, 1) ** (1 / GAMMA) * 2 - 1) * alpha, alpha])


def _linear(colours: Tensor) -> Tensor:
    return ((colours.clamp(-1, 1) + 1) / 2) ** GAMMA
