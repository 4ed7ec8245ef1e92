"""The regions to inpaint by the settings (`CropContext`), their scale, and warnings; needs no model.

The geometry is in `roi`; `paste.cut_region` crops the pixels of a region. Lengths are pixels of the
background unless they are called model pixels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import ndimage

from ldm.insertion.roi import TOUCHING, Roi, box_of, plan_roi, plan_rois, visible

MAX_SHRINK = 1.5  # a region that is shrunk more for the model loses detail
LEAST = 16  # model pixels (two latents): a smaller mask has no room for an object
LEAST_CONTEXT = 1.1  # region side over mask side; below, the model sees nothing of the scene
MANY = 8  # more regions than this are likely noise of the mask, not objects


@dataclass(frozen=True)
class CropContext:
    """How much of the scene a region shows around the mask.

    Its side is `roi_factor` times the mask's longer side or, if `context_px` is 0 or more, that side plus
    `context_px` on each side. `model_side` is the model's resolution; a region is enlarged at most `zoom`
    times to reach it.
    """

    model_side: int
    roi_factor: float = 2.0
    context_px: int = -1
    zoom: float = 1.0


@dataclass(frozen=True)
class PlannedRegion:
    """One square to inpaint; `scale` is model pixels per background pixel, above 1 it is enlarged."""

    roi: Roi
    scale: float
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class CropPlan:
    """All regions of a mask [H,W] that covers a share `covered` of the background, with warnings."""

    size: tuple[int, int]
    covered: float
    regions: tuple[PlannedRegion, ...]
    notes: tuple[str, ...] = ()


def rois_around(mask: np.ndarray, context: CropContext) -> list[Roi]:
    """The squares to inpaint for a mask [H,W]."""
    return plan_rois(mask, **_around(context))


def roi_around(mask: np.ndarray, context: CropContext) -> Roi:
    """The one square to inpaint for all of a mask [H,W]."""
    return plan_roi(mask, **_around(context))


def plan_crops(mask: np.ndarray, rois: Sequence[Roi], model_side: int) -> CropPlan:
    """The plan for these squares and a model of this resolution."""
    regions = tuple(_region(mask, roi, model_side) for roi in rois)
    notes = []
    if len(regions) > MANY:
        count = ndimage.label(mask, TOUCHING)[1]
        notes.append(
            f"{count} separate parts make {len(regions)} regions; if this is noise, raise the threshold"
        )
    return CropPlan((mask.shape[0], mask.shape[1]), float(mask.mean()), regions, tuple(notes))


def lines(plan: CropPlan) -> list[str]:
    """The plan as text: one line for the image, one for each region, one for each warning."""
    height, width = plan.size
    count = "1 region" if len(plan.regions) == 1 else f"{len(plan.regions)} regions"
    out = [f"{width} x {height} px, {plan.covered:.1%} masked, {count}"]
    out += [f"  warning: {note}" for note in plan.notes]
    for number, region in enumerate(plan.regions, start=1):
        roi = region.roi
        box = f"x {roi.x0}..{roi.x1}, y {roi.y0}..{roi.y1}"
        out.append(f"  region {number}: {roi.size[0]} px square ({box}), {scaling(region)}")
        out += [f"    warning: {note}" for note in region.notes]
    return out


def cautions(plan: CropPlan) -> list[str]:
    """The plan's warnings, each with its region's number if there are several."""
    out = list(plan.notes)
    for number, region in enumerate(plan.regions, start=1):
        out += [f"region {number}: {note}" if len(plan.regions) > 1 else note for note in region.notes]
    return out


def scaling(region: PlannedRegion) -> str:
    """ "1024 => 512 px, shrunk 2.0x"."""
    side = region.roi.size[0]
    model = round(side * region.scale)
    if side == model:
        return f"{side} => {model} px, not resized"
    return f"{side} => {model} px, " + (
        f"enlarged {region.scale:.1f}x" if region.scale > 1 else f"shrunk {1 / region.scale:.1f}x"
    )


def _around(context: CropContext) -> dict[str, Any]:
    """The keywords of `plan_roi` and `plan_rois`."""
    if context.zoom <= 0:
        raise ValueError(f"zoom {context.zoom:g}: expected more than 0, like 4 for regions enlarged 4 times")
    return {
        "factor": context.roi_factor,
        "min_side": math.ceil(context.model_side / context.zoom),
        "context_px": None if context.context_px < 0 else context.context_px,
    }


def _region(mask: np.ndarray, roi: Roi, model_side: int) -> PlannedRegion:
    seen = visible(roi, (mask.shape[0], mask.shape[1]))
    inside = mask[seen.slices]
    longer, side = max(box_of(inside).size), max(roi.size)
    scale, notes = model_side / side, []
    if scale < 1 / MAX_SHRINK:
        notes.append(f"shrunk {1 / scale:.1f} times for the model, which draws no finer detail")
    if math.sqrt(inside.sum()) * scale < LEAST:
        notes.append(
            f"the mask is {longer * scale:.0f} px for the model, too small for an object; grow it, "
            "or give a smaller roi_factor"
        )
    if side < LEAST_CONTEXT * longer:
        notes.append("the mask fills its region; the model sees almost nothing of the scene")
    if seen != roi:
        notes.append("the region is larger than the image; the image is mirrored at its border")
    return PlannedRegion(roi, scale, tuple(notes))
