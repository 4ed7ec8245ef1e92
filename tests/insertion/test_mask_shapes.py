"""Masks from pictures, boxes, files and polygons; each mistake is named."""

import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from ldm.data.boxes import Frame
from ldm.data.exif import upright_pixels
from ldm.data.picture import Picture
from ldm.data.picture_write import write_picture
from ldm.data.polygons import polygons_in
from ldm.insertion.mask_input import box_mask, polygon_mask, read_mask, refine_mask

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
    with pytest.raises(ValueError, match=r"empty.*; shrink it less"):
        refine_mask(np.eye(9) > 0, grow=-2)
    with pytest.raises(ValueError, match=r"covers the whole.*; grow it less"):
        refine_mask(np.eye(9) > 0, grow=20)


@pytest.mark.parametrize(
    ("level", "invert", "message"),
    [
        (255, False, "covers the whole.*; draw the mask smaller: black where the background stays$"),
        (0, False, "is empty.*; mark the region in white$"),
        (255, True, "is empty.*; make the region black$"),
        (0, True, "covers the whole.*; draw the mask smaller: white where the background stays$"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*neither black nor white")
def test_a_mask_image_of_one_level_has_a_remedy_that_helps(tmp_path, level, invert, message):
    Image.fromarray(np.full(SIZE, level, np.uint8)).save(tmp_path / "m.png")
    with pytest.raises(ValueError, match=message):
        read_mask(tmp_path / "m.png", SIZE, invert=invert)


@pytest.mark.filterwarnings("ignore:.*neither black nor white")
@pytest.mark.parametrize(("invert", "message"), [(False, "covers the whole"), (True, "is empty")])
def test_between_two_levels_a_higher_threshold_helps(tmp_path, invert, message):
    levels = np.full(SIZE, 200, np.uint8)
    levels[3:6, 3:6] = 250
    Image.fromarray(levels).save(tmp_path / "m.png")
    with pytest.raises(ValueError, match=f"{message}.*; raise the threshold, or"):
        read_mask(tmp_path / "m.png", SIZE, invert=invert)
    assert read_mask(tmp_path / "m.png", SIZE, threshold=0.9, invert=invert).any()


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
    assert np.array_equal(box_mask((7.6, 4.6, 16.5, 12.5), SIZE), region), "by the pixels' centres"
    with pytest.raises(ValueError, match="covers the whole"):
        box_mask((0, 0, 30, 20), SIZE)


def test_polygons(region):
    corners = ((8.0, 5.0), (16.0, 5.0), (16.0, 12.0), (8.0, 12.0))
    assert np.array_equal(polygon_mask([corners], SIZE), region)
    assert np.array_equal(polygon_mask([corners[::-1]], SIZE), region)
    two = polygon_mask([corners, ((0, 0), (3, 0), (0, 3))], SIZE)
    assert two[0, 0] and two.sum() == region.sum() + 3
    with pytest.raises(ValueError, match="empty"):
        polygon_mask([((100, 100), (120, 100), (100, 120))], SIZE)


@given(
    st.lists(
        st.lists(st.tuples(st.floats(-9, 40), st.floats(-9, 30)), min_size=3, max_size=7),
        min_size=1,
        max_size=2,
    )
)
def test_polygons_hold_the_pixels_whose_centres_lie_in_them(polygons):
    """Oracle: a ray from each centre crosses the outline an odd number of times."""
    expected = np.zeros(SIZE, bool)
    for polygon in polygons:
        crossings = np.zeros(SIZE, int)
        for (xa, ya), (xb, yb) in zip(polygon, polygon[1:] + polygon[:1], strict=True):
            for y in range(SIZE[0]):
                if min(ya, yb) <= y + 0.5 < max(ya, yb):
                    at = xa + (y + 0.5 - ya) * ((xb - xa) / (yb - ya))
                    crossings[y] += np.arange(SIZE[1]) + 0.5 >= at
        expected |= crossings % 2 == 1
    if expected.any() and not expected.all():
        assert np.array_equal(polygon_mask([tuple(polygon) for polygon in polygons], SIZE), expected)


SQUARE = ((3.0, 4.0), (9.0, 4.0), (9.0, 10.0), (3.0, 10.0))


def test_polygons_of_another_convention_are_read_with_a_warning():
    frame = Frame(30, 20)
    assert polygons_in([SQUARE], frame, "p") == [SQUARE]
    shares = tuple((x / 30, y / 20) for x, y in SQUARE)
    with pytest.warns(UserWarning, match="p: read as shares of the background"):
        [found] = polygons_in([shares], frame, "p")
    assert np.allclose(found, SQUARE)
    with pytest.warns(UserWarning, match="p: 2 of 4 points lie outside the background of 30 x 20 px"):
        assert polygons_in([((1.0, 1.0), (33.0, 1.0), (33.0, 9.0), (1.0, 9.0))], frame, "p")
    with pytest.raises(ValueError, match="p: a polygon of 2 points; give at least 3"):
        polygons_in([SQUARE, SQUARE[:2]], frame, "p")
    with pytest.raises(ValueError, match="not finite"):
        polygons_in([(*SQUARE, (float("nan"), 1.0))], frame, "p")


@pytest.mark.parametrize("orientation", range(5, 9))
def test_masks_and_polygons_of_the_stored_background_turn_with_it(tmp_path, orientation):
    """Only the sideways, stored background is as wide as they reach."""
    frame, size = Frame(30, 20, orientation), (30, 20)
    wide = ((3.0, 4.0), (28.0, 4.0), (28.0, 10.0), (3.0, 10.0))
    with pytest.warns(UserWarning, match="stored background"):
        turned = polygon_mask(polygons_in([wide], frame, "p"), size)
    stored = polygon_mask([wide], (20, 30))
    assert np.array_equal(turned, upright_pixels(stored, orientation))
    write_picture(tmp_path / "m.png", Picture((stored * np.uint8(255))[..., None]))
    with pytest.warns(UserWarning, match="fits the stored background only"):
        assert np.array_equal(read_mask(tmp_path / "m.png", size, turn=orientation), turned)
