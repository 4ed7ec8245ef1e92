"""What is an object in a picture, and which of several pictures shows it most alike."""

from __future__ import annotations

import torch
from ldm.data.visible import box_in, most_alike, visible
from torch import Tensor


def shown(top: int, left: int, height: int, width: int, flipped: bool = False, light: float = 1.0) -> Tensor:
    """A cut-out whose left half is bright and whose right half is dark, or the other way round."""
    picture = torch.zeros(4, 60, 60)
    picture[:3, top : top + height, left : left + width] = -0.6 * light
    half = left + width // 2 if flipped else left
    picture[:3, top : top + height, half : half + width // 2] = 0.6 * light
    picture[3, top : top + height, left : left + width] = 1
    return picture


def test_the_visible_part_is_what_is_not_grey() -> None:
    assert visible(shown(10, 20, 30, 24)).shape == (4, 30, 24)
    assert visible(torch.zeros(3, 9, 9)).shape == (3, 9, 9), "all of nothing"
    assert box_in(torch.zeros(4, 4).bool()) == (0, 0, 0, 0)


def test_size_place_and_light_count_less_than_what_is_where() -> None:
    reference = shown(5, 5, 50, 50)
    others = torch.stack([shown(5, 5, 50, 50, flipped=True), shown(30, 10, 20, 20, light=0.6), -reference])
    assert most_alike(reference, others) == 1
    assert most_alike(reference[:3], others) == 1, "colours alone, where one has no alpha"
