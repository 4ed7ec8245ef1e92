"""Validation: a base in training inserts its object into regions of the object's own pictures, in one batch.

Results show what the weights draw: `make_fill` should transfer no detail of the reference.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from ldm.batch.best_of import SEAM_WEIGHT
from ldm.batch.contact_sheet import contact_sheet, hatched, rgb8
from ldm.data.boxes import Box, pixel_box
from ldm.data.image import to_image
from ldm.data.insertset import InsertSet, Sample
from ldm.data.object_crops import object_crop, squash
from ldm.data.picture import read_rgb
from ldm.features.imagenet import ImageNetFeatures
from ldm.insertion.blend import Blend, blend, composite, seam_ratio
from ldm.insertion.crop_paste import to_model_mask
from ldm.insertion.inpaint import Sampling, inpaint
from ldm.insertion.region import MakeFill, region_of
from ldm.insertion.roi import CropContext, box_of, crop, plan_roi
from ldm.models.base import Base
from ldm.models.cross_attention import Context
from ldm.objects.object_context import ObjectView, object_contexts
from ldm.validation.score import DIGITS, ValidationResult, ValidationScore

REGIONS = 4  # filled at most
GROWTH = 0.1  # of the object's box, on each side: how far the mask reaches beyond it
RADIUS = 3  # pixels around the mask that cv2.inpaint reads
SAMPLER, STEPS = "unipc", 8
CODING = 5  # UNet forwards that the autoencoder costs per region, at full size
SHEET_SIDE = 256  # pixels of a region on the sheet at most


@dataclass(frozen=True, eq=False)
class Place:
    """Where the object is to go: image [3,S,S] in [-1,1], mask bool [S,S] (true = the object goes here)."""

    image: Tensor
    mask: np.ndarray

    def emptied(self) -> Tensor:
        """The image with its masked part painted over from around it, so that the object is gone."""
        if self.mask.all():
            return torch.zeros_like(self.image)
        mask = self.mask.astype(np.uint8)
        ground = to_image(cv2.inpaint(rgb8(self.image), mask, RADIUS, cv2.INPAINT_TELEA))
        return torch.where(torch.from_numpy(self.mask), ground, self.image)


def place_of(sample: Sample, size: int, factor: float) -> Place:
    """The region around a picture's first box; its side is `factor` times the mask's longer side."""
    pixels = read_rgb(sample.image)
    left, top, right, bottom = pixel_box(_grown(sample.boxes[0]), pixels.shape[:2])
    mask = np.zeros(pixels.shape[:2], bool)
    mask[top:bottom, left:right] = True
    roi = plan_roi(mask, CropContext(roi_factor=factor))
    shown = to_model_mask(crop(mask, roi), size)[0, 0].numpy() > 0
    return Place(squash(crop(pixels, roi), size), shown)


def _grown(box: Box) -> Box:
    x0, y0, x1, y1 = box
    width, height = GROWTH * (x1 - x0), GROWTH * (y1 - y0)
    return x0 - width, y0 - height, x1 + width, y1 + height


class RegionFiller:
    """Inserts an object, shown as `view`, into `places`; `null`: see `null_context`."""

    def __init__(
        self,
        places: Sequence[Place],
        view: ObjectView,
        sampling: Sampling,
        seam: Blend,
        seed: int,
        null: Context | None,
        make_fill: MakeFill,
    ) -> None:
        self.places, self.view, self.fill = places, view, make_fill(view.picture)
        self.grounds = [place.emptied() for place in places]
        self.sampling = replace(sampling, sampler=SAMPLER, steps=min(STEPS, sampling.steps))
        self.seam, self.seed, self.null = seam, seed, null

    @torch.no_grad()
    def __call__(self, base: Base) -> Tensor:
        """Every region with the object as the base draws it now, [n,3,S,S]; unchanged outside the masks."""
        null = None if self.null is None else self.null.to(base.unet.conv_in.weight)
        contexts = object_contexts(base, self.view, null)
        regions = [
            region_of(ground, place.mask, [Generator().manual_seed(self.seed + i)])
            for i, (place, ground) in enumerate(zip(self.places, self.grounds, strict=True))
        ]
        fills = [self.fill(region) for region in regions]
        generated = inpaint(base, regions, [contexts] * len(regions), fills, self.sampling)
        results = [
            composite(r.known, *blend(r.known, image, r.mask, self.seam))
            for r, [image] in zip(regions, generated, strict=True)
        ]
        return torch.stack(results)

    def preview(self, base: Base) -> np.ndarray:
        """Reference, region, region with its mask, and result, of the first place: uint8 [S,4*S,3]."""
        place = self.places[0]
        reference = squash(rgb8(self.view.picture[0, :3]), place.image.shape[-1])
        parts = [reference, place.image, self(base)[0]]
        first, image, result = (rgb8(part) for part in parts)
        return np.concatenate([first, image, hatched(image, place.mask), result], axis=1)


def validation_pictures(training: InsertSet, held_out: Sequence[Sample]) -> list[Sample]:
    """Pictures whose regions are filled: held-out ones, then same-category ones, then training pictures."""
    return [*held_out, *training.same_category, *training.few_shot][:REGIONS]


class Validator:
    """`Validator(base, step)` scores a base that trains on `training`, without the pictures `held_out`.

    Identity is the similarity to the held-out pictures, or to the training pictures if there are none.
    """

    def __init__(
        self, training: InsertSet, held_out: Sequence[Sample], features: ImageNetFeatures, fill: RegionFiller
    ) -> None:
        self.fill, self.features = fill, features
        self.training = object_features(features, training.few_shot)
        self.target = object_features(features, held_out) if held_out else self.training
        self.similarity = nearest_other(self.training)
        shown = [*held_out, *training.few_shot]
        self.examples = [object_crop(read_rgb(x.image), x.boxes[0]) for x in (shown[0], shown[-1])]

    @torch.no_grad()
    def __call__(self, base: Base, step: int) -> ValidationResult:
        filled = self.fill(base)
        boxes = [(slice(None), *box_of(place.mask).slices) for place in self.fill.places]
        results = [image[box] for image, box in zip(filled, boxes, strict=True)]
        with torch.autocast("cpu", enabled=False):  # the pictures' features were made without it, too
            found = image_features(self.features, results)
            identity = (found @ self.target.T).mean(1)
            copying = (found @ self.training.T).amax(1) - self.similarity
        seams = [seam_ratio(x, place.mask) for x, place in zip(filled, self.fill.places, strict=True)]
        scores = [score(*x) for x in zip(identity.tolist(), seams, copying.tolist(), strict=True)]
        rounded = tuple(round(x, DIGITS) for x in scores)
        means = [round(float(np.mean(x)), DIGITS) for x in (identity.numpy(), seams, copying.numpy())]
        result = ValidationScore(step, means[0], means[1], means[2], rounded)
        return ValidationResult(result, self._sheet(filled, scores))

    def _sheet(self, filled: Tensor, scores: Sequence[float]) -> np.ndarray:
        """Pictures of the object on the left; above, the regions with their masks, below, the results."""
        masked = [hatched(rgb8(place.image), place.mask) for place in self.fill.places]
        rows = [[self.examples[0], *masked], [self.examples[1], *(rgb8(image) for image in filled)]]
        captions = ["target, training", *(f"score {x:.3f}" for x in scores)]
        return contact_sheet(rows, captions, min(SHEET_SIDE, filled.shape[-1]))


def object_features(features: ImageNetFeatures, samples: Sequence[Sample]) -> Tensor:
    """The object in each picture (its first box) => unit-length ImageNet features [n,1280]."""
    crops = [to_image(object_crop(read_rgb(sample.image), sample.boxes[0])) for sample in samples]
    return image_features(features, crops)


def image_features(features: ImageNetFeatures, images: list[Tensor]) -> Tensor:
    """Images [3,h,w] in [-1,1], of any sizes => unit-length ImageNet features [n,1280]."""
    return F.normalize(features.of(images), dim=1)


def nearest_other(features: Tensor) -> float:
    """Mean similarity of each of the unit features [n,c] to its nearest other one; nan for a single one."""
    if len(features) < 2:
        return float("nan")
    similarity = features @ features.T
    return float(similarity.fill_diagonal_(-1).amax(1).mean())


def validation_cost(regions: int, guidance_scale: float) -> int:
    """The cost of one validation, in UNet forwards."""
    return regions * (STEPS * (1 if guidance_scale == 1 else 2) + CODING)


def score(identity: float, seam: float, copying: float) -> float:
    """Identity, less penalties for a seam and for copying; a `copying` of nan counts as 0."""
    return identity - SEAM_WEIGHT * max(seam - 1, 0) - max(0.0, copying if copying == copying else 0.0)
