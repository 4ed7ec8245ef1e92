"""What a base is shown of an object: squashed crops, or cut-outs without their ground."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ldm.data.image import to_image
from ldm.data.insertset import InsertSet, Sample
from ldm.data.pairs import Pairs
from ldm.data.shown import few_shot_crops, object_crop, own_reference, paper_crops, reference_image, squash
from tests.fixtures.painted import BLUE, GREEN, RED, YELLOW, near, painted, painted_set


@pytest.fixture
def insertset(tmp_path: Path) -> InsertSet:
    return painted_set(tmp_path)


def test_object_crop_is_the_touched_pixels_and_the_padding_that_exists() -> None:
    pixels = np.arange(10 * 8 * 3, dtype=np.uint8).reshape(10, 8, 3)
    assert np.array_equal(object_crop(pixels, (2.5, 3, 5.2, 6)), pixels[3:6, 2:6])
    assert np.array_equal(object_crop(pixels, (2, 3, 5, 6), pad=4), pixels[0:10, 0:8])
    assert np.array_equal(object_crop(pixels, (2, 3, 5, 6), pad=1), pixels[2:7, 1:6])


@pytest.mark.parametrize("shape", [(700, 431), (24, 24), (5, 90), (1, 1)])
def test_squash_is_an_antialiased_resize_to_within_rounding(shape: tuple[int, int]) -> None:
    pixels = np.random.default_rng(0).integers(80, 176, (*shape, 3), np.uint8)  # bicubic overshoot fits
    image = to_image(pixels)[None]
    exact = torch.nn.functional.interpolate(image, size=(24, 24), mode="bicubic", antialias=True)[0]
    assert ((squash(pixels, 24) - exact).abs() <= 2 / 127.5).all()


def test_paper_crops_are_cut_at_whole_pixels_and_not_antialiased(tmp_path: Path) -> None:
    """Known answer: of 16 columns to 8, without antialiasing, each is the mean of two."""
    pixels = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "1.png")
    boxes = [(3.7, 2.2, 19.9, 18.9), (3.0, 2.0, 35.0, 34.0), (7.2, 9.1, 7.8, 9.9), (0.0, 0.0, 50.0, 40.0)]
    samples = [Sample(tmp_path / "1.png", (box,)) for box in boxes]
    sets = [InsertSet(tmp_path, (sample,), (), tmp_path / "1.png") for sample in samples]
    halved = pixels[2:18, 3:19].reshape(8, 2, 8, 2, 3).mean((1, 3))
    [crop] = paper_crops(sets[0], 8)
    levels = crop.permute(1, 2, 0).numpy() * 127.5 + 127.5
    assert np.abs(levels - levels.round()).max() < 1e-4 and np.abs(levels - halved).max() <= 1
    [crop] = paper_crops(sets[1], 8)  # four to one: the middle two count, an antialiased resize takes all
    middle = pixels[2:34, 3:35].reshape(8, 4, 8, 4, 3)[:, 1:3, :, 1:3].mean((1, 3))
    assert np.abs(crop.permute(1, 2, 0).numpy() * 127.5 + 127.5 - middle).max() <= 1
    [crop] = paper_crops(sets[2], 8)  # no whole pixel: one is left
    assert torch.equal(crop, to_image(pixels[9:10, 7:8]).expand(3, 8, 8))
    assert paper_crops(sets[3], 8).shape == (1, 3, 8, 8)


def test_few_shot_crops_are_the_objects_in_order(insertset: InsertSet) -> None:
    crops = few_shot_crops(insertset, 16)
    assert crops.shape == (3, 3, 16, 16)
    assert all(near(crop, colour).all() for crop, colour in zip(crops, (RED, BLUE, YELLOW), strict=True))


def test_pictures_are_shown_without_their_ground_if_asked(insertset: InsertSet, tmp_path: Path) -> None:
    crops = few_shot_crops(insertset, 32, cut=True)
    assert crops.shape == (3, 4, 32, 32) and near(crops[0, :3], RED)[3:-3, 3:-3].all(), "fills its square"
    assert (
        near(crops[2, :3], YELLOW)[8:24, 2:-2].all() and (crops[2, :, [*range(4), *range(28, 32)]] == 0).all()
    )
    painted(tmp_path / "pictures" / "data" / "x.png", (64, 48), (20, 10, 40, 40), RED)
    shown = reference_image(tmp_path / "pictures" / "data" / "x.png", 30, cut=True)[0]
    assert near(shown[:3], RED)[2:-2, 7:23].all() and not near(shown[:3], GREEN).any()
    assert (shown[3, 2:-2, 7:23] == 1).all() and shown[3].mean() == pytest.approx(2 / 3, abs=0.08)


def test_an_object_is_shown_by_its_reference_unless_only_other_silhouettes_are_known(
    insertset: InsertSet, tmp_path: Path
) -> None:
    crops = few_shot_crops(insertset, 32, cut=True)
    own = reference_image(insertset.reference, 32, True)
    assert torch.equal(own_reference(insertset, 32, True, crops), own)
    Image.new("L", Image.open(insertset.few_shot[1].image).size, 255).save(tmp_path / "m.png")
    known = [
        Sample(x.image, x.boxes, tmp_path / "m.png" if i == 1 else None)
        for i, x in enumerate(insertset.few_shot)
    ]
    masked = InsertSet(insertset.root, tuple(known), (), insertset.reference)
    assert torch.equal(own_reference(masked, 32, True, crops)[0], crops[1])
    assert own_reference(masked, 32, False, crops).shape == (1, 3, 32, 32), "not for other bases"
    size = Image.open(insertset.reference).size
    Image.new("L", size, 255).save(insertset.reference.with_name(f"{insertset.reference.stem}_mask.png"))
    found = own_reference(masked, 32, True, crops)
    assert torch.equal(found, reference_image(insertset.reference, 32, True))


def test_a_silhouette_says_what_the_object_is(insertset: InsertSet, tmp_path: Path) -> None:
    """Whatever the picture shows there."""
    half = Image.new("L", (90, 64))
    half.paste(255, (30, 20, 42, 44))
    half.save(tmp_path / "half.png")
    first = insertset.few_shot[0]
    masked = InsertSet(
        insertset.root, (Sample(first.image, first.boxes, tmp_path / "half.png"),), (), insertset.reference
    )
    shown = few_shot_crops(masked, 48, cut=True)[0]
    assert near(shown[:3, :, 14:34], RED).all() and (shown[3, :, 14:34] == 1).all()
    assert (shown[:, :, [*range(11), *range(37, 48)]] == 0).all(), "half as wide as high"
    item = Pairs(masked, 64, 32, cut=True)[0]
    assert item["place"][2] - item["place"][0] == pytest.approx(
        float(item["place"][3] - item["place"][1]) / 2, rel=0.1
    )


def test_reference_image_is_the_whole_picture_squashed(tmp_path: Path) -> None:
    pixels = np.zeros((20, 40, 3), np.uint8)
    pixels[:, 20:] = 255
    Image.fromarray(pixels).save(tmp_path / "test.png")
    image = reference_image(tmp_path / "test.png", 20)
    assert image.shape == (1, 3, 20, 20)
    assert (image[..., :9] < -0.99).all() and (image[..., 11:] > 0.99).all()
