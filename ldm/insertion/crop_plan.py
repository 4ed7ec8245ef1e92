"""What would be done, before a model is loaded: the regions of a mask, their scale, and what to beware of.

Lengths are pixels of the background unless they are said to be the model's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import ndimage

from ldm.insertion.roi import TOUCHING, Roi, box_of, plan_roi, plan_rois, visible

MAX_SHRINK = 1.5  # a region is shown to the model smaller by more: detail is lost
LEAST = 16  # model pixels, two of its latents: a smaller mask shows no object
LEAST_CONTEXT = 1.1  # region over mask: below, the model sees nothing of the scene
MANY = 8  # regions; more are specks of a noisy mask rather than objects


@dataclass(frozen=True)
class Context:
    """How much is shown around a mask: a factor of its longer side or, if >= 0, pixels on each side.

    `model_side` is the model's resolution; a region is enlarged for it at most `zoom` times, so that small
    masks get a small region.
    """

    model_side: int
    factor: float = 2.0
    pixels: int = -1
    zoom: float = 1.0


@dataclass(frozen=True)
class Region:
    """One square to inpaint; `scale` is model pixels a pixel of the background, > 1 enlarges."""

    roi: Roi
    scale: float
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Plan:
    """All regions of a mask [H,W] that covers `marked` of the background, and notes on the whole."""

    size: tuple[int, int]
    marked: float
    regions: tuple[Region, ...]
    notes: tuple[str, ...] = ()


def regions_of(mask: np.ndarray, context: Context) -> list[Roi]:
    """The squares to inpaint for a mask [H,W]."""
    return plan_rois(mask, **_around(context))


def region_of(mask: np.ndarray, context: Context) -> Roi:
    """The one square to inpaint for all of a mask [H,W]."""
    return plan_roi(mask, **_around(context))


def plan(mask: np.ndarray, rois: Sequence[Roi], model_side: int) -> Plan:
    """What the squares mean for a model of this resolution."""
    regions = tuple(_region(mask, roi, model_side) for roi in rois)
    notes = []
    if len(regions) > MANY:
        count = ndimage.label(mask, TOUCHING)[1]
        notes.append(
            f"{count} separate parts make {len(regions)} regions; raise the threshold if it is noise"
        )
    return Plan((mask.shape[0], mask.shape[1]), float(mask.mean()), regions, tuple(notes))


def lines(plan: Plan) -> list[str]:
    """The plan as text: a line for the whole, one a region, one a warning."""
    height, width = plan.size
    count = "1 region" if len(plan.regions) == 1 else f"{len(plan.regions)} regions"
    out = [f"{width} x {height} px, {plan.marked:.1%} marked, {count}"]
    out += [f"  warning: {note}" for note in plan.notes]
    for number, region in enumerate(plan.regions, start=1):
        roi = region.roi
        box = f"x {roi.x0}..{roi.x1}, y {roi.y0}..{roi.y1}"
        out.append(f"  region {number}: {roi.size[0]} px square ({box}), {scaling(region)}")
        out += [f"    warning: {note}" for note in region.notes]
    return out


def scaling(region: Region) -> str:
    """ "1024 => 512 px, shrunk 2.0x"."""
    side = region.roi.size[0]
    model = round(side * region.scale)
    if side == model:
        return f"{side} => {model} px, as it is"
    return f"{side} => {model} px, " + (
        f"enlarged {region.scale:.1f}x" if region.scale > 1 else f"shrunk {1 / region.scale:.1f}x"
    )


def _around(context: Context) -> dict[str, Any]:
    """The context as `plan_roi` and `plan_rois` take it."""
    if context.zoom <= 0:
        raise ValueError(f"zoom {context.zoom:g}: expected more than 0, like 4 for regions enlarged 4 times")
    return {
        "factor": context.factor,
        "min_side": math.ceil(context.model_side / context.zoom),
        "context_px": None if context.pixels < 0 else context.pixels,
    }


def _region(mask: np.ndarray, roi: Roi, model_side: int) -> Region:
    seen = visible(roi, (mask.shape[0], mask.shape[1]))
    inside = mask[seen.slices]
    longer, side = max(box_of(inside).size), max(roi.size)
    scale, notes = model_side / side, []
    if scale < 1 / MAX_SHRINK:
        notes.append(f"shown to the model {1 / scale:.1f} times smaller; fine detail will be missing")
    if math.sqrt(inside.sum()) * scale < LEAST:
        notes.append(
            f"the mask is {longer * scale:.0f} px for the model, too small for an object; grow it, "
            "or show less context"
        )
    if side < LEAST_CONTEXT * longer:
        notes.append("the mask fills its region; the model sees hardly any of the scene")
    if seen != roi:
        notes.append("the region is larger than the picture, whose border is mirrored")
    return Region(roi, scale, tuple(notes))
