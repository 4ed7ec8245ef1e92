"""A region with an object's cut-out in it: what the UNet is shown, and where several objects stand."""

from __future__ import annotations

import numpy as np
import torch
from torch import Generator, Tensor

from ldm.compositing.composite import boxes_for, place_in_boxes
from ldm.compositing.composite_fill import (
    CompositeObject,
    CompositeSettings,
    CompositesInTraining,
    make_composite_fill,
)
from ldm.data.picture import Picture
from ldm.insertion.inpaint import shown_in
from ldm.insertion.region import (
    InsertableObject,
    InsertRequest,
    ObjectFill,
    Region,
    RegionFill,
    region_in,
    region_of,
)
from ldm.insertion.roi import plan_rois, visible
from ldm.scenes.regional_context import in_regions
from tests.fixtures.small import small_base

MASK = np.zeros((32, 32), bool)
MASK[4:16, 10:30] = True
HOLE = torch.from_numpy(MASK)[None, None].float()


def plain(level: float) -> Tensor:
    return torch.full((1, 3, 28, 28), level)


def opaque(level: float) -> Tensor:
    return torch.cat([plain(level), torch.ones(1, 1, 28, 28)], dim=1)


def region() -> Region:
    return region_of(torch.zeros(3, 32, 32), MASK, [Generator()])


def made(level: float) -> ObjectFill:
    return make_composite_fill(CompositeSettings())(plain(level))


def near(shown: Tensor, level: float) -> bool:
    return bool(((shown - level).abs() < 1e-5).all())


def test_no_object_reaches_into_what_is_mirrored_beyond_the_picture() -> None:
    background = Picture(np.full((40, 100, 3), 90, np.uint8))
    mask = np.zeros((40, 100), bool)
    mask[:, 20:70] = True  # as high as the picture
    [roi] = plan_rois(mask)
    region = region_in(background, InsertRequest(mask, [roi], [1]), 0, [Generator()])
    fill = make_composite_fill(CompositeSettings())(opaque(0.5))(region)
    seen = visible(roi, (40, 100)).within(roi)
    shown = fill.own(torch.ones(1, 1, *region.mask.shape))[0, 0] > 0
    assert roi.size[0] > 40 and region.mask[0].any() and region.mask[-1].any()
    assert shown[seen.slices].any() and not shown[: seen.y0].any() and not shown[seen.y1 :].any()


def test_a_batch_shows_a_composite_in_each_hole_that_has_one() -> None:
    holes = torch.cat([HOLE, HOLE])
    assert shown_in([RegionFill(region()), RegionFill(region())], holes) is None
    shown = shown_in([RegionFill(region()), made(0.5)(region())], holes)
    assert shown is not None and not shown[0].any()
    alpha = place_in_boxes(opaque(0.5), boxes_for(HOLE), HOLE)[0, 3] > 0.99
    assert near(shown[1][:, alpha], 0.5)


def test_a_picture_without_alpha_is_opaque_and_without_a_picture_the_hole_is_grey() -> None:
    make = make_composite_fill(CompositeSettings())
    for picture in (plain(0.5), opaque(0.5)):
        fill = make(picture)
        assert isinstance(fill, CompositeObject) and torch.equal(fill.cut_outs, opaque(0.5))
    assert make(None)(region()).shown(HOLE) is None
    base = small_base()
    assert torch.equal(base.context(opaque(0.5)), base.context(plain(0.5))), "the conditioner sees no alpha"


def training_batch(n: int) -> dict[str, torch.Tensor]:
    """Pictures of one colour; the object, opaque, stands in the middle."""
    return {
        "image": torch.full((n, 3, 32, 32), 0.25),
        "cut_out": torch.full((n, 4, 16, 16), 1.0),
        "object_box": torch.tensor([[12.0, 6.0, 20.0, 14.0]]).expand(n, -1),
        "mask": HOLE.expand(n, -1, -1, -1),
        "index": torch.arange(n),
    }


def test_training_shows_the_picture_itself() -> None:
    batch = training_batch(2)
    shown = CompositesInTraining()(batch)
    assert torch.equal(shown[:, :3], batch["image"])
    assert near(shown[:, 3, 7:13, 13:19], 1.0), "the object"
    assert near(shown[:, 3, :5], 0.0)


def test_objects_that_share_a_picture_are_each_shown_in_their_own_region() -> None:
    base = small_base()
    objects = [InsertableObject(base.contexts(base.context(plain(x))), made(x)) for x in (0.5, -0.5)]
    masks = torch.zeros(2, 32, 32)
    masks[0, :, :20], masks[1, :, 20:] = 1, 1
    shown = in_regions(objects, masks).fill(region()).shown(HOLE)
    assert shown is not None
    assert near(shown[0, :3, 8:14, 12:18], 0.5) and near(shown[0, :3, 8:14, 22:28], -0.5)


def test_in_training_a_share_of_the_objects_has_other_colours() -> None:
    batch = training_batch(200)
    shown, again = (CompositesInTraining(recolour=0.5, seed=3)(batch) for _ in range(2))
    same = torch.tensor([near(x[:3, 7:13, 13:19], 0.25) for x in shown])
    assert torch.equal(shown, again), "sample i depends on (seed, i)"
    assert 70 < int(same.sum()) < 130
    assert near(shown[~same][:, :3, :5], 0.25), "the scene around it stays"
    assert not torch.equal(shown, CompositesInTraining(recolour=0.5, seed=4)(batch))


def test_the_scene_behind_the_object_is_shown() -> None:
    mask = np.zeros((64, 64), bool)
    mask[16:48, 16:48] = True
    known, cut_out = torch.rand(3, 64, 64) * 2 - 1, torch.ones(1, 4, 16, 16)
    inside = torch.from_numpy(mask)[None, None, ::2, ::2].float()
    fill = CompositeObject(cut_out, CompositeSettings(keep_scene=True))(region_of(known, mask, []))
    seen = fill.shown(inside)
    assert seen.shape == (1, 3, 32, 32)
    small = torch.nn.functional.interpolate(known[None], size=32, mode="bicubic", antialias=True)[0]
    beside = np.s_[:3, 2:6, 2:6]  # of the object, which stands in the mask
    assert torch.allclose(seen[0][beside], small.clamp(-1, 1)[beside], atol=1e-3)
