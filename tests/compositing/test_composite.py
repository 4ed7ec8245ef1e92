"""Cut-outs in a region: where they stand, what lies over what, and which of several is most alike."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ldm.compositing.composite import (
    boxes_for,
    composite_layers,
    composite_over,
    cropped_to_object,
    flattened,
    nearest,
    place_in_boxes,
)

BOX = (slice(4, 16), slice(10, 30))


def hole(box: tuple[slice, slice] = BOX, side: int = 32) -> Tensor:
    mask = torch.zeros(1, 1, side, side)
    mask[0, 0][box] = 1
    return mask


def plain(level: float, side: int = 28) -> Tensor:
    return torch.full((1, 3, side, side), level)


def opaque(level: float, side: int = 28) -> Tensor:
    return torch.cat([plain(level, side), torch.ones(1, 1, side, side)], dim=1)


def near(shown: Tensor, level: float) -> bool:
    return bool(((shown - level).abs() < 1e-5).all())


def box_of(shown: Tensor) -> list[int]:
    """x0 y0 x1 y1 of what is not mid-grey in [3,H,W]."""
    seen = (shown != 0).any(0)
    rows, columns = (seen.any(side).nonzero().flatten() for side in (1, 0))
    return [int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1]


@pytest.mark.parametrize(
    ("place", "expected"),
    [
        ((4, 6, 24, 16), [4, 6, 24, 16]),  # of its aspect
        ((4, 6, 14, 30), [4, 25, 14, 30]),  # higher: stands at the foot
        ((2, 6, 30, 16), [6, 6, 26, 16]),  # wider: in the middle
        ((20, 20, 40, 30), [12, 20, 32, 30]),  # not past the border
        ((0, 0, 0.4, 0.4), [0, 0, 1, 1]),
    ],
)
def test_what_is_not_grey_of_a_picture_stands_in_its_box(
    place: tuple[float, ...], expected: list[int]
) -> None:
    reference = torch.zeros(1, 3, 28, 28)
    reference[..., 7:21, :14], reference[..., 7:21, 14:] = 0.5, -0.5  # 28 x 14
    shown = place_in_boxes(reference, torch.tensor([place]), torch.zeros(1, 1, 32, 32))
    assert shown.shape == (1, 3, 32, 32) and box_of(shown[0]) == expected
    x0, y0, x1, y1 = expected
    if x1 - x0 > 4:
        middle = (x0 + x1) // 2
        assert near(shown[0, :, y0:y1, x0 : middle - 1], 0.5)
        assert near(shown[0, :, y0:y1, middle + 1 : x1], -0.5)


def test_an_empty_box_shows_nothing_and_a_grey_picture_is_seen_as_a_whole() -> None:
    assert (place_in_boxes(plain(1), torch.zeros(1, 4), hole()) == 0).all()
    assert cropped_to_object(plain(0)[0]).shape == (3, 28, 28)
    assert (place_in_boxes(plain(0), torch.tensor([[1, 1, 5, 5]]), hole()) == 0).all()


def test_an_object_stands_a_little_inside_its_mask() -> None:
    mask = hole((slice(4, 5), slice(10, 12))) + hole((slice(15, 16), slice(29, 30)))  # free form, same box
    masks = torch.cat([hole(), mask, torch.zeros_like(mask)])
    expected = torch.tensor([10 + 1.6, 4 + 0.96, 30 - 1.6, 16 - 0.96])
    found = boxes_for(masks)
    assert torch.allclose(found[:2], expected.expand(2, 4)) and (found[2] == 0).all()


def test_regions_have_a_reference_each_and_the_rest_is_grey() -> None:
    regions = torch.zeros(2, 64, 64)
    regions[0, 8:20, 20:32], regions[1, 24:32, 40:60] = 1, 1
    references = torch.cat([opaque(0.5), opaque(-0.5)])
    shown = flattened(composite_layers(references, regions, hole()))[:, :3]
    assert near(shown[0, :, 5:9, 11:15], 0.5) and near(shown[0, :, 13:15, 24:26], -0.5)
    shown[0, :, 4:10, 10:16] = shown[0, :, 12:16, 20:30] = 0
    assert (shown == 0).all()


def test_a_layer_covers_by_its_alpha_and_never_past_its_hole() -> None:
    reference = torch.zeros(1, 4, 28, 28)
    reference[:, :3, :, :14], reference[:, 3, :, :14] = 0.25, 0.5  # half transparent, of level 0.5
    free = hole()
    free[..., 14:, :] = 0
    layer = flattened(composite_layers(reference, None, free))
    shown, ground = composite_over(layer, plain(-0.5, 32)), plain(-0.5, 32)
    inside = layer[:, 3:] > 0.49
    assert inside.any() and near(shown[inside.expand(-1, 3, -1, -1)], 0.0)
    assert torch.equal(shown * (1 - free), ground * (1 - free))


def two_sided(
    top: int, left: int, height: int, width: int, flipped: bool = False, light: float = 1.0
) -> Tensor:
    """A cut-out whose left half is bright and whose right half is dark, or the other way round."""
    picture = torch.zeros(4, 60, 60)
    picture[:3, top : top + height, left : left + width] = -0.6 * light
    half = left + width // 2 if flipped else left
    picture[:3, top : top + height, half : half + width // 2] = 0.6 * light
    picture[3, top : top + height, left : left + width] = 1
    return picture


def test_the_visible_part_is_what_is_not_grey() -> None:
    assert cropped_to_object(two_sided(10, 20, 30, 24)).shape == (4, 30, 24)
    assert cropped_to_object(torch.zeros(3, 9, 9)).shape == (3, 9, 9), "all of nothing"
    assert boxes_for(torch.zeros(1, 1, 4, 4)).tolist() == [[0, 0, 0, 0]]


def test_size_place_and_light_count_less_than_what_is_where() -> None:
    reference = two_sided(5, 5, 50, 50)
    others = torch.stack(
        [two_sided(5, 5, 50, 50, flipped=True), two_sided(30, 10, 20, 20, light=0.6), -reference]
    )
    assert nearest(reference, others) == 1
    assert nearest(reference[:3], others) == 1, "colours alone, where one has no alpha"
