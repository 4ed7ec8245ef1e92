"""One result to be judged: its files, what it should look like, and what made it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import numpy as np
from torch import Tensor

from ldm.batch.work_item import TOOLS, Case
from ldm.data.image import from_bytes, to_image
from ldm.data.insertset import Sample, load_insertset
from ldm.data.object_crops import object_crop
from ldm.data.picture import Picture, read_picture, read_rgb
from ldm.insertion.contact_sheet import rgb8
from ldm.insertion.mask_input import MaskOptions
from ldm.insertion.mask_shapes import read_mask
from ldm.insertion.roi import Roi, plan_rois
from ldm.models.checkpoint import read_state
from ldm.objects.object_file import REFERENCE, unpacked


@dataclass(frozen=True)
class References:
    """What the object looks like: `whole`, a picture or an object file with its own, and `views` of it."""

    whole: Path
    views: tuple[Sample, ...] = ()

    def picture(self) -> np.ndarray:
        """The reference as it is, uint8 [H,W,3]."""
        if self.whole.suffix != ".safetensors":
            return read_rgb(self.whole)
        own = unpacked(read_state(self.whole)).get(REFERENCE)
        if own is None:
            raise ValueError(f"{self.whole}: has no reference picture of its own; give --references FOLDER")
        return rgb8(from_bytes(own[:3]))

    def images(self) -> list[Tensor]:
        """The object in every view, or in the reference if there are none: images [3,h,w] in [-1,1]."""
        if not self.views:
            return [to_image(self.picture())]
        return [to_image(object_crop(read_rgb(view.image), view.boxes[0])) for view in self.views]


@dataclass(frozen=True, eq=False)
class Seen:
    """An insertion's pictures, all of one size and depth; masks bool [H,W], `rois` squares around `mask`."""

    result: Picture
    background: Picture
    mask: np.ndarray
    rois: tuple[Roi, ...]
    truth: Picture | None = None
    object_mask: np.ndarray | None = None


@dataclass(frozen=True)
class Insertion:
    """`name` pairs the results of two runs, `object` and `method` say to which row of a table it belongs.

    `model` is the fingerprint of the base, `facts` are numbers that no picture tells, like seconds.
    """

    name: str
    object: str
    result: Path
    case: Case
    references: References
    method: str = ""
    model: str = "unknown"
    tools: MaskOptions = TOOLS
    rois: tuple[Roi, ...] = ()
    truth: Path | None = None
    object_mask: Path | None = None
    facts: Mapping[str, float] = field(default_factory=dict, hash=False)

    def read(self) -> Seen:
        """Its pictures; FileNotFoundError or ValueError in one line for whatever does not fit."""
        background, marking = self.case.read(self.tools)
        result = read_like(background, self.result)
        truth = None if self.truth is None else read_like(background, self.truth)
        silhouette = None if self.object_mask is None else read_mask(self.object_mask, background.size)
        rois = self.rois or tuple(plan_rois(marking.hole))
        return Seen(result, background, marking.mask, rois, truth, silhouette)


@lru_cache(maxsize=256)  # a run has few objects and many results
def references_in(path: Path) -> References:
    """An object's pictures: an InsertSet folder, one picture, or an object file that carries one."""
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such InsertSet folder, picture or object file of a reference")
    if not path.is_dir():
        return References(path)
    insertset = load_insertset(path)
    return References(insertset.reference, insertset.few_shot)


def read_like(background: Picture, path: Path) -> Picture:
    """A picture of the background's size and depth; ValueError in one line if it is of others."""
    picture = read_picture(path)
    if picture.pixels.shape != background.pixels.shape or picture.pixels.dtype != background.pixels.dtype:
        raise ValueError(f"{path}: {_form(picture)}, the background {_form(background)}; make them alike")
    return picture


def _form(picture: Picture) -> str:
    height, width = picture.size
    return f"{width} x {height} px of {picture.pixels.shape[2]} channels, {picture.pixels.dtype}"
