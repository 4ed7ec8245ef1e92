"""Where the placements of a scene come to lie, and which of them can be made side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, groupby

import numpy as np

from ldm.batch.runner import planned
from ldm.data.picture import Picture
from ldm.insertion.crop_plan import Context, region_of
from ldm.insertion.mask_input import InsertMasks, MaskOptions
from ldm.insertion.region import InsertRequest
from ldm.insertion.roi import Roi, box_of
from ldm.scenes.scene_file import Placement, Scene


@dataclass(frozen=True, eq=False)
class Part:
    """A mask as its box and what is in it: many of a large picture fit into memory."""

    box: Roi
    inside: np.ndarray

    @classmethod
    def of(cls, mask: np.ndarray) -> Part:
        """Of a mask [H,W] that is not empty."""
        box = box_of(mask)
        return cls(box, mask[box.slices].copy())

    def whole(self, size: tuple[int, int]) -> np.ndarray:
        """The mask, bool [H,W]; memory outside the box stays untouched."""
        out = np.zeros(size, bool)
        out[self.box.slices] = self.inside
        return out


@dataclass(frozen=True, eq=False)
class Placed:
    """A placement on its background: where it is pasted and generated, and the squares to inpaint.

    `holes` are those of its members, if it has any.
    """

    placement: Placement
    mask: Part
    hole: Part
    rois: tuple[Roi, ...]
    holes: tuple[Part, ...] = ()

    def request(self, size: tuple[int, int]) -> InsertRequest:
        """What is to be made on a background of size (H, W)."""
        item, mask = self.placement.item, self.mask.whole(size)
        hole = mask if self.hole is self.mask else self.hole.whole(size)
        return InsertRequest(mask, hole, self.rois, item.seeds, item.source)


def place(scene: Scene, background: Picture, tools: MaskOptions, context: Context) -> list[Placed]:
    """Put every mask on the background; one-line errors for whatever does not fit it."""
    out = []
    for placement in scene.placements:
        try:
            markings = [item.case.mark(background, tools) for item in placement.items]
        except ValueError as error:
            raise ValueError(f"{scene.file}: placement {_number(placement)}: {error}") from error
        out.append((_together if placement.members else _alone)(placement, markings, context))
    return out


def _alone(placement: Placement, markings: Sequence[InsertMasks], context: Context) -> Placed:
    request = planned(placement.item, markings[0], context)
    mask = Part.of(request.mask)
    hole = mask if request.hole is request.mask else Part.of(request.hole)
    return Placed(placement, mask, hole, tuple(request.rois))


def _together(placement: Placement, markings: Sequence[InsertMasks], context: Context) -> Placed:
    """Objects in one square around them all; ValueError if two claim the same pixels."""
    holes = [Part.of(marking.hole) for marking in markings]
    for (i, a), (j, b) in combinations(enumerate(holes, start=1), 2):
        if count := shared_pixels(a, b):
            raise ValueError(
                f"placement {_number(placement)}: objects {i} and {j} overlap in {count} pixels; placed "
                "together, each is alone in its mask: make one smaller"
            )
    hole, mask = (np.logical_or.reduce(half) for half in zip(*markings, strict=True))
    return Placed(placement, Part.of(mask), Part.of(hole), (region_of(hole, context),), tuple(holes))


def groups(placed: Sequence[Placed]) -> list[list[Placed]]:
    """Placements by order, lowest first; those of one group do not overlap, so each is alone in its mask.

    Raises ValueError if two that overlap have one order: nobody could say which one is seen.
    """
    ranked = sorted(placed, key=lambda p: p.placement.order)  # stable: within an order as in the file
    out = [list(group) for _, group in groupby(ranked, key=lambda p: p.placement.order)]
    for group in out:
        for a, b in combinations(group, 2):
            if count := shared_pixels(a.mask, b.mask):
                raise ValueError(
                    f"{_named(a)} and {_named(b)} overlap in {count} pixels and have the same order "
                    f"({a.placement.order}); give the one that goes on top a higher order"
                )
    return out


def joint(placed: Sequence[Placed], size: tuple[int, int]) -> np.ndarray:
    """All masks in one, bool [H,W]."""
    out = np.zeros(size, bool)
    for one in placed:
        out[one.mask.box.slices] |= one.mask.inside
    return out


def shared_pixels(a: Part, b: Part) -> int:
    """How many pixels two masks share."""
    x0, y0 = max(a.box.x0, b.box.x0), max(a.box.y0, b.box.y0)
    x1, y1 = min(a.box.x1, b.box.x1), min(a.box.y1, b.box.y1)
    if x0 >= x1 or y0 >= y1:
        return 0
    parts = [p.inside[y0 - p.box.y0 : y1 - p.box.y0, x0 - p.box.x0 : x1 - p.box.x0] for p in (a, b)]
    return int((parts[0] & parts[1]).sum())


def _named(placed: Placed) -> str:
    return f"placement {_number(placed.placement)}"


def _number(placement: Placement) -> str:
    """In the scene file, from 1."""
    return placement.item.name.rpartition("_")[2]
