"""What a base is shown of an object: its pictures and crops, squashed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ldm.data.image import to_image
from ldm.data.insertset import InsertSet, Sample
from ldm.data.object_crops import NEAREST, ObjectImages, object_crop, paper_crops, squash
from tests.fixtures.painted import BLUE, RED, YELLOW, near, painted_set


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
    crops = ObjectImages(16).few_shot(insertset)
    assert crops.shape == (3, 3, 16, 16)
    assert all(near(crop, colour).all() for crop, colour in zip(crops, (RED, BLUE, YELLOW), strict=True))


def test_an_object_is_shown_by_its_reference_and_a_view_by_its_token(insertset: InsertSet) -> None:
    images = ObjectImages(16)
    own, crops = images.reference(insertset.reference), images.few_shot(insertset)
    for view, token in ((0, 0), (2, 2), (NEAREST, 0)):
        shown, found = images.select(crops, own, view)
        assert shown is own and found == token


def test_a_reference_is_the_whole_picture_squashed(tmp_path: Path) -> None:
    pixels = np.zeros((20, 40, 3), np.uint8)
    pixels[:, 20:] = 255
    Image.fromarray(pixels).save(tmp_path / "test.png")
    image = ObjectImages(20).reference(tmp_path / "test.png")
    assert image.shape == (1, 3, 20, 20)
    assert (image[..., :9] < -0.99).all() and (image[..., 11:] > 0.99).all()
