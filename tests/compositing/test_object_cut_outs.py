"""An object cut out of its pictures: which of them is shown, in which light, and what training sees of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from ldm.compositing.object_cut_outs import CutOutImages
from ldm.data.image import from_bytes, to_bytes
from ldm.data.insertset import InsertSet, Sample
from ldm.data.object_crops import NEAREST
from ldm.data.pairs import SampleOptions, TrainingPairs
from ldm.models.base import Base
from ldm.objects.object_context import reference_of, view_of
from tests.fixtures.objects import learnt
from tests.fixtures.painted import BLACK, BLUE, GREEN, RED, YELLOW, near, painted, painted_set
from tests.fixtures.small import small_base


@pytest.fixture
def insertset(tmp_path: Path) -> InsertSet:
    return painted_set(tmp_path)


def pairs_of(insertset: InsertSet, size: int, **options: Any) -> TrainingPairs:
    return TrainingPairs(insertset, size, 32, SampleOptions(**options), CutOutImages(), length=60)


def test_pictures_are_shown_without_background(insertset: InsertSet, tmp_path: Path) -> None:
    crops = CutOutImages(32).few_shot(insertset)
    assert crops.shape == (3, 4, 32, 32) and near(crops[0, :3], RED)[3:-3, 3:-3].all(), "fills its square"
    assert (
        near(crops[2, :3], YELLOW)[8:24, 2:-2].all() and (crops[2, :, [*range(4), *range(28, 32)]] == 0).all()
    )
    painted(tmp_path / "pictures" / "data" / "x.png", (64, 48), (20, 10, 40, 40), RED)
    shown = CutOutImages(30).reference(tmp_path / "pictures" / "data" / "x.png")[0]
    assert near(shown[:3], RED)[2:-2, 7:23].all() and not near(shown[:3], GREEN).any()
    assert (shown[3, 2:-2, 7:23] == 1).all() and shown[3].mean() == pytest.approx(2 / 3, abs=0.08)


def test_a_silhouette_defines_the_object(insertset: InsertSet, tmp_path: Path) -> None:
    """Whatever the picture shows there."""
    half = Image.new("L", (90, 64))
    half.paste(255, (30, 20, 42, 44))
    half.save(tmp_path / "half.png")
    first = insertset.few_shot[0]
    masked = InsertSet(
        insertset.root, (Sample(first.image, first.boxes, tmp_path / "half.png"),), (), insertset.reference
    )
    shown = CutOutImages(48).few_shot(masked)[0]
    assert near(shown[:3, :, 14:34], RED).all() and (shown[3, :, 14:34] == 1).all()
    assert (shown[:, :, [*range(11), *range(37, 48)]] == 0).all(), "half as wide as high"
    item = TrainingPairs(masked, 64, 32, images=CutOutImages())[0]
    assert item["object_box"][2] - item["object_box"][0] == pytest.approx(
        float(item["object_box"][3] - item["object_box"][1]) / 2, rel=0.1
    )


def test_a_place_is_where_the_cut_out_object_is_in_the_crop(insertset: InsertSet) -> None:
    for item in list(pairs_of(insertset, 64))[::2]:  # no reflections
        x0, y0, x1, y1 = item["object_box"].tolist()
        shown = torch.stack([near(item["image"], c) for c in (RED, BLUE, YELLOW, BLACK)]).any(dim=0)
        rows, columns = (shown.any(side).nonzero().flatten() for side in (1, 0))
        found = [int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1]
        assert np.abs(np.clip([x0, y0, x1, y1], 0, 64) - found).max() <= 1.5


def test_a_cut_out_reference_shows_no_ground_and_is_not_turned(insertset: InsertSet) -> None:
    """Its aspect is kept, mid-grey beside it; single views and same-category samples are of their picture."""
    plain = TrainingPairs(insertset, 32, 24, length=60)
    assert any(near(item["reference"], GREEN).any() for item in plain), "the padding, at least"
    for i, item in enumerate(pairs_of(insertset, 32, single_view=1.0)):
        shown = (item["reference"].abs() > 0.1).any(dim=0)
        rows, columns = int(shown.any(1).sum()), int(shown.any(0).sum())
        assert not near(item["reference"], GREEN).any() and max(rows, columns) >= 31
        colour = BLACK if i % 2 else (RED, BLUE, YELLOW)[int(item["view"])]
        assert near(item["reference"], colour).any() and near(item["image"], colour).any()
        if i % 2 == 0:
            aspect = {RED: 1.0, BLUE: 16 / 30, YELLOW: 30 / 20}[colour]
            assert columns / rows == pytest.approx(aspect, rel=0.12)


@pytest.fixture(scope="module")
def base() -> Base:
    return small_base()


VIEWS = torch.randint(256, (3, 3, 28, 28), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
IMAGES = CutOutImages(28)


def test_the_nearest_view_is_the_most_alike() -> None:
    crops = from_bytes(VIEWS)
    for i in range(3):
        almost = (crops[i : i + 1] + 0.02 * torch.randn(1, 3, 28, 28)).clamp(-1, 1)
        assert IMAGES.select(crops, almost, NEAREST)[1] == i + 1


@pytest.mark.parametrize("view", [0, 1, 3, 7, NEAREST])
def test_a_view_has_its_own_picture_unless_a_reference_is_kept(base: Base, view: int) -> None:
    """A view that is not there is left to whoever asks for its token."""
    delta = replace(learnt(base, 1, tokens=3), views=VIEWS)
    reference = from_bytes(VIEWS[1:2])
    found = view_of(IMAGES, delta, reference, view, keep=False)
    number = 2 if view == NEAREST else view
    assert found.token == number
    shown = from_bytes(VIEWS[view - 1 : view]) if 0 < view < 4 else reference
    assert torch.equal(found.picture, shown)
    kept = view_of(IMAGES, delta, reference_of(delta), view)
    assert torch.equal(kept.picture, reference_of(delta)) and (view == NEAREST or kept.token == view)


def test_a_picture_without_alpha_is_compared_with_cut_outs_by_colour() -> None:
    views = torch.cat([from_bytes(VIEWS), torch.ones(3, 1, 28, 28)], dim=1)
    assert IMAGES.select(views, from_bytes(VIEWS[2:]), NEAREST)[1] == 3


def test_without_pictures_or_tokens_all_tokens_are_used(base: Base) -> None:
    for delta in (learnt(base, 1, tokens=3), replace(learnt(base, 1, tokens=None), views=VIEWS)):
        reference = reference_of(delta)
        for view, expected in ((NEAREST, 0), (2, 2)):
            found = view_of(IMAGES, delta, reference, view, keep=False)
            assert found.token == expected and found.picture is reference


def test_references_are_white_balanced_to_the_pictures(base: Base) -> None:
    """The object's own; one that somebody gave keeps its hue, and only its brightness becomes theirs."""
    dark, bright = (
        torch.cat([torch.full((1, 3, 28, 28), x), torch.ones(1, 1, 28, 28)], 1) for x in (-0.6, 0.6)
    )
    views = torch.cat([dark, bright])
    delta = replace(learnt(base, 1, tokens=2), views=to_bytes(views), reference=to_bytes(dark[0]))
    for view, own in ((0, dark), (1, dark), (2, bright), (NEAREST, dark)):
        found = view_of(IMAGES, delta, None, view).picture
        assert -0.4 < float(found[0, 0].mean()) < 0.4 and not torch.equal(found, own)
    red = dark.clone()
    red[:, 0] = 0.0
    given = view_of(IMAGES, delta, red, NEAREST).picture
    light = (given[0, :3] / 2 + 0.5) ** 2.2
    own = (red[0, :3] / 2 + 0.5) ** 2.2
    gain = (light / own).mean((1, 2))
    assert gain.min() > 1.3 and gain.max() / gain.min() < 1.02, "one gain for all channels"
