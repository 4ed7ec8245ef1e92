"""Which few-shot picture is kept from learning, to judge by: its name, and the set of pictures without it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ldm.batch.best_of import SEAM_WEIGHT
from ldm.data.image import to_image
from ldm.data.insertset import InsertSet, Sample
from ldm.data.object_crops import object_crop
from ldm.data.picture import read_rgb
from ldm.evaluation.metrics import identity_crop
from ldm.features.imagenet import ImageNetFeatures
from ldm.insertion.contact_sheet import contact_sheet, hatched, rgb8
from ldm.insertion.result_checks import seam_ratio
from ldm.insertion.roi import Roi, box_of
from ldm.models.base import Base
from ldm.validation.regions import STEPS, RegionFiller
from ldm.validation.score import DIGITS, Shown, ValidationScore

FEWEST = 4  # pictures of which one can be spared
TWIN = 0.95  # likeness above which two pictures are one; frames of one burst have 0.96


def view_features(features: ImageNetFeatures, samples: tuple[Sample, ...]) -> Tensor:
    """The object in each picture (its first box) => unit-length ImageNet features [n,1280]."""
    crops = [to_image(object_crop(read_rgb(sample.image), sample.boxes[0])) for sample in samples]
    return image_features(features, crops)


@torch.no_grad()
def image_features(features: ImageNetFeatures, images: list[Tensor]) -> Tensor:
    """Images [3,h,w] in [-1,1], of any sizes => unit-length ImageNet features [n,1280]."""
    squares = [identity_crop(image, Roi(0, 0, image.shape[2], image.shape[1])) for image in images]
    return F.normalize(features.pooled(torch.stack(squares).to(features.mean.device)), dim=1)


def spare_picture(features: ImageNetFeatures, insertset: InsertSet) -> str:
    """The stem of the picture to hold out of four or more; "" if none can be spared.

    It is the one most like the others: it takes least from learning, and tells most of what the object looks
    like. Never the one most like the reference, which is often cut from it, nor one with a twin.
    """
    samples = insertset.few_shot
    if len(samples) < FEWEST:
        return ""
    views = view_features(features, samples)
    reference = image_features(features, [to_image(read_rgb(insertset.reference))])
    alike = views @ views.T
    alike.fill_diagonal_(0)
    spared = alike.amax(1) < TWIN
    spared[int((views @ reference.T).argmax())] = False
    if not spared.any():
        return ""
    return samples[int(alike.sum(1).where(spared, torch.tensor(-1.0)).argmax())].image.stem


def hold_out(insertset: InsertSet, stem: str) -> tuple[InsertSet, tuple[Sample, ...]]:
    """The set without the few-shot picture of this name, and that picture; "" holds none out.

    ValueError if there is no such picture, or no other one.
    """
    if not stem:
        return insertset, ()
    held = tuple(sample for sample in insertset.few_shot if sample.image.stem == stem)
    kept = tuple(sample for sample in insertset.few_shot if sample.image.stem != stem)
    if not held:
        known = ", ".join(sample.image.stem for sample in kept)
        raise ValueError(f"hold_out {stem!r} is no few-shot picture of {insertset.root}; there are {known}")
    if not kept:
        raise ValueError(f"hold_out {stem!r} leaves no few-shot picture to learn from; add others, or none")
    return replace(insertset, few_shot=kept), held


REGIONS = 4
CODING = 5  # UNet forwards that the autoencoder costs a region, at full size


def regions_of(learnt: InsertSet, held: Sequence[Sample]) -> list[Sample]:
    """Pictures whose objects are drawn anew: those held out, then same-category ones, then learnt ones."""
    return [*held, *learnt.same_category, *learnt.few_shot][:REGIONS]


class Validator:
    """A judge, `Validator(base, step)`, of what is learnt from `learnt`; `held` are the pictures held out of it.

    Identity is the likeness to the held-out pictures, or to all learnt ones if there are none. `fill` draws
    what is judged, see `regions_of`.
    """

    def __init__(
        self, learnt: InsertSet, held: Sequence[Sample], features: ImageNetFeatures, fill: RegionFiller
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
        verdict = ValidationScore(step, means[0], means[1], means[2], tuple(round(x, DIGITS) for x in scores))
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
