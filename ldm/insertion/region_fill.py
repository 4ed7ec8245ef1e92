"""What the UNet is shown in a masked region, and how the decoded image is used.

This is the interface between the method and what a particular base needs beside it. The method: the region is
mid-grey, and every pixel of the mask is generated.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from torch import Tensor

from ldm.data.image import resize
from ldm.insertion.region import Region
from ldm.models.cross_attention import Contexts


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

    def finish(self, images: Tensor, decoded_shown: Callable[[], Tensor]) -> list[Tensor]:
        """Decoded samples [n,3,S,S] => images [3,h,w] of the region's size.

        `decoded_shown`: what the UNet sees, through the autoencoder, [3,S,S].
        """
        return list(resize(images, self.region.mask.shape))

    def paste_alpha(self) -> np.ndarray | None:
        """A factor [h,w] in [0,1] of the alpha by which the region is pasted; None: 1 everywhere."""
        return None


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
