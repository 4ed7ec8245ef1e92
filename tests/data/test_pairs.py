"""Training samples: where pictures, masks and references come from; (seed, index) decides them all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader

from ldm.data import pairs
from ldm.data.boxes import Box
from ldm.data.image import to_pixels
from ldm.data.insertset import InsertSet, load_insertset
from ldm.data.pairs import ALL_VIEWS, SampleOptions, TrainingPairs
from tests.fixtures.painted import BLACK, BLUE, RED, YELLOW, near, painted_set


@pytest.fixture
def insertset(tmp_path: Path) -> InsertSet:
    return painted_set(tmp_path)


def make(
    insertset: InsertSet, size: int = 32, reference_size: int = 24, length: int = 60, **options: Any
) -> TrainingPairs:
    return TrainingPairs(insertset, size, reference_size, SampleOptions(**options), length=length)


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def same_category(image: Tensor) -> bool:
    """Only same-category objects are black."""
    return bool(near(image, BLACK).any())


def test_items_have_the_promised_shapes_and_ranges(insertset: InsertSet) -> None:
    for item in make(insertset):
        assert item["image"].shape == (3, 32, 32) and item["image"].abs().max() <= 1
        assert item["reference"].shape == (3, 24, 24) and item["reference"].abs().max() <= 1
        assert item["mask"].shape == (1, 32, 32) and set(item["mask"].unique().tolist()) <= {0.0, 1.0}
        assert item["mask"].any()
        assert item["view"].dtype == torch.int64 and item["view"].shape == ()


def test_an_item_depends_on_seed_and_index_alone(insertset: InsertSet) -> None:
    forwards, backwards = make(insertset), make(insertset, length=1000)
    items = [forwards[i] for i in range(20)]
    torch.manual_seed(123)
    np.random.seed(123)  # noqa: NPY002 - the global state, on purpose
    assert all(same(items[i], backwards[i]) for i in reversed(range(20)))
    other = make(insertset, seed=1)
    assert not any(torch.equal(items[i]["image"], other[i]["image"]) for i in range(20))


def test_items_differ_from_each_other_and_seeds_do_not_overlap(insertset: InsertSet) -> None:
    def first(seed: int, index: int) -> float:
        return torch.rand((), generator=pairs.sample_generator(seed, index)).item()

    assert len({first(seed, index) for seed in range(20) for index in range(20)}) == 400


def test_workers_make_no_difference(insertset: InsertSet) -> None:
    data = make(insertset, length=8)
    alone, shared = (list(DataLoader(data, batch_size=4, num_workers=n)) for n in (0, 2))
    assert len(alone) == 2 and [same_category(image) for image in alone[0]["image"]] == [False, True] * 2
    assert all(same(a, b) for a, b in zip(alone, shared, strict=True))


def test_memory_limit_changes_no_item(insertset: InsertSet, monkeypatch: pytest.MonkeyPatch) -> None:
    roomy = make(insertset)
    items = [roomy[i] for i in range(12)]
    assert len(roomy._cache) == 5
    monkeypatch.setattr(pairs, "CACHE_BYTES", 20_000)
    tight = make(insertset)
    assert all(same(item, tight[i]) for i, item in enumerate(items))
    assert 1 <= len(tight._cache) < 5 and sum(kept.nbytes for kept in tight._cache.values()) <= 20_000


def test_index_and_length(insertset: InsertSet) -> None:
    data = make(insertset, length=3)
    assert len(data) == 3 and len(list(data)) == 3
    with pytest.raises(IndexError):
        data[3]


def test_half_few_shot_half_same_category(insertset: InsertSet) -> None:
    for item in make(insertset):
        assert same_category(item["image"]) == bool(near(item["reference"], BLACK).any())
    assert sum(same_category(item["image"]) for item in make(insertset)) == 30


def test_all_few_shot_without_same_category_pictures(insertset: InsertSet) -> None:
    alone = InsertSet(insertset.root, insertset.few_shot, (), insertset.reference)
    assert not any(same_category(item["image"]) for item in make(alone))
    one = InsertSet(insertset.root, insertset.few_shot[:1], (), insertset.reference)
    assert all(near(item["reference"], RED).all() for item in make(one, length=5, augment=False))


def test_every_few_shot_picture_serves_as_target_and_as_reference(insertset: InsertSet) -> None:
    """Also the last one, which the paper's code never draws; and a target's reference may be any of them."""
    seen = set()
    for item in make(insertset, length=120, augment=False):
        if not same_category(item["image"]):
            [shown] = [c for c in (RED, BLUE, YELLOW) if near(item["image"], c).any()]
            [given] = [c for c in (RED, BLUE, YELLOW) if near(item["reference"], c).all()]
            seen.add((shown, given))
    assert len(seen) == 9


@pytest.mark.parametrize("share", [0.0, 0.4, 1.0])
def test_a_single_view_is_the_samples_own_picture(insertset: InsertSet, share: float) -> None:
    """Its reference shows the very object that is to be drawn; other samples have no view of their own."""
    items = list(make(insertset, length=300, single_view=share, augment=False))
    assert all(item["view"] == ALL_VIEWS for item in items[1::2]), "same category"
    views = [int(item["view"]) for item in items[::2]]
    assert sum(view >= 0 for view in views) / 150 == pytest.approx(share, abs=0.1)
    for item, view in zip(items[::2], views, strict=True):
        if view >= 0:
            colour = (RED, BLUE, YELLOW)[view]
            assert near(item["image"], colour).any() and near(item["reference"], colour).all()


def test_the_reference_of_a_single_view_is_not_mirrored(insertset: InsertSet) -> None:
    picture = Image.open(insertset.few_shot[0].image)
    picture.paste(BLUE, (30, 20, 42, 44))
    picture.save(insertset.few_shot[0].image)
    one = InsertSet(insertset.root, insertset.few_shot[:1], (), insertset.reference)
    for share, sides in ((1.0, {True}), (0.0, {True, False})):
        left = [item["reference"][:, 12, :6].mean(1) for item in make(one, single_view=share)]
        assert {bool(colour[2] > colour[0]) for colour in left} == sides


def test_a_place_is_where_the_object_is_in_the_crop(insertset: InsertSet) -> None:
    for item in list(make(insertset, size=64, length=80))[::2]:  # no reflections
        x0, y0, x1, y1 = item["object_box"].tolist()
        shown = torch.stack([near(item["image"], c) for c in (RED, BLUE, YELLOW, BLACK)]).any(dim=0)
        rows, columns = (shown.any(side).nonzero().flatten() for side in (1, 0))
        found = [int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1]
        assert np.abs(np.clip([x0, y0, x1, y1], 0, 64) - found).max() <= 1.5


def test_any_of_several_boxes_is_drawn(insertset: InsertSet) -> None:
    (insertset.root / "bbox" / "1.txt").write_text("30 20 54 44\n2 2 20 10\n")
    one = load_insertset(insertset.root)
    data = make(InsertSet(one.root, one.few_shot[:1], (), one.reference), augment=False)
    red = [bool(near(item["reference"], RED).all()) for item in data]
    assert any(red) and not all(red)


def test_same_category_reference_is_the_padded_object_of_the_same_picture(insertset: InsertSet) -> None:
    one = InsertSet(insertset.root, insertset.few_shot, insertset.same_category[1:], insertset.reference)
    item = make(one, reference_size=50, augment=False)[1]
    expected = torch.zeros(50, 50, dtype=torch.bool)
    expected[13:37, 11:39] = (
        True  # 30 x 20 in a crop of 50 x 40, squashed to 50 x 50, but for its blurred edge
    )
    shown = near(item["reference"], BLACK)
    assert shown[expected].all()
    assert (
        not shown[:12].any() and not shown[38:].any() and not shown[:, :9].any() and not shown[:, 41:].any()
    )


def test_the_mask_covers_the_object(insertset: InsertSet) -> None:
    """The object's colour shows outside the mask only where the blob's jitter lets it: next to the mask."""
    for item in make(insertset, size=64, length=80):
        shown = torch.stack([near(item["image"], c) for c in (RED, BLUE, YELLOW)]).any(dim=0)
        if item["view"] >= 0:
            grown = torch.nn.functional.max_pool2d(item["mask"], 5, stride=1, padding=2)[0].bool()
            assert (grown | ~shown).all()
            assert (shown & item["mask"][0].bool()).sum() > 0.8 * shown.sum()


def test_a_small_region_never_vanishes(tmp_path: Path) -> None:
    pixels = np.zeros((640, 640, 3), np.uint8)
    for seed in range(20):
        generator = torch.Generator().manual_seed(seed)
        assert pairs.target(pixels, (600.2, 3.1, 602.9, 5.0), 16, generator).mask.any()


@given(st.integers(1, 70), st.integers(1, 70), st.data())
@settings(deadline=None, max_examples=200)
def test_the_crop_holds_the_enlarged_box(height: int, width: int, data: st.DataObject) -> None:
    x0, y0 = data.draw(st.integers(0, width - 1)), data.draw(st.integers(0, height - 1))
    x1, y1 = data.draw(st.integers(x0 + 1, width)), data.draw(st.integers(y0 + 1, height))
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 2**31)))
    left, top, side = pairs.crop_window((x0, y0, x1, y1), (height, width), generator)
    longer, short = max(x1 - x0, y1 - y0), min(height, width)
    assert left <= x0 and top <= y0 and left + side >= x1 and top + side >= y1
    if longer <= short:
        assert short - 0.6 * (short - longer) - 1 <= side <= short
        assert left >= 0 and top >= 0 and left + side <= width and top + side <= height
    else:
        assert side == longer


def test_crops_use_their_whole_range() -> None:
    drawn = [
        pairs.crop_window((80, 40, 100, 60), (100, 200), torch.Generator().manual_seed(seed))
        for seed in range(400)
    ]
    lefts, tops, sides = (np.array(values) for values in zip(*drawn, strict=True))
    assert sides.min() <= 54 and sides.max() >= 98  # 100 - 0.6 * 80 .. 100
    assert lefts.min() <= 10 and lefts.max() >= 70 and tops.min() == 0 and tops.max() >= 35


def test_a_box_longer_than_the_short_side_is_padded_with_a_reflection() -> None:
    rows = np.repeat(np.arange(20, dtype=np.uint8)[:, None, None], 3, axis=2)
    wide = np.broadcast_to(rows, (20, 30, 3))
    image, mask, _ = pairs.target(wide, (0, 0, 30, 20), 30, torch.Generator().manual_seed(0))
    found = to_pixels(image)[:, 0, 0].astype(int)
    assert (np.abs(np.diff(found)) == 1).all()  # a reflection continues 1, 0, 1, 2 ... 18, 19, 18
    assert set(found) == set(range(20))
    filled = mask[0].bool().all(dim=1).numpy()
    assert filled.sum() <= 20 and mask[0, 15, 15] == 1


def test_augmentation_can_be_switched_off(insertset: InsertSet) -> None:
    plain, changed = make(insertset, augment=False), make(insertset)
    assert all(torch.equal(plain[i]["image"], changed[i]["image"]) for i in range(10))
    assert any(not torch.equal(plain[i]["reference"], changed[i]["reference"]) for i in range(1, 10, 2))


def test_boxes_of_real_numbers_are_accepted(insertset: InsertSet) -> None:
    box: Box = (10.25, 10.5, 39.75, 29.9)
    image, mask, _ = pairs.target(np.zeros((64, 64, 3), np.uint8), box, 20, torch.Generator().manual_seed(0))
    assert image.shape == (3, 20, 20) and mask.shape == (1, 20, 20)
