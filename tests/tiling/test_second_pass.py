"""Tiles: they cover what is needed, join without a trace, and leave out the rest."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch

from ldm.tiling.second_pass import plan_tiles, window


def needed(height: int, width: int, y0: int, y1: int, x0: int, x1: int) -> np.ndarray:
    out = np.zeros((height, width), bool)
    out[y0:y1, x0:x1] = True
    return out


def image(height: int, width: int) -> torch.Tensor:
    return torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(0))


CASES = [(40, 50, 3, 38, 0, 50), (16, 16, 2, 5, 7, 9), (33, 16, 0, 33, 4, 5), (64, 64, 20, 61, 50, 64)]


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("finer", [1, 4])
def test_cutting_and_joining_gives_the_picture_wherever_it_is_needed(case: tuple, finer: int) -> None:
    where = needed(*case)
    tiles = plan_tiles(where, 16)
    fine = tiles.scaled(finer)
    x = image(case[0] * finer, case[1] * finer)
    joined = tiles.over(lambda at: fine.cut(x, (at[0] * finer, at[1] * finer)), finer=finer)
    inside = torch.from_numpy(where).repeat_interleave(finer, 0).repeat_interleave(finer, 1)
    assert torch.allclose(joined[..., inside], x[..., inside], atol=1e-5)
    covered = torch.zeros(fine.size, dtype=torch.bool)
    for corner in fine.corners:
        fine.cut(covered, corner).fill_(True)
    assert (joined[..., ~covered] == 0).all()


@pytest.mark.parametrize("case", CASES)
def test_tiles_stay_inside_and_neighbours_share_half(case: tuple) -> None:
    tiles = plan_tiles(needed(*case), 16)
    for axis in (0, 1):
        starts = sorted({corner[axis] for corner in tiles.corners})
        assert starts[0] >= 0 and starts[-1] + 16 <= tiles.size[axis]
        assert all(b - a <= 8 for a, b in pairwise(starts))


def test_tiles_with_nothing_needed_are_left_out() -> None:
    where = needed(64, 64, 0, 8, 0, 8) | needed(64, 64, 56, 64, 56, 64)
    corners = plan_tiles(where, 16).corners
    assert (0, 0) in corners and (48, 48) in corners and (0, 48) not in corners
    assert plan_tiles(np.zeros((20, 20), bool), 16).corners == ()


def test_the_join_is_smooth() -> None:
    """Tiles that disagree by 1 blend over their overlap: no step between neighbouring pixels is large."""
    tiles = plan_tiles(np.ones((16, 40), bool), 16)
    joined = tiles.over(lambda at: torch.full((1, 1, 16, 16), float(at[1] > 12)))[0, 0, 8]
    assert joined.min() == 0 and joined.max() == 1
    assert (joined[1:] - joined[:-1]).abs().max() < 0.35


def test_the_window_is_positive_and_highest_inside() -> None:
    w = window(16)
    assert w.min() > 0 and w.argmax() in (7 * 16 + 7, 7 * 16 + 8, 8 * 16 + 7, 8 * 16 + 8)
