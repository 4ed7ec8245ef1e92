"""An object cut out in the pose of a scene's truth, under another light, and put where it stands there.

With the pose given, what is left to a method is light, shadow and edges, and pixels compare with the truth.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ldm.compositing.composite import composite_over
from ldm.compositing.composite_fill import CompositeFill, CompositeObject
from ldm.compositing.object_cut_outs import white_balanced
from ldm.data.image import to_image
from ldm.data.picture import Picture, read_alpha, read_rgb
from ldm.insertion.crop_paste import crop_region, paste_region, patched
from ldm.insertion.region import Region
from ldm.insertion.roi import Roi, box_of, crop

PICTURE, PLACE = "posed_0.png", "posed.json"  # of a scene's folder


@dataclass(frozen=True)
class Posed:
    """A picture with alpha, and its box x0 y0 x1 y1 in the scene, in pixels."""

    picture: Path
    box: Roi

    def layer(self, size: tuple[int, int]) -> np.ndarray:
        """Colours times alpha in [-1,1], and alpha, on a scene of (H, W): float [H,W,4], 0 elsewhere."""
        alpha = read_alpha(self.picture)
        assert alpha is not None, "read_posed checks it"
        weight = torch.from_numpy(alpha)[None].float() / 255
        own = torch.cat([to_image(read_rgb(self.picture)) * weight, weight])
        out = np.zeros((*size, 4), np.float32)
        out[self.box.slices] = own.permute(1, 2, 0).numpy()
        return out


def read_posed(folder: Path, size: tuple[int, int]) -> Posed | None:
    """A scene's posed object; None if there is none. ValueError in one line if it does not fit the scene."""
    file, picture = folder / PLACE, folder / PICTURE
    if not file.is_file():
        return None
    try:
        box = Roi(*(int(x) for x in json.loads(file.read_text("utf-8"))["box"]))
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f'{file}: no place ({error!r}); expected {{"box": [x0, y0, x1, y1]}}') from error
    alpha = read_alpha(picture)
    if alpha is None or alpha.shape != box.size:
        given = "no alpha channel" if alpha is None else f"{alpha.shape[1]} x {alpha.shape[0]} px"
        raise ValueError(
            f"{picture}: {given}; expected alpha, and the size of its box, {box.size[1]} x {box.size[0]}"
        )
    if min(box.x0, box.y0) < 0 or box.x1 > size[1] or box.y1 > size[0]:
        raise ValueError(f"{file}: the box leaves the scene of {size[1]} x {size[0]} px")
    return Posed(picture, box)


def paste_posed(posed: Posed | None, background: Picture, mask: np.ndarray) -> Picture:
    """The cut-out in its place inside the mask, without any model."""
    assert posed is not None, "a site is checked before a posed method gets it"
    box = box_of(mask)
    layer = torch.from_numpy(crop(posed.layer(background.size), box)).permute(2, 0, 1)
    image = composite_over(layer[None], crop_region(background, box)[None])[0]
    return patched(background, [paste_region(background, box, image, crop(mask, box).astype(np.float32))])


@dataclass(frozen=True, eq=False)
class PosedObject(CompositeObject):
    """Its cut-out is not placed in the mask: `scene` float [H,W,4] is a layer of the whole background."""

    scene: np.ndarray | None = None

    def __call__(self, region: Region) -> PosedFill:
        return PosedFill(region, self)


class PosedFill(CompositeFill):
    """One region of a background with a `PosedObject`."""

    of: PosedObject

    @cached_property
    def layer(self) -> Tensor:
        return self.placed * self.mask

    @cached_property
    def placed(self) -> Tensor:
        """The layer in this region, [4,h,w]."""
        assert self.of.scene is not None
        layer = torch.from_numpy(crop(self.of.scene, self.region.roi)).permute(2, 0, 1)
        size = self.region.mask.shape
        if layer.shape[1:] == size:
            return layer
        return F.interpolate(layer[None], size=size, mode="bilinear", antialias=True)[0]


def in_pose(fill: CompositeObject, posed: Posed, size: tuple[int, int]) -> PosedObject:
    """The same fill with the posed cut-out on a background of (H, W), as bright as the fill's own."""
    layer = torch.from_numpy(posed.layer(size)).permute(2, 0, 1)
    lit = white_balanced(layer[None], fill.cut_outs, hue=False)[0]
    return PosedObject(fill.cut_outs, fill.settings, fill.regions, lit.permute(1, 2, 0).numpy())
