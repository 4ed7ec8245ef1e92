"""Regions of an object's own pictures, filled anew with what a base knows of it while it learns.

Few UNet forwards: all regions in one batch, few steps of a fast solver, the same noise each time. What the
weights draw is shown: `make_fill` should transfer no detail of the reference.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch
from torch import Generator, Tensor

from ldm.data.boxes import Box
from ldm.data.image import to_image
from ldm.data.insertset import Sample
from ldm.data.object_crops import squash
from ldm.data.picture import read_rgb
from ldm.data.training_masks import pixel_box
from ldm.insertion.blend import BLENDS, Blend, composite
from ldm.insertion.contact_sheet import hatched, rgb8
from ldm.insertion.inpaint import Sampling, inpaint
from ldm.insertion.insert import blended
from ldm.insertion.paste import to_model_mask
from ldm.insertion.region import region_of
from ldm.insertion.region_fill import MakeFill, grey_fill
from ldm.insertion.roi import crop, plan_roi
from ldm.models.base import Base
from ldm.models.context import Context
from ldm.objects.object_context import ObjectView, object_contexts

GROWTH = 0.1  # of the object's box, on each side: how far the mask reaches beyond it
RADIUS = 3  # pixels around a point that it is told by, see cv2.inpaint
SAMPLER, STEPS = "unipc", 8
ANY = Sampling()
SEAM = BLENDS["membrane"]


@dataclass(frozen=True, eq=False)
class Place:
    """Where the object is to go: image [3,S,S] in [-1,1] of a region, mask bool [S,S]."""

    image: Tensor
    mask: np.ndarray

    def emptied(self) -> Tensor:
        """The picture without what is in the mask, which must not show through what is drawn there."""
        if self.mask.all():
            return torch.zeros_like(self.image)
        mask = self.mask.astype(np.uint8)
        ground = to_image(cv2.inpaint(rgb8(self.image), mask, RADIUS, cv2.INPAINT_TELEA))
        return torch.where(torch.from_numpy(self.mask), ground, self.image)


def place_of(sample: Sample, size: int, factor: float) -> Place:
    """The surroundings of a picture's first box, which is to be filled anew."""
    pixels = read_rgb(sample.image)
    left, top, right, bottom = pixel_box(_grown(sample.boxes[0]), pixels.shape[:2])
    mask = np.zeros(pixels.shape[:2], bool)
    mask[top:bottom, left:right] = True
    roi = plan_roi(mask, factor=factor)
    hole = to_model_mask(crop(mask, roi), size)[0, 0].numpy() > 0
    return Place(squash(crop(pixels, roi), size), hole)


class RegionFiller:
    """Draws an object, as `view` shows it, into `places`; `null`: see `null_context`."""

    def __init__(
        self,
        places: Sequence[Place],
        view: ObjectView,
        sampling: Sampling = ANY,
        seam: Blend = SEAM,
        seed: int = 0,
        null: Context | None = None,
        make_fill: MakeFill = grey_fill,
    ) -> None:
        self.places, self.view, self.fill = places, view, make_fill(view.picture)
        self.grounds = [place.emptied() for place in places]
        self.sampling = replace(sampling, sampler=SAMPLER, steps=STEPS)
        self.seam, self.seed, self.null = seam, seed, null

    @torch.no_grad()
    def __call__(self, base: Base) -> tuple[Tensor, list[np.ndarray]]:
        """Every region with the object as the base knows it now, [n,3,S,S]; outside the masks as it was.

        And whose edge each one's seam is, see `blended`.
        """
        null = None if self.null is None else self.null.to(base.unet.conv_in.weight)
        contexts = object_contexts(base, self.view, null)
        regions = [
            region_of(ground, place.mask, [Generator().manual_seed(self.seed + i)])
            for i, (place, ground) in enumerate(zip(self.places, self.grounds, strict=True))
        ]
        fills = [self.fill(region) for region in regions]
        generated = inpaint(base, regions, [contexts] * len(regions), fills, self.sampling)
        laid = [blended(fill, image, self.seam) for fill, [image] in zip(fills, generated, strict=True)]
        results = [
            composite(r.known, image, alpha) for r, (image, alpha, _) in zip(regions, laid, strict=True)
        ]
        return torch.stack(results), [edge for _, _, edge in laid]

    def preview(self, base: Base) -> np.ndarray:
        """Reference, picture, its region to fill, and filled, of the first place: uint8 [S,4*S,3]."""
        place = self.places[0]
        shown = squash(rgb8(self.view.picture[0, :3]), place.image.shape[-1])
        filled, _ = self(base)
        parts = [rgb8(shown), rgb8(place.image), hatched(rgb8(place.image), place.mask), rgb8(filled[0])]
        return np.concatenate(parts, axis=1)


def _grown(box: Box) -> Box:
    x0, y0, x1, y1 = box
    width, height = GROWTH * (x1 - x0), GROWTH * (y1 - y0)
    return x0 - width, y0 - height, x1 + width, y1 + height
