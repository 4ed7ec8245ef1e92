"""The reference in the region to fill: laid into its box, shown to bases of collages only."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from ldm.models.base import Base
from ldm.models.collage import Collage, laid, over_holes
from ldm.models.contexts import Contexts
from ldm.models.diffusion import masked_image
from ldm.models.regions import in_regions
from tests.fixtures.small import SMALL, small_base

BOX = (slice(4, 16), slice(10, 30))


def hole(box: tuple[slice, slice] = BOX, side: int = 32) -> Tensor:
    mask = torch.zeros(1, 1, side, side)
    mask[0, 0][box] = 1
    return mask


def plain(level: float, side: int = 28) -> Tensor:
    return torch.full((1, 3, side, side), level)


def near(shown: Tensor, level: float) -> bool:
    return bool(((shown - level).abs() < 1e-5).all())


def test_a_reference_is_stretched_to_the_masks_box() -> None:
    reference = torch.cat([plain(0.5)[..., :14], plain(-0.5)[..., 14:]], dim=3)
    shown = laid(torch.cat([reference, plain(1)]), torch.cat([hole(), hole((slice(0, 1), slice(31, 32)))]))
    assert shown.shape == (2, 3, 32, 32)
    assert near(shown[0, :, BOX[0], 10:19], 0.5) and near(shown[0, :, BOX[0], 21:30], -0.5)
    outside = masked_image(shown, torch.cat([hole(), hole((slice(0, 1), slice(31, 32)))]))
    assert (outside == 0).all() and near(shown[1, :, 0, 31], 1)
    assert (laid(plain(1), torch.zeros(1, 1, 32, 32)) == 0).all(), "no mask, no box"


def test_a_free_form_mask_has_the_box_around_it() -> None:
    mask = hole((slice(4, 5), slice(10, 12))) + hole((slice(15, 16), slice(29, 30)))
    assert torch.equal(laid(plain(1), mask), laid(plain(1), hole()))


def test_regions_have_a_reference_each_and_the_rest_is_grey() -> None:
    regions = torch.zeros(2, 64, 64)
    regions[0, 8:20, 20:32], regions[1, 24:32, 40:60] = 1, 1
    shown = Collage(torch.cat([plain(0.5), plain(-0.5)]), regions).over(hole())
    assert near(shown[0, :, 4:10, 10:16], 0.5) and near(shown[0, :, 12:16, 20:30], -0.5)
    shown[0, :, 4:10, 10:16] = shown[0, :, 12:16, 20:30] = 0
    assert (shown == 0).all()


def test_a_batch_has_a_collage_for_each_hole_that_has_one() -> None:
    holes = torch.cat([hole(), hole()])
    assert over_holes([None, None], holes) is None
    shown = over_holes([None, Collage(plain(0.5))], holes)
    assert shown is not None and torch.equal(shown, torch.cat([plain(0, 32), laid(plain(0.5), hole())]))


@pytest.mark.parametrize("collage", [False, True])
def test_only_a_base_of_collages_is_shown_the_reference(collage: bool) -> None:
    base = small_base()
    base.architecture = replace(SMALL, collage=collage)
    image, reference = torch.rand(1, 3, 32, 32), plain(0.5)
    expected = masked_image(image, hole()) + 0.5 * collage * hole()
    assert torch.allclose(base.masked(image, hole(), reference), expected, atol=1e-5)
    assert torch.equal(base.masked(image, hole()), masked_image(image, hole()))
    contexts = base.contexts(base.context(reference), references=reference)
    assert (contexts.collage is not None) == collage
    for same in (contexts.repeat(3), contexts.to(torch.zeros((), dtype=torch.float64))):
        assert same.collage is contexts.collage


def test_objects_that_share_a_picture_are_each_shown_in_their_own_region() -> None:
    torch.manual_seed(0)
    base = Base(replace(SMALL, collage=True)).requires_grad_(False)

    def contexts(level: float) -> Contexts:
        return base.contexts(base.context(plain(level)), references=plain(level))

    masks = torch.zeros(2, 32, 32)
    masks[0, :, :16], masks[1, :, 16:] = 1, 1
    both = in_regions([contexts(0.5), contexts(-0.5)], masks).collage
    assert both is not None
    shown = both.over(hole())
    assert near(shown[0, :, BOX[0], 10:16], 0.5) and near(shown[0, :, BOX[0], 16:30], -0.5)
