"""One background's insertion as arrays: the request, each square region, its fill, and the result.

A `RegionFill` says what the UNet is shown in the masked region, and how the decoded image is used. It is the
interface between the method and what a particular base needs beside it. The method: the region is mid-grey,
and every pixel of the mask is generated.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from torch import Generator, Tensor

from ldm.data.image import resize
from ldm.data.picture import Picture
from ldm.insertion.crop_paste import Patch, crop_region, patched, shrunk_mask
from ldm.insertion.object_source import ObjectSource
from ldm.insertion.roi import Roi, crop, visible

if TYPE_CHECKING:
    from ldm.models.cross_attention import Contexts  # it would load diffusers


@dataclass(frozen=True, eq=False)
class InsertRequest:
    """Insert the object `source` once for each of `seeds`.

    `mask`: bool [H,W]; `rois`: squares that cover it.
    """

    mask: np.ndarray
    rois: Sequence[Roi]
    seeds: Sequence[int]
    source: ObjectSource = field(default_factory=ObjectSource)


@dataclass(frozen=True, eq=False)
class Result:
    """One composite, as patches on its background, and its record: seed, regions, seams, seconds."""

    background: Picture
    patches: tuple[Patch, ...]
    record: dict[str, Any]

    @property
    def picture(self) -> Picture:
        """The composite; it is not stored, because memory holds only one large picture."""
        return patched(self.background, self.patches)


MOST = 2048  # px: no model makes more detail, and 100 megapixels in floats would be 1.2 GB a copy


class Region(NamedTuple):
    """One region of a request: image [3,h,w] in [-1,1], mask bool [h,w], noise generators.

    A region of more than `MOST` px is processed at that size; `full_mask` has the original size. `seen`: its
    part inside the picture, in pixels of `full_mask`; beyond, image and mask are mirrored. None: all of it.
    """

    roi: Roi
    known: Tensor
    mask: np.ndarray
    full_mask: np.ndarray
    noise: Sequence[Generator]
    seen: Roi | None = None

    @property
    def visible_mask(self) -> np.ndarray:
        """The mask inside the picture, bool [h,w]: where the object has to be."""
        if self.seen is None:
            return self.mask
        out, factor = np.zeros_like(self.mask), len(self.mask) / len(self.full_mask)
        part = Roi(*(round(edge * factor) for edge in self.seen)).slices
        out[part] = self.mask[part]
        return out


def region_in(background: Picture, request: InsertRequest, turn: int, noise: Sequence[Generator]) -> Region:
    """Region number `turn` of a request, from 0."""
    roi = request.rois[turn]
    full = crop(request.mask, roi)
    seen, known = visible(roi, background.size).within(roi), crop_region(background, roi, MOST)
    return Region(roi, known, shrunk_mask(full, MOST), full, noise, seen)


def region_of(known: Tensor, mask: np.ndarray, noise: Sequence[Generator]) -> Region:
    """A whole image [3,h,w] in [-1,1] as a region; mask bool [h,w]."""
    whole = Roi(0, 0, known.shape[2], known.shape[1])
    return Region(whole, known, mask, mask, noise)


class RegionFill:
    """The fill of one region, as in the paper. A subclass may show an image, or keep some pixels."""

    def __init__(self, region: Region) -> None:
        self.region = region

    @property
    def image(self) -> Tensor | None:
        """The region with the object in it, before the model, [3,h,w] in [-1,1]; None: the mask is grey."""
        return None

    def shown(self, mask: Tensor) -> Tensor | None:
        """What the UNet sees in the mask, float [1,1,S,S] (1 = fill): [1,3,S,S]; None: mid-grey."""
        return None

    def own(self, mask: Tensor) -> Tensor | None:
        """Where in what is `shown` the object is, [1,1,S,S] in [0,1]; None: not known."""
        return None

    def finish(self, images: Tensor, decoded_shown: Callable[[], Tensor]) -> list[Tensor]:
        """Decoded samples [n,3,S,S] => images [3,h,w] of the region's size.

        `decoded_shown`: what the UNet sees, through the autoencoder, [3,S,S].
        """
        return list(resize(images, self.region.mask.shape))


class ObjectFill:
    """Makes the fill of each region for one object; a subclass holds an image of the object."""

    def __call__(self, region: Region) -> RegionFill:
        """The fill of one region."""
        return RegionFill(region)

    def joined(self, others: Sequence[ObjectFill], masks: Tensor) -> ObjectFill:
        """Of this object and others in one region, each in its own of `masks` [k,h,w] in [0,1]."""
        return self


MakeFill = Callable[[Tensor | None], ObjectFill]  # the object's picture [1,c,P,P] => its fill


def grey_fill(picture: Tensor | None) -> ObjectFill:
    """The fill of the paper: mid-grey for every object."""
    return ObjectFill()


class InsertableObject(NamedTuple):
    """An object that can be inserted: folded contexts of one sample, and how it fills a region."""

    contexts: Contexts
    fill: ObjectFill
