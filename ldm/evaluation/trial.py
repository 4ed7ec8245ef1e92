"""An object on trial while it is learnt: inserted into fixed regions, scored for identity, seam and copying.

In: the object's pictures. Out: a judge for `ldm.training.judging`. All of a trial is few UNet forwards: all
regions in one batch, few steps of a fast solver, the same noise each time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Generator, Tensor

from ldm.data.boxes import Box
from ldm.data.image import read_rgb
from ldm.data.insertset import InsertSet, Sample
from ldm.data.masks import pixel_box
from ldm.data.shown import object_crop, reference_image, squash
from ldm.evaluation.held_out import image_features, view_features
from ldm.insertion.best import SEAM_WEIGHT
from ldm.insertion.blend import BLENDS, Blend, composite
from ldm.insertion.inpaint import inpaint
from ldm.insertion.insert import overlay, pasted
from ldm.insertion.paste import to_model_mask
from ldm.insertion.roi import box_of, crop, plan_roi
from ldm.insertion.sampling import Sampling
from ldm.insertion.seam import seam_ratio
from ldm.insertion.sheet import contact_sheet, hatched, rgb8
from ldm.insertion.square import square_of
from ldm.models.base import Base
from ldm.models.contexts import Context
from ldm.models.imagenet import ImageNetFeatures
from ldm.objects.pose import Pose
from ldm.training.verdicts import DIGITS, Shown, Verdict

REGIONS = 4
CODING = 5  # UNet forwards that the autoencoder costs a region, at full size
GROWTH = 0.1  # of the object's box, on each side: how far the mask reaches beyond it
SAMPLER, STEPS = "unipc", 8
ANY = Sampling()


@dataclass(frozen=True, eq=False)
class Place:
    """Where the object is to go: image [3,S,S] in [-1,1] of a region, mask bool [S,S]."""

    image: Tensor
    mask: np.ndarray


def place_of(sample: Sample, size: int, factor: float) -> Place:
    """The surroundings of a picture's first box, which is to be filled anew."""
    pixels = read_rgb(sample.image)
    left, top, right, bottom = pixel_box(_grown(sample.boxes[0]), pixels.shape[:2])
    mask = np.zeros(pixels.shape[:2], bool)
    mask[top:bottom, left:right] = True
    roi = plan_roi(mask, factor=factor)
    hole = to_model_mask(crop(mask, roi), size)[0, 0].numpy() > 0
    return Place(squash(crop(pixels, roi), size), hole)


class Trial:
    """A judge, `Trial(base, step)`, of what is learnt from `learnt`; `held` are the pictures held out of it.

    Regions are those of held-out pictures, then of same-category ones, then of learnt ones. Identity is the
    likeness to the held-out pictures, or to all learnt ones if there are none. `null`: see `null_of`.
    `pose`: by default the reference and all tokens.
    """

    def __init__(
        self,
        learnt: InsertSet,
        held: Sequence[Sample],
        features: ImageNetFeatures,
        size: int,
        reference_size: int,
        *,
        sampling: Sampling = ANY,
        seam: Blend = BLENDS["gain+membrane"],
        roi_factor: float = 2.0,
        seed: int = 0,
        null: Context | None = None,
        pose: Pose | None = None,
    ) -> None:
        chosen = [*held, *learnt.same_category, *learnt.few_shot][:REGIONS]
        self.places = [place_of(sample, size, roi_factor) for sample in chosen]
        self.pose = pose or Pose(reference_image(learnt.reference, reference_size), 0)
        # what the weights draw is judged, not the detail that the reference would keep
        self.sampling = replace(sampling, sampler=SAMPLER, steps=STEPS, refine=0.0, reuse=1, own_detail=0.0)
        self.seam, self.seed = seam, seed
        self.null = null
        self.features = features
        self.known = view_features(features, learnt.few_shot)
        self.views = view_features(features, tuple(held)) if held else self.known
        self.alike = nearest_other(self.known)
        shown = [*held, *learnt.few_shot]
        self.wanted = [object_crop(read_rgb(x.image), x.boxes[0]) for x in (shown[0], shown[-1])]

    @torch.no_grad()
    def __call__(self, base: Base, step: int) -> Shown:
        filled, edges = self.fill(base)
        boxes = [(slice(None), *box_of(place.mask).slices) for place in self.places]
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

    def fill(self, base: Base) -> tuple[Tensor, list[np.ndarray]]:
        """Every region with the object as the base knows it now, [n,3,S,S]; outside the masks as it was.

        And whose edge each one's seam is, see `pasted`.
        """
        reference = self.pose.reference.to(base.device)
        null = None if self.null is None else self.null.to(base.unet.conv_in.weight)
        contexts = base.contexts(base.context(reference, self.pose.view), null, reference)
        squares = [
            square_of(
                place.image, place.mask, contexts.collage, [Generator().manual_seed(self.seed + i)],
                self.sampling.shadow,
            )
            for i, place in enumerate(self.places)
        ]  # fmt: skip
        generated = inpaint(base, squares, [contexts] * len(squares), self.sampling)
        laid = [overlay(s, image, self.seam) for s, [image] in zip(squares, generated, strict=True)]
        results = [composite(s.known, *each) for s, each in zip(squares, laid, strict=True)]
        edges = [pasted(s, alpha, self.seam) for s, (_, alpha) in zip(squares, laid, strict=True)]
        return torch.stack(results), edges

    def _sheet(self, filled: Tensor, scores: Sequence[float]) -> np.ndarray:
        """What a result should look like; above, the regions with their holes, below, what went into them."""
        holes = [hatched(rgb8(place.image), place.mask) for place in self.places]
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


def _grown(box: Box) -> Box:
    x0, y0, x1, y1 = box
    width, height = GROWTH * (x1 - x0), GROWTH * (y1 - y0)
    return x0 - width, y0 - height, x1 + width, y1 + height
