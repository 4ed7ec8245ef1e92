"""Pictures about an insertion show what they say they show."""

from dataclasses import replace

import numpy as np

from ldm.data.picture import Picture
from ldm.insertion.roi import Roi
from ldm.insertion.sheet import MARGIN, TILE
from ldm.insertion.showcase import plan_and_result, seams, worst_seam
from ldm.insertion.task import Task

SIZE = (300, 400)
REGION = Roi(50, 40, 250, 240)


def scene() -> tuple[Picture, np.ndarray]:
    pixels = np.random.default_rng(0).integers(90, 110, (*SIZE, 3), dtype=np.uint8)
    mask = np.zeros(SIZE, bool)
    mask[90:190, 100:200] = True
    return Picture(pixels), mask


def test_the_worst_seam_is_where_the_edge_differs_most() -> None:
    background, mask = scene()
    pixels = background.pixels.copy()
    pixels[120:160, 120:180] = 255  # inside, away from the edge
    pixels[90:190, 190:200] = 130
    pixels[180:190, 110:130] = 200
    near = worst_seam(background, replace(background, pixels=pixels), mask, REGION)
    assert near.size == (40, 40) and near.x0 <= 115 and near.x1 >= 125 and near.y0 < 190 < near.y1


def test_a_seam_at_the_regions_border_stays_inside_it() -> None:
    background, _ = scene()
    mask = np.zeros(SIZE, bool)
    mask[41:60, 51:70] = True
    changed = replace(background, pixels=np.where(mask[..., None], np.uint8(0), background.pixels))
    near = worst_seam(background, changed, mask, REGION)
    assert near.x0 >= REGION.x0 and near.y0 >= REGION.y0 and near.size == (40, 40)


def test_a_column_for_each_result_and_both_halves() -> None:
    background, mask = scene()
    task = Task(mask, mask, [REGION], [1])
    white = replace(background, pixels=np.where(mask[..., None], np.uint8(255), background.pixels))
    sheet = seams(background, task, {"paste": white, "none": background}).pixels
    assert sheet.shape[1] == MARGIN + 3 * (TILE + MARGIN)
    left = [MARGIN + i * (TILE + MARGIN) for i in range(3)]
    below = [sheet[-TILE - MARGIN : -MARGIN, x : x + TILE] for x in left]
    assert np.array_equal(below[0], below[2]) and (below[1] == 255).mean() > 0.2
    both = plan_and_result(background, task, white, 128).pixels
    assert both.shape == (300, 800, 3) and both.dtype == np.uint8
    assert np.array_equal(both[:, 400:], white.pixels) and (both[:, :400] != background.pixels).any()
