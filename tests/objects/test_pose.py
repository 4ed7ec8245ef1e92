"""Which picture of an object is shown: the view that was asked for, the nearest one, or the reference."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from ldm.objects.pose import NEAREST, nearest_view, pose_of

from ldm.data.image import from_bytes, to_bytes
from ldm.models.base import Base
from ldm.objects.effect import reference_of
from tests.fixtures.objects import learnt
from tests.fixtures.small import small_base


@pytest.fixture(scope="module")
def base() -> Base:
    return small_base()


VIEWS = torch.randint(256, (3, 3, 28, 28), generator=torch.Generator().manual_seed(0)).to(torch.uint8)


def test_the_nearest_view_is_the_most_alike() -> None:
    crops = from_bytes(VIEWS)
    for i in range(3):
        almost = (crops[i : i + 1] + 0.02 * torch.randn(1, 3, 28, 28)).clamp(-1, 1)
        assert nearest_view(almost, crops) == i + 1


@pytest.mark.parametrize("view", [0, 1, 3, 7, NEAREST])
def test_a_pose_has_its_own_picture_unless_a_reference_is_kept(base: Base, view: int) -> None:
    """A view that is not there is left to whoever asks for its token."""
    delta = replace(learnt(base, 1, tokens=3), views=VIEWS)
    reference = from_bytes(VIEWS[1:2])
    found = pose_of(delta, reference, view)
    number = 2 if view == NEAREST else view
    assert found.view == number
    shown = from_bytes(VIEWS[view - 1 : view]) if 0 < view < 4 else reference
    assert torch.equal(found.reference, shown)
    kept = pose_of(delta, reference_of(delta), view, keep=True)
    assert torch.equal(kept.reference, reference_of(delta)) and (view == NEAREST or kept.view == view)


def test_a_picture_without_alpha_is_compared_with_cut_outs_by_colour() -> None:
    views = torch.cat([from_bytes(VIEWS), torch.ones(3, 1, 28, 28)], dim=1)
    assert nearest_view(from_bytes(VIEWS[2:]), views) == 3


def test_without_pictures_or_tokens_all_have_a_say(base: Base) -> None:
    for delta in (learnt(base, 1, tokens=3), replace(learnt(base, 1, tokens=None), views=VIEWS)):
        reference = reference_of(delta)
        for view, expected in ((NEAREST, 0), (2, 2)):
            pose = pose_of(delta, reference, view)
            assert pose.view == expected and pose.reference is reference


def test_it_is_shown_in_the_light_that_the_pictures_have_in_common(base: Base) -> None:
    """A reference that somebody gave is shown as it is."""
    dark, bright = (
        torch.cat([torch.full((1, 3, 28, 28), x), torch.ones(1, 1, 28, 28)], 1) for x in (-0.6, 0.6)
    )
    views = torch.cat([dark, bright])
    delta = replace(learnt(base, 1, tokens=2), views=to_bytes(views))
    for view, own in ((0, dark), (1, dark), (2, bright), (NEAREST, dark)):
        found = pose_of(delta, dark, view).reference
        assert -0.4 < float(found[0, 0].mean()) < 0.4 and not torch.equal(found, own)
    assert torch.equal(pose_of(delta, dark, NEAREST, keep=True).reference, dark)
