"""An object on trial while it is learnt: inserted into fixed regions, scored for identity, seam and copying.

In: the object's pictures. Out: a judge for `ldm.training.judging`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ldm.data.image import read_rgb
from ldm.data.insertset import InsertSet, Sample
from ldm.data.shown import object_crop
from ldm.evaluation.filling import STEPS, Filling
from ldm.evaluation.held_out import image_features, view_features
from ldm.insertion.best import SEAM_WEIGHT
from ldm.insertion.roi import box_of
from ldm.insertion.seam import seam_ratio
from ldm.insertion.sheet import contact_sheet, hatched, rgb8
from ldm.models.base import Base
from ldm.models.imagenet import ImageNetFeatures
from ldm.training.verdicts import DIGITS, Shown, Verdict

REGIONS = 4
CODING = 5  # UNet forwards that the autoencoder costs a region, at full size


def regions_of(learnt: InsertSet, held: Sequence[Sample]) -> list[Sample]:
    """Pictures whose objects are drawn anew: those held out, then same-category ones, then learnt ones."""
    return [*held, *learnt.same_category, *learnt.few_shot][:REGIONS]


class Trial:
    """A judge, `Trial(base, step)`, of what is learnt from `learnt`; `held` are the pictures held out of it.

    Identity is the likeness to the held-out pictures, or to all learnt ones if there are none. `fill` draws
    what is judged, see `regions_of`.
    """

    def __init__(
        self, learnt: InsertSet, held: Sequence[Sample], features: ImageNetFeatures, fill: Filling
    ) -> None:
        self.fill = fill
        self.features = features
        self.known = view_features(features, learnt.few_shot)
        self.views = view_features(features, tuple(held)) if held else self.known
        self.alike = nearest_other(self.known)
        shown = [*held, *learnt.few_shot]
        self.wanted = [object_crop(read_rgb(x.image), x.boxes[0]) for x in (shown[0], shown[-1])]

    @torch.no_grad()
    def __call__(self, base: Base, step: int) -> Shown:
        filled, edges = self.fill(base)
        boxes = [(slice(None), *box_of(place.mask).slices) for place in self.fill.places]
        results = [image[box] for image, box in zip(filled, boxes, strict=True)]
        with torch.autocast("cpu", enabled=False):  # the views were seen without it, too
            found = image_features(self.features, results)
            identity = (found @ self.views.T).mean(1)
            copying = (found @ self.known.T).amax(1) - self.alike
        seams = [seam_ratio(*each) for each in zip(filled, edges, strict=True)]
        scores = [score(*x) for x in zip(identity.tolist(), seams, copying.tolist(), strict=True)]
        means = [round(float(np.mean(x)), DIGITS) for x in (identity.numpy(), seams, copying.numpy())]
        verdict = Verdict(step, means[0], means[1], means[2], tuple(round(x, DIGITS) for x in scores))
        return Shown(verdict, self._sheet(filled, scores))

    def _sheet(self, filled: Tensor, scores: Sequence[float]) -> np.ndarray:
        """What a result should look like; above, the regions with their holes, below, what went into them."""
        holes = [hatched(rgb8(place.image), place.mask) for place in self.fill.places]
        rows = [[self.wanted[0], *holes], [self.wanted[1], *(rgb8(image) for image in filled)]]
        captions = ["judged by, learnt", *(f"score {x:.3f}" for x in scores)]
        return contact_sheet(rows, captions, min(256, filled.shape[-1]))


def nearest_other(features: Tensor) -> float:
    """Likeness of each of the unit features [n,c] to its nearest other one, mean; nan for a single one."""
    if len(features) < 2:
        return float("nan")
    alike = features @ features.T
    return float(alike.fill_diagonal_(-1).amax(1).mean())


def trial_cost(regions: int, guidance_scale: float) -> int:
    """UNet forwards of one verdict, all else in the same coin."""
    return regions * (STEPS * (1 if guidance_scale == 1 else 2) + CODING)


def score(identity: float, seam: float, copying: float) -> float:
    """Identity, less what a seam and copying take from it; `copying` may be nan, then it takes nothing."""
    return identity - SEAM_WEIGHT * max(seam - 1, 0) - max(0.0, copying if copying == copying else 0.0)
