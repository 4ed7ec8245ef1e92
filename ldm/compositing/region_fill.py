"""A region that shows the UNet the object's cut-out, starts from it, and keeps what the cut-out tells best.

For a base that was trained on composites (configs/mini.yaml). Everything that such a base needs beside the
method is here: the core knows `ldm.insertion.region_fill` only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ldm.compositing.composite import VISIBLE, composite, composite_layers, flattened, placed
from ldm.compositing.detail_transfer import transfer_detail, with_contact_shadow
from ldm.insertion.region import Region
from ldm.insertion.region_fill import ObjectFill, RegionFill, Start


@dataclass(frozen=True)
class CompositeSettings:
    """`strength`: noise level t/T at which sampling starts from the composite (as SDEdit of Meng et al. 2022);
    1: from noise alone. `contact_shadow`: how dark the shadow under the object is at its deepest, 0 to 1.
    `detail_transfer`: scale, in pixels of a 512-px region, below which detail is the cut-out's and the
    scene's own; 0: every pixel is the model's. `paste_margin`: how far from the object what was generated
    around it is pasted, fading, in shares of the object's longer side; 0: all of the mask is.
    """

    strength: float = 1.0
    contact_shadow: float = 0.0
    detail_transfer: float = 0.0
    paste_margin: float = 0.0


@dataclass(frozen=True, eq=False)
class CompositeObject(ObjectFill):
    """Cut-outs [k,4,P,P], each in its own of `regions` [k,h,w] in [0,1]; None: one object, all of the hole."""

    cut_outs: Tensor
    settings: CompositeSettings = field(default_factory=CompositeSettings)
    regions: Tensor | None = None

    def __call__(self, region: Region) -> CompositeFill:
        return CompositeFill(region, self)

    def joined(self, others: Sequence[ObjectFill], masks: Tensor) -> CompositeObject:
        each = [self, *(one for one in others if isinstance(one, CompositeObject))]
        return CompositeObject(torch.cat([one.cut_outs for one in each]), self.settings, masks)


def make_composite_fill(settings: CompositeSettings) -> Callable[[Tensor | None], ObjectFill]:
    """Settings => what turns an object's picture [1,3 or 4,P,P] into its fill; without alpha it is opaque."""

    def make(picture: Tensor | None) -> ObjectFill:
        if picture is None:
            return ObjectFill()
        opaque = picture.shape[1] == 3
        return CompositeObject(F.pad(picture, [0, 0, 0, 0, 0, 1], value=1.0) if opaque else picture, settings)

    return make


class CompositeFill(RegionFill):
    """One region with the object's cut-out composited into its hole."""

    def __init__(self, region: Region, of: CompositeObject) -> None:
        super().__init__(region)
        self.of, self.settings = of, of.settings

    def shown(self, hole: Tensor) -> Tensor:
        return flattened(composite_layers(self.of.cut_outs, self.of.regions, hole))

    def start(self) -> Start | None:
        if self.settings.strength == 1 and not self.settings.detail_transfer:
            return None
        return Start(self.image, self.settings.strength)

    def finish(self, images: Tensor, decoded_start: Callable[[], Tensor]) -> list[Tensor]:
        """With `detail_transfer`, the start image changed as the model changed its coarser view of it."""
        if not self.settings.detail_transfer:
            return super().finish(images, decoded_start)
        coarse, alpha = decoded_start(), self.layer[3]  # what the autoencoder loses of it is no change
        width = self.settings.detail_transfer
        return [transfer_detail(self.image, alpha, image - coarse, width) for image in images]

    def paste_alpha(self) -> np.ndarray | None:
        margin = self.settings.paste_margin
        return paste_margin(self.shadowed_layer[3].numpy() > VISIBLE, margin) if margin else None

    @cached_property
    def layers(self) -> Tensor:
        """The objects in the region, a layer each, [k,4,h,w]."""
        return composite_layers(self.of.cut_outs, self.of.regions, self.hole[None])

    @cached_property
    def layer(self) -> Tensor:
        """The objects in the region, [4,h,w]."""
        return flattened(self.layers)[0]

    @cached_property
    def shadowed_layer(self) -> Tensor:
        """The same over their contact shadows."""
        darkness = self.settings.contact_shadow
        shadowed = torch.stack([with_contact_shadow(layer, darkness) for layer in self.layers])
        return flattened(shadowed)[0] * self.hole

    @cached_property
    def image(self) -> Tensor:
        """The region with the objects in it, [3,h,w] in [-1,1]."""
        return composite(self.shadowed_layer[None], self.region.known[None])[0]

    @property
    def hole(self) -> Tensor:
        """[1,h,w] in {0,1}."""
        return torch.from_numpy(self.region.hole)[None].float()


def paste_margin(shown: np.ndarray, width: float) -> np.ndarray:
    """Alpha [h,w] that is 1 where the object is shown, bool [h,w], and falls to 0 at `width` of its longer side.

    It is 1 everywhere without an object.
    """
    if not shown.any():
        return np.ones(shown.shape, np.float32)
    longer = max(int(np.ptp(np.flatnonzero(shown.any(side)))) + 1 for side in (0, 1))
    distance = cv2.distanceTransform((~shown).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    fall = np.clip(1 - distance / max(width * longer, 1), 0, 1)
    return fall * fall * (3 - 2 * fall)


def shown_in_training(batch: Mapping[str, Tensor]) -> Tensor:
    """TrainingPairs with `reference` [b,3,R,R], `place` [b,4] and `mask` [b,1,S,S] => what their holes show [b,3,S,S]."""
    return placed(batch["reference"][:, :3], batch["place"], batch["mask"])
