"""The RegionFill of a base trained on composites (configs/mini.yaml): the masked region shows the object
composited into it.

Such a base differs from the published method only here; the core knows `ldm.insertion.region_fill`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ldm.compositing.background_fill import fill_background
from ldm.compositing.composite import (
    VISIBLE,
    composite,
    composite_layers,
    flattened,
    transfer_detail,
)
from ldm.data.image import resize
from ldm.insertion.region import Region
from ldm.insertion.region_fill import ObjectFill, RegionFill
from ldm.insertion.roi import box_of


@dataclass(frozen=True)
class CompositeSettings:
    """How a composite is used.

    `detail_transfer`: scale in pixels of a 512-px region below which detail is taken from the composite; 0:
    every pixel is the model's. `keep_scene`: the object stands before the scene that is inside the mask, else
    before the background, continued from around the mask. `paste_margin`, with `keep_scene`: how far around
    the object the result is pasted, fading out, in shares of the object's longer side; 0: all of the mask.
    """

    detail_transfer: float = 0.0
    keep_scene: bool = False
    paste_margin: float = 0.0


@dataclass(frozen=True, eq=False)
class CompositeObject(ObjectFill):
    """Cut-outs [k,4,P,P] of k objects, and their `regions` [k,h,w] in [0,1]; None: all of the mask."""

    cut_outs: Tensor
    settings: CompositeSettings = field(default_factory=CompositeSettings)
    regions: Tensor | None = None

    def __call__(self, region: Region) -> CompositeFill:
        return CompositeFill(region, self)

    def joined(self, others: Sequence[ObjectFill], masks: Tensor) -> CompositeObject:
        each = [self, *(one for one in others if isinstance(one, CompositeObject))]
        return CompositeObject(torch.cat([one.cut_outs for one in each]), self.settings, masks)


def make_composite_fill(settings: CompositeSettings) -> Callable[[Tensor | None], ObjectFill]:
    """Settings => a function from an object's picture [1,3 or 4,P,P] to its fill; RGB is opaque."""

    def make(picture: Tensor | None) -> ObjectFill:
        if picture is None:
            return ObjectFill()
        opaque = picture.shape[1] == 3
        return CompositeObject(F.pad(picture, [0, 0, 0, 0, 0, 1], value=1.0) if opaque else picture, settings)

    return make


class CompositeFill(RegionFill):
    """One region with the object's cut-out composited into its mask."""

    def __init__(self, region: Region, of: CompositeObject) -> None:
        super().__init__(region)
        self.of, self.settings = of, of.settings

    def shown(self, mask: Tensor) -> Tensor:
        return resize(self.image[None], mask.shape[-1])

    def finish(self, images: Tensor, decoded_shown: Callable[[], Tensor]) -> list[Tensor]:
        """With `detail_transfer`, the composite with the model's large-scale change."""
        if not self.settings.detail_transfer:
            return super().finish(images, decoded_shown)
        coarse, alpha = decoded_shown(), self.layer[3]  # the autoencoder's loss is not a change
        width = self.settings.detail_transfer
        return [transfer_detail(self.image, alpha, image - coarse, width) for image in images]

    def paste_alpha(self) -> np.ndarray | None:
        margin = self.settings.paste_margin if self.settings.keep_scene else 0.0
        return paste_margin(self.layer[3].numpy() > VISIBLE, margin) if margin else None

    @cached_property
    def layer(self) -> Tensor:
        """All objects in the region, [4,h,w]."""
        return flattened(composite_layers(self.of.cut_outs, self.of.regions, self.mask[None]))[0]

    @cached_property
    def image(self) -> Tensor:
        """The region with the objects in it, [3,h,w] in [-1,1]."""
        return composite(self.layer[None], self.background[None])[0]

    @cached_property
    def background(self) -> Tensor:
        """What the objects stand before, [3,h,w] in [-1,1]."""
        if self.settings.keep_scene:
            return self.region.known
        pixels = self.region.known.permute(1, 2, 0).numpy()
        return torch.from_numpy(fill_background(pixels, self.region.mask)).permute(2, 0, 1)

    @property
    def mask(self) -> Tensor:
        """[1,h,w] in {0,1}."""
        return torch.from_numpy(self.region.mask)[None].float()


def paste_margin(shown: np.ndarray, width: float) -> np.ndarray:
    """Paste alpha [h,w]: 1 on the object (bool [h,w]), falling to 0 at `width` of its longer side around it.

    Without an object it is 1 everywhere.
    """
    if not shown.any():
        return np.ones(shown.shape, np.float32)
    distance = cv2.distanceTransform((~shown).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    fall = np.clip(1 - distance / max(width * max(box_of(shown).size), 1), 0, 1)
    return fall * fall * (3 - 2 * fall)
