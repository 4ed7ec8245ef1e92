"""Pictures about one insertion: its plan beside its result, and its seam with every treatment."""

from __future__ import annotations

from collections.abc import Mapping

import cv2
import numpy as np

from ldm.data.picture import Picture
from ldm.insertion.blend import depth
from ldm.insertion.overlay import overlay
from ldm.insertion.paste import shrunk
from ldm.insertion.plan import plan, scaling
from ldm.insertion.roi import Roi, visible
from ldm.insertion.sheet import close_up, contact_sheet, rgb8
from ldm.insertion.task import Task

WIDTH = 1024  # px of each half of a pair
CLOSE = 5  # a seam is shown in a window of 1/5 of its region


def plan_and_result(background: Picture, task: Task, result: Picture, model_side: int) -> Picture:
    """The background with mask and regions drawn on it, and the result, side by side; 8-bit RGB."""
    texts = [scaling(region) for region in plan(task.hole, task.rois, model_side).regions]
    drawn = overlay(background, task.hole, task.rois, texts)
    return Picture(np.hstack([rgb8(Picture(shrunk(p.pixels, WIDTH))) for p in (drawn, result)]))


def seams(background: Picture, task: Task, results: Mapping[str, Picture]) -> Picture:
    """A column for the background and each result, by its caption: the first region, and a part of its edge.

    That part is where the first result differs most from the background along the mask's edge.
    """
    region = visible(task.rois[0], background.size)
    near = worst_seam(background, next(iter(results.values())), task.mask, region)
    shown = {"background": background, **results}
    rows = [[close_up(picture, box) for picture in shown.values()] for box in (region, near)]
    return Picture(contact_sheet(rows, list(shown)))


def worst_seam(background: Picture, result: Picture, mask: np.ndarray, region: Roi) -> Roi:
    """A square window about the place on the mask's edge where the two differ most on average."""
    side = max(max(region.size) // CLOSE, 8)
    inside = mask[region.slices]
    before, after = (p.pixels[region.slices].astype(np.float32) for p in (background, result))
    edge = (inside & (depth(inside) <= max(1, side / 32))).astype(np.float32)
    weight = cv2.blur(edge, (side, side))
    apart = cv2.blur(np.abs(after - before).mean(axis=2) * edge, (side, side)) / np.maximum(weight, 1e-6)
    y, x = np.unravel_index(np.argmax(np.where(edge > 0, apart, -1)), edge.shape)
    x0 = region.x0 + min(max(int(x) - side // 2, 0), region.size[1] - side)
    y0 = region.y0 + min(max(int(y) - side // 2, 0), region.size[0] - side)
    return Roi(x0, y0, x0 + side, y0 + side)
