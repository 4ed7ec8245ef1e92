"""The reference in the region to fill: laid where it is to stand, shown to bases of collages only."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from ldm.data.visible import visible
from ldm.models.collage import Collage, laid, laid_over, over_holes, places_in
from ldm.models.regions import in_regions
from torch import Tensor

from ldm.models.base import Base
from ldm.models.contexts import Contexts
from ldm.models.diffusion import masked_image
from tests.fixtures.small import SMALL, small_base

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
def test_what_is_not_grey_of_a_reference_is_laid_into_its_place(
    place: tuple[float, ...], expected: list[int]
) -> None:
    reference = torch.zeros(1, 3, 28, 28)
    reference[..., 7:21, :14], reference[..., 7:21, 14:] = 0.5, -0.5  # 28 x 14
    shown = laid(reference, torch.tensor([place]), torch.zeros(1, 1, 32, 32))
    assert shown.shape == (1, 3, 32, 32) and box_of(shown[0]) == expected
    x0, y0, x1, y1 = expected
    if x1 - x0 > 4:
        middle = (x0 + x1) // 2
        assert near(shown[0, :, y0:y1, x0 : middle - 1], 0.5)
        assert near(shown[0, :, y0:y1, middle + 1 : x1], -0.5)


def test_an_empty_place_shows_nothing_and_a_grey_reference_is_seen_as_a_whole() -> None:
    assert (laid(plain(1), torch.zeros(1, 4), hole()) == 0).all()
    assert visible(plain(0)[0]).shape == (3, 28, 28)
    assert (laid(plain(0), torch.tensor([[1, 1, 5, 5]]), hole()) == 0).all()


def test_an_object_stands_a_little_inside_its_mask() -> None:
    mask = hole((slice(4, 5), slice(10, 12))) + hole((slice(15, 16), slice(29, 30)))  # free form, same box
    masks = torch.cat([hole(), mask, torch.zeros_like(mask)])
    expected = torch.tensor([10 + 1.6, 4 + 0.96, 30 - 1.6, 16 - 0.96])
    found = places_in(masks)
    assert torch.allclose(found[:2], expected.expand(2, 4)) and (found[2] == 0).all()


def test_regions_have_a_reference_each_and_the_rest_is_grey() -> None:
    regions = torch.zeros(2, 64, 64)
    regions[0, 8:20, 20:32], regions[1, 24:32, 40:60] = 1, 1
    references = torch.cat([opaque(0.5), opaque(-0.5)])
    shown = Collage(references, regions).over(hole())[:, :3]
    assert near(shown[0, :, 5:9, 11:15], 0.5) and near(shown[0, :, 13:15, 24:26], -0.5)
    shown[0, :, 4:10, 10:16] = shown[0, :, 12:16, 20:30] = 0
    assert (shown == 0).all()


def test_a_batch_has_a_collage_for_each_hole_that_has_one() -> None:
    holes = torch.cat([hole(), hole()])
    assert over_holes([None, None], holes) is None
    shown = over_holes([None, Collage(opaque(0.5))], holes)
    expected = laid(opaque(0.5), places_in(hole()), hole())
    assert shown is not None and torch.equal(shown, torch.cat([torch.zeros_like(expected), expected]))


def test_a_layer_is_laid_over_by_its_alpha_and_never_past_its_hole() -> None:
    reference = torch.zeros(1, 4, 28, 28)
    reference[:, :3, :, :14], reference[:, 3, :, :14] = 0.25, 0.5  # half transparent, of level 0.5
    free = hole()
    free[..., 14:, :] = 0
    layer = Collage(reference).over(free)
    shown, ground = laid_over(layer, plain(-0.5, 32)), plain(-0.5, 32)
    inside = layer[:, 3:] > 0.49
    assert inside.any() and near(shown[inside.expand(-1, 3, -1, -1)], 0.0)
    assert torch.equal(shown * (1 - free), ground * (1 - free))


@pytest.mark.parametrize("collage", [False, True])
def test_only_a_base_of_collages_is_shown_the_reference(collage: bool) -> None:
    base = small_base()
    base.architecture = replace(SMALL, collage=collage)
    image, reference = torch.rand(1, 3, 32, 32), plain(0.5)
    place = torch.tensor([[12.0, 6.0, 20.0, 14.0]])
    for given, where in ((None, places_in(hole())), (place, place)):
        expected = masked_image(image, hole()) + collage * laid(reference, where, hole())
        assert torch.allclose(base.masked(image, hole(), reference, given), expected, atol=1e-5)
    assert torch.equal(base.masked(image, hole()), masked_image(image, hole()))
    contexts = base.contexts(base.context(reference), references=reference)
    assert (contexts.collage is not None) == collage
    if contexts.collage is not None:
        assert torch.equal(contexts.collage.references, opaque(0.5)), "a picture without alpha is opaque"
        assert torch.equal(base.context(opaque(0.5)), base.context(reference))
    for same in (contexts.repeat(3), contexts.to(torch.zeros((), dtype=torch.float64))):
        assert same.collage is contexts.collage


def test_objects_that_share_a_picture_are_each_shown_in_their_own_region() -> None:
    torch.manual_seed(0)
    base = Base(replace(SMALL, collage=True)).requires_grad_(False)

    def contexts(level: float) -> Contexts:
        return base.contexts(base.context(plain(level)), references=plain(level))

    masks = torch.zeros(2, 32, 32)
    masks[0, :, :20], masks[1, :, 20:] = 1, 1
    both = in_regions([contexts(0.5), contexts(-0.5)], masks).collage
    assert both is not None
    shown = both.over(hole())[:, :3]
    assert near(shown[0, :, 8:14, 12:18], 0.5) and near(shown[0, :, 8:14, 22:28], -0.5)
