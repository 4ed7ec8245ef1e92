"""Masks from pictures, boxes, files and polygons; each mistake is named."""

import warnings

import numpy as np
import pytest
from PIL import Image

from ldm.data.picture import Picture
from ldm.data.picture_write import write_picture
from ldm.insertion.mask_shapes import box_mask, polygon_mask, read_mask, read_roi_file, refine_mask

SIZE = (20, 30)


@pytest.fixture
def region() -> np.ndarray:
    mask = np.zeros(SIZE, bool)
    mask[5:12, 8:16] = True
    return mask


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_luma(tmp_path, region, channels, dtype):
    top = np.iinfo(dtype).max
    pixels = (region * top).astype(dtype)[..., None].repeat(channels, 2)
    if channels in (2, 4):
        pixels[..., -1] = top
    write_picture(tmp_path / "m.png", Picture(pixels))
    assert np.array_equal(read_mask(tmp_path / "m.png", SIZE), region)


def test_threshold(tmp_path, region):
    write_picture(tmp_path / "m.png", Picture(np.where(region, 100, 10).astype(np.uint8)[..., None]))
    assert np.array_equal(read_mask(tmp_path / "m.png", SIZE, 0.2), region)
    dark = r"m\.png: its brightest level is 100 of 255; a mask is white, 255 \(or: --threshold 0\.19\)"
    with pytest.raises(ValueError, match=dark):
        read_mask(tmp_path / "m.png", SIZE)
    assert np.array_equal(read_mask(tmp_path / "m.png", SIZE, 0.19), region)


def test_alpha_is_taken_if_only_it_varies(tmp_path, region):
    pixels = np.full((*SIZE, 4), 255, np.uint8)
    pixels[..., 3] = region * 255
    write_picture(tmp_path / "m.png", Picture(pixels))
    assert np.array_equal(read_mask(tmp_path / "m.png", SIZE), region)
    pixels[0, :9, :3] = 0  # hidden: what shows is one colour
    write_picture(tmp_path / "m.png", Picture(pixels))
    assert np.array_equal(read_mask(tmp_path / "m.png", SIZE), region)
    with pytest.raises(ValueError, match=r"m\.png: white surrounds black, 98% .* give --invert"):
        read_mask(tmp_path / "m.png", SIZE, channel="luma")


def test_transparent_part_of_a_background(tmp_path, region):
    pixels = np.random.default_rng(0).integers(0, 256, (*SIZE, 4), dtype=np.uint8)
    pixels[..., 3] = ~region * 255
    write_picture(tmp_path / "b.png", Picture(pixels))
    assert np.array_equal(read_mask(tmp_path / "b.png", SIZE, channel="alpha", invert=True), region)


def test_no_alpha_is_named(tmp_path):
    Image.new("RGB", SIZE[::-1]).save(tmp_path / "m.png")
    with pytest.raises(ValueError, match="no alpha channel"):
        read_mask(tmp_path / "m.png", SIZE, channel="alpha")


def test_sizes_are_named(tmp_path, region):
    write_picture(tmp_path / "m.png", Picture(region.astype(np.uint8)[..., None]))
    with pytest.raises(ValueError, match="mask of 30 x 20 px, background of 40 x 50 px"):
        read_mask(tmp_path / "m.png", (50, 40))


def test_empty_and_full_are_refused():
    for full in (False, True):
        with pytest.raises(ValueError, match="covers the whole" if full else "empty"):
            refine_mask(np.full(SIZE, full))
    with pytest.raises(ValueError, match="grow or shrink it less"):
        refine_mask(np.eye(9) > 0, grow=-2)
    with pytest.raises(ValueError, match="grow or shrink it less"):
        refine_mask(np.eye(9) > 0, grow=20)


def test_polarity_warning(region):
    with pytest.warns(UserWarning, match="91% of the picture is masked"):
        refine_mask(region, invert=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.array_equal(refine_mask(~region, invert=True), region)


def test_grow_is_a_disc(region):
    dot = np.zeros((21, 21), bool)
    dot[10, 10] = True
    y, x = np.mgrid[-10:11, -10:11]
    assert np.array_equal(refine_mask(dot, grow=4), x * x + y * y <= 16)
    assert refine_mask(region, grow=-2).sum() == 3 * 4


def test_holes_are_filled(region):
    holed = region.copy()
    holed[7:9, 10:12] = False
    assert np.array_equal(refine_mask(holed, fill_holes=True), region)
    assert np.array_equal(refine_mask(holed), holed)


def test_box(region):
    assert np.array_equal(box_mask((8, 5, 16, 12), SIZE), region)
    assert np.array_equal(box_mask((7.6, 5.2, 16.4, 11.8), SIZE), region)
    with pytest.raises(ValueError, match="reaches outside the background of 30 x 20 px"):
        box_mask((0, 0, 31, 20), SIZE)
    with pytest.raises(ValueError, match="box 5 5 5 9 is empty"):
        box_mask((5, 5, 5, 9), SIZE)
    with pytest.raises(ValueError, match="covers the whole"):
        box_mask((0, 0, 30, 20), SIZE)


def test_polygons(region):
    corners = [(8.0, 5.0), (15.0, 5.0), (15.0, 11.0), (8.0, 11.0)]  # Pillow draws the outline too
    assert np.array_equal(polygon_mask([corners], SIZE), region)
    two = polygon_mask([corners, [(0, 0), (3, 0), (0, 3)]], SIZE)
    assert two[0, 0] and two.sum() > region.sum()
    with pytest.raises(ValueError, match="at least 3 points"):
        polygon_mask([[(0, 0), (1, 1)]], SIZE)
    with pytest.raises(ValueError, match="empty"):
        polygon_mask([[(100, 100), (120, 100), (100, 120)]], SIZE)


@pytest.mark.parametrize("text", ["1 2 3.5 4", "1\n2\n3.5\n4\n", "1, 2, 3.5, 4"])
def test_roi_file(tmp_path, text):
    (tmp_path / "roi.txt").write_text(text)
    assert read_roi_file(tmp_path / "roi.txt") == (1, 2, 3.5, 4)


@pytest.mark.parametrize("text", ["1 2 3", "1 2 3 4 5", "a b c d", ""])
def test_bad_roi_file(tmp_path, text):
    (tmp_path / "roi.txt").write_text(text)
    with pytest.raises(ValueError, match=r"roi\.txt: expected four numbers x0 y0 x1 y1"):
        read_roi_file(tmp_path / "roi.txt")
    with pytest.raises(FileNotFoundError, match=r"none\.txt"):
        read_roi_file(tmp_path / "none.txt")
