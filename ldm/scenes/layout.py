"""The layout of a scene: masks and regions of its placements, and which of them are made in one batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, groupby

import numpy as np

from ldm.batch.runner import RunOptions
from ldm.data.picture import Picture, read_picture
from ldm.insertion.mask_input import MaskOptions
from ldm.insertion.region import InsertRequest
from ldm.insertion.roi import CropContext, Roi, plan_roi, plan_rois
from ldm.scenes.scene_file import Placement, Scene


@dataclass(frozen=True, eq=False)
class PlacedObject:
    """A placement on its background: its mask bool [H,W], and the squares to inpaint.

    `masks`: those of its members, if it has any.
    """

    placement: Placement
    mask: np.ndarray
    rois: tuple[Roi, ...]
    masks: tuple[np.ndarray, ...] = ()

    @property
    def name(self) -> str:
        return self.placement.item.name

    @property
    def request(self) -> InsertRequest:
        """What is asked of a session."""
        item = self.placement.item
        return InsertRequest(self.mask, self.rois, item.seeds, item.source)


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
    def mask(self) -> np.ndarray:
        """Where any placement is, bool [H,W]."""
        return np.logical_or.reduce([one.mask for one in self.placed])


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
        if placement.members:
            out.append(_together(placement, masks, context))
        else:
            out.append(PlacedObject(placement, masks[0], tuple(plan_rois(masks[0], context))))
    return out


def _together(placement: Placement, masks: Sequence[np.ndarray], context: CropContext) -> PlacedObject:
    """Several objects in one square around all of them; ValueError if two masks overlap."""
    for (i, a), (j, b) in combinations(enumerate(masks, start=1), 2):
        if count := int((a & b).sum()):
            raise ValueError(
                f"placement {_number(placement)}: objects {i} and {j} overlap in {count} pixels; the "
                "masks of objects placed together must not overlap: make one smaller"
            )
    mask = np.logical_or.reduce(masks)
    return PlacedObject(placement, mask, (plan_roi(mask, context),), tuple(masks))


def groups(placed: Sequence[PlacedObject]) -> list[list[PlacedObject]]:
    """Placements by order, lowest first; the masks of one group do not overlap.

    Raises ValueError if two placements overlap and have the same order: it is unknown which is on top.
    """
    ranked = sorted(placed, key=lambda p: p.placement.order)  # stable: within an order as in the file
    out = [list(group) for _, group in groupby(ranked, key=lambda p: p.placement.order)]
    for group in out:
        for a, b in combinations(group, 2):
            if count := int((a.mask & b.mask).sum()):
                raise ValueError(
                    f"placements {_number(a.placement)} and {_number(b.placement)} overlap in {count} pixels "
                    f"and have the same order ({a.placement.order}); give the one that goes on top a higher "
                    "order"
                )
    return out


def _number(placement: Placement) -> str:
    """Its number in the scene file, from 1."""
    return placement.item.name.rpartition("_")[2]
