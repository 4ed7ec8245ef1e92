"""The layout of a scene: masks and regions of its placements, and which of them are made in one batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, groupby

import numpy as np

from ldm.batch.runner import RunOptions
from ldm.batch.work_item import WorkItem
from ldm.data.picture import Picture, read_picture
from ldm.insertion.mask_input import MaskOptions
from ldm.insertion.region import InsertRequest
from ldm.insertion.roi import CropContext, Roi, box_of, plan_roi, plan_rois
from ldm.scenes.scene_file import Placement, Scene


@dataclass(frozen=True, eq=False)
class CroppedMask:
    """A mask stored as its bounding box and the pixels in it, to save memory."""

    box: Roi
    inside: np.ndarray

    @classmethod
    def of(cls, mask: np.ndarray) -> CroppedMask:
        """From a mask [H,W] that is not empty."""
        box = box_of(mask)
        return cls(box, mask[box.slices].copy())

    def whole(self, size: tuple[int, int]) -> np.ndarray:
        """The mask, bool [H,W]."""
        out = np.zeros(size, bool)
        out[self.box.slices] = self.inside
        return out


@dataclass(frozen=True, eq=False)
class PlacedObject:
    """A placement on its background: its mask, and the squares to inpaint.

    `masks`: those of its members, if it has any.
    """

    placement: Placement
    mask: CroppedMask
    rois: tuple[Roi, ...]
    masks: tuple[CroppedMask, ...] = ()

    def request(self, size: tuple[int, int]) -> InsertRequest:
        """The request for a background of size (H, W)."""
        item = self.placement.item
        return InsertRequest(self.mask.whole(size), self.rois, item.seeds, item.source)


@dataclass(frozen=True, eq=False)
class SceneLayout:
    """A scene on its background; `groups` of placements are made one after the other, lowest order first."""

    scene: Scene
    background: Picture
    groups: list[list[PlacedObject]]
    model_side: int = 512

    @property
    def placed(self) -> list[PlacedObject]:
        """All placements, in the order in which they are made."""
        return [one for group in self.groups for one in group]

    @property
    def items(self) -> list[WorkItem]:
        """One work item for each object."""
        return [item for one in self.placed for item in one.placement.items]

    @property
    def mask(self) -> np.ndarray:
        """Where any placement is, bool [H,W]."""
        out = np.zeros(self.background.size, bool)
        for one in self.placed:
            out[one.mask.box.slices] |= one.mask.inside
        return out


def lay_out(scene: Scene, options: RunOptions) -> SceneLayout:
    """Read the background and all masks, without a model; one-line errors if something does not fit."""
    background = read_picture(scene.background)
    placed = place(scene, background, options.mask_options, options.crop_context)
    return SceneLayout(scene, background, groups(placed), options.crop_context.model_side)


def place(
    scene: Scene, background: Picture, mask_options: MaskOptions, context: CropContext
) -> list[PlacedObject]:
    """The masks and regions of every placement; one-line errors if one does not fit the background."""
    out = []
    for placement in scene.placements:
        try:
            masks = [item.masked.mask_on(background, mask_options) for item in placement.items]
        except ValueError as error:
            raise ValueError(f"{scene.file}: placement {_number(placement)}: {error}") from error
        out.append((_together if placement.members else _alone)(placement, masks, context))
    return out


def _alone(placement: Placement, masks: Sequence[np.ndarray], context: CropContext) -> PlacedObject:
    return PlacedObject(placement, CroppedMask.of(masks[0]), tuple(plan_rois(masks[0], context)))


def _together(placement: Placement, masks: Sequence[np.ndarray], context: CropContext) -> PlacedObject:
    """Several objects in one square around all of them; ValueError if two masks overlap."""
    own = [CroppedMask.of(mask) for mask in masks]
    for (i, a), (j, b) in combinations(enumerate(own, start=1), 2):
        if count := shared_pixels(a, b):
            raise ValueError(
                f"placement {_number(placement)}: objects {i} and {j} overlap in {count} pixels; the "
                "masks of objects placed together must not overlap: make one smaller"
            )
    mask = np.logical_or.reduce(masks)
    return PlacedObject(placement, CroppedMask.of(mask), (plan_roi(mask, context),), tuple(own))


def groups(placed: Sequence[PlacedObject]) -> list[list[PlacedObject]]:
    """Placements by order, lowest first; the masks of one group do not overlap.

    Raises ValueError if two placements overlap and have the same order: it is unknown which is on top.
    """
    ranked = sorted(placed, key=lambda p: p.placement.order)  # stable: within an order as in the file
    out = [list(group) for _, group in groupby(ranked, key=lambda p: p.placement.order)]
    for group in out:
        for a, b in combinations(group, 2):
            if count := shared_pixels(a.mask, b.mask):
                raise ValueError(
                    f"placements {_number(a.placement)} and {_number(b.placement)} overlap in {count} pixels "
                    f"and have the same order ({a.placement.order}); give the one that goes on top a higher "
                    "order"
                )
    return out


def shared_pixels(a: CroppedMask, b: CroppedMask) -> int:
    """How many pixels two masks share."""
    x0, y0 = max(a.box.x0, b.box.x0), max(a.box.y0, b.box.y0)
    x1, y1 = min(a.box.x1, b.box.x1), min(a.box.y1, b.box.y1)
    if x0 >= x1 or y0 >= y1:
        return 0
    parts = [p.inside[y0 - p.box.y0 : y1 - p.box.y0, x0 - p.box.x0 : x1 - p.box.x0] for p in (a, b)]
    return int((parts[0] & parts[1]).sum())


def _number(placement: Placement) -> str:
    """Its number in the scene file, from 1."""
    return placement.item.name.rpartition("_")[2]
