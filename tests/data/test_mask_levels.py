"""Masks as tools write them mark what was meant, or are refused in one line with the remedy."""

import warnings
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from ldm.data.icc_profile import make_icc
from ldm.data.mask_levels import above, mask_levels, read_silhouette, surrounds, without_specks
from ldm.data.picture import Picture, read_picture
from ldm.data.picture_write import write_picture
from ldm.insertion.mask_input import read_mask
from tests.fixtures.profiles import shown

SIZE = (60, 80)
VOC = [0, 0, 0, 128, 0, 0, 0, 128, 0, 128, 128, 0] + [0, 0, 0] * 251 + [224, 224, 192]


@pytest.fixture
def region() -> np.ndarray:
    mask = np.zeros(SIZE, bool)
    mask[15:40, 20:60] = True
    return mask


def palette(labels: np.ndarray, path: Path) -> Path:
    picture = Image.fromarray(labels.astype(np.uint8), "P")
    picture.putpalette(VOC)
    picture.save(path)
    return path


@pytest.mark.parametrize(
    ("high", "dtype"), [(1, np.uint8), (100, np.uint8), (1, np.uint16), (255, np.uint16)]
)
def test_two_dark_levels_are_black_and_white(tmp_path, region, high, dtype):
    """Levels 0 and 1 of arrays that were saved as they are; 8-bit masks in 16-bit files."""
    write_picture(tmp_path / "m.png", Picture((region * high).astype(dtype)[..., None]))
    top = np.iinfo(dtype).max
    with pytest.warns(UserWarning, match=rf"m\.png: its brightest level is {high} of {top}; a mask is white"):
        assert np.array_equal(read_mask(tmp_path / "m.png", SIZE), region)
    with pytest.warns(UserWarning, match=rf"m\.png: its brightest level is {high} of {top}"):
        assert np.array_equal(read_silhouette(tmp_path / "m.png"), region * 255)
    with warnings.catch_warnings():  # whoever gives the threshold knows the levels
        warnings.simplefilter("error")
        assert np.array_equal(read_mask(tmp_path / "m.png", SIZE, 0), region)


def test_dark_levels_of_many_kinds_are_refused(tmp_path, region):
    levels = region.astype(np.uint8) * 3
    levels[20:25] *= 2
    Image.fromarray(levels).save(tmp_path / "classes.png")
    message = r"classes\.png: its brightest level is 6 of 255; a mask is white, 255 \(or: --threshold 0\)"
    with pytest.raises(ValueError, match=message):
        read_mask(tmp_path / "classes.png", SIZE)
    with pytest.raises(ValueError, match="brightest level is 6; a silhouette is white, 255, on black"):
        read_silhouette(tmp_path / "classes.png")
    Image.fromarray(np.zeros(SIZE, np.uint8)).save(tmp_path / "black.png")
    with pytest.raises(ValueError, match=r"black\.png: the mask is empty"):
        read_mask(tmp_path / "black.png", SIZE)


def test_a_palette_of_one_label_is_marked(tmp_path, region):
    """As PASCAL VOC stores objects: label 1 is dark red, label 255 the outline that belongs to none."""
    labels = region.astype(np.uint8)
    labels[13:15, 20:60] = 255
    for read in (lambda file: read_mask(file, SIZE), lambda file: read_silhouette(file) > 127):
        with pytest.warns(UserWarning, match=r"m\.png: holds labels; label 1 is taken"):
            assert np.array_equal(read(palette(labels, tmp_path / "m.png")), region)


@pytest.mark.parametrize("label", [1, 5, 15])
def test_one_label_as_a_grey_level_is_marked(tmp_path, region, label):
    """PASCAL VOC saved as grey: the outline, 255, is the brightest and is not meant."""
    labels = region.astype(np.uint8) * label
    labels[13:15, 20:60] = 255
    Image.fromarray(labels).save(tmp_path / "m.png")
    for read in (lambda file: read_mask(file, SIZE), lambda file: read_silhouette(file) > 127):
        with pytest.warns(UserWarning, match=rf"m\.png: holds labels; label {label} is taken"):
            assert np.array_equal(read(tmp_path / "m.png"), region)
    labels[30:40, 20:60] = label + 1
    Image.fromarray(labels).save(tmp_path / "m.png")
    with pytest.raises(ValueError, match=rf"m\.png: holds 2 labels \({label}, {label + 1}\)"):
        read_mask(tmp_path / "m.png", SIZE)


def test_faint_noise_beside_white_is_no_label(tmp_path, region):
    levels = region.astype(np.uint8) * 255
    levels[50, 0:3] = 1
    Image.fromarray(levels).save(tmp_path / "m.png")
    assert np.array_equal(read_mask(tmp_path / "m.png", SIZE), region)


@pytest.mark.parametrize("dark", [1, 5])
def test_white_on_nearly_black_is_no_label(tmp_path, region, dark):
    """A background of one dark level, all of it or its upper half: the white is meant."""
    for rows in (len(region), len(region) // 2):
        levels = np.zeros(region.shape, np.uint8)
        levels[:rows] = dark
        levels[region] = 255
        Image.fromarray(levels).save(tmp_path / "m.png")
        assert np.array_equal(read_mask(tmp_path / "m.png", SIZE), region)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_profile_counts_in_masks_and_silhouettes(tmp_path, region, dtype):
    """A viewer shows 100 of linear light as 168, and 160 of gamma 4.4 as 100."""
    for stored, gamma, marked in ((100, 1.0, True), (160, 4.4, False)):
        levels = (region * stored).astype(dtype) * (257 if dtype == np.uint16 else 1)
        levels[0, 0] = np.iinfo(dtype).max  # so that the levels are not two only
        file, profile = tmp_path / "m.png", make_icc("grey", (gamma,))
        write_picture(file, Picture(levels[..., None], profile))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            mask = above(mask_levels(file, read_picture(file)), 0.5, "m.png")
        assert mask[region].all() == marked == mask[region].any()
        expected = shown(np.uint8([[stored]]), profile)[0, 0, 0]
        assert np.abs(read_silhouette(file)[region].astype(int) - expected).max() <= 1


def test_several_labels_are_named(tmp_path, region):
    labels = region.astype(np.uint8)
    labels[20:30, 20:30] = 3
    with pytest.raises(ValueError, match=r"m\.png: holds 2 labels \(1, 3\); make the one that is meant"):
        read_mask(palette(labels, tmp_path / "m.png"), SIZE)


def test_a_palette_of_shades_is_a_plain_mask(tmp_path, region):
    Image.fromarray((region * 255).astype(np.uint8)).quantize(2).save(tmp_path / "m.png")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.array_equal(read_mask(tmp_path / "m.png", SIZE), region)


@pytest.mark.parametrize("paint", [(255, 0, 0), (255, 255, 255), (0, 0, 0), (10, 90, 250)])
@pytest.mark.parametrize("hidden", [0, 255])
def test_paint_on_transparency_is_marked_by_alpha(tmp_path, region, paint, hidden):
    pixels = np.full((*SIZE, 4), hidden, np.uint8)
    pixels[..., 3] = region * 255
    pixels[region, :3] = paint
    Image.fromarray(pixels).save(tmp_path / "m.png")
    assert np.array_equal(read_mask(tmp_path / "m.png", SIZE), region)
    assert np.array_equal(read_silhouette(tmp_path / "m.png"), region * 255)


def test_a_cut_out_photo_is_marked_by_alpha_and_black_and_white_by_its_luma(tmp_path, region):
    rng = np.random.default_rng(0)
    photo = np.dstack([rng.integers(0, 256, (*SIZE, 3)), region * 255]).astype(np.uint8)
    Image.fromarray(photo).save(tmp_path / "photo.png")
    assert np.array_equal(read_mask(tmp_path / "photo.png", SIZE), region)
    mask = np.dstack([*[region * 255] * 3, np.full(SIZE, 255)]).astype(np.uint8)
    mask[:5, :, 3], mask[:5, :, :3] = 0, 255  # a transparent margin is not marked, whatever it hides
    Image.fromarray(mask).save(tmp_path / "mask.png")
    assert np.array_equal(read_mask(tmp_path / "mask.png", SIZE), region)


def test_white_around_black_is_refused_with_the_remedy(tmp_path, region):
    Image.fromarray((~region * 255).astype(np.uint8)).save(tmp_path / "m.png")
    with pytest.raises(ValueError, match=r"m\.png: white surrounds black, 79% of the picture.*--invert"):
        read_mask(tmp_path / "m.png", SIZE)
    assert np.array_equal(read_mask(tmp_path / "m.png", SIZE, invert=True), region)
    with pytest.warns(UserWarning, match=r"m\.png: white surrounds black; a silhouette is white where"):
        read_silhouette(tmp_path / "m.png")
    wide = np.zeros(SIZE, bool)
    wide[10:, :] = True  # most of the picture, but not around something
    assert not surrounds(wide) and not surrounds(np.ones(SIZE, bool)) and surrounds(~region)


def test_a_soft_tail_is_counted(region):
    y, x = np.mgrid[:60, :80]
    soft = (255 * np.clip(1.2 - np.hypot(y - 30, x - 40) / 25, 0, 1)).astype(np.uint8)
    with pytest.warns(UserWarning, match=r"brush: soft; \d+ pixels darker than the threshold 0\.5"):
        mask = above(soft, 0.5, "brush")
    assert np.array_equal(mask, soft > 127)
    with warnings.catch_warnings():  # an edge of one pixel is no tail
        warnings.simplefilter("error")
        above(np.where(region, 255, np.roll(region, 1, 0) * 60).astype(np.uint8), 0.5, "sharp")


@pytest.mark.parametrize(("count", "verb"), [(1, "1 speck is"), (3, "3 specks are")])
def test_specks_are_left_out_and_counted(region, count, verb):
    dirty = region.copy()
    for i in range(count):
        dirty[55, 5 + 10 * i : 7 + 10 * i] = True
    with pytest.warns(UserWarning, match=f"m: {verb} not counted.*{2 * count} px beside a part of 1000 px"):
        assert np.array_equal(without_specks(dirty, "m"), region)


def test_a_part_of_one_percent_and_equal_dots_are_no_specks(region):
    two = region.copy()
    two[50:52, 5:10] = True  # 10 px of 1000
    dots = np.zeros(SIZE, bool)
    dots[::10, ::10] = True
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for mask in (two, dots, region, np.eye(20) > 0):
            assert np.array_equal(without_specks(mask, "m"), mask)
    small = np.zeros(SIZE, bool)
    small[10:15, 10:15], small[40, 40:43] = True, True  # 3 px: more than 1 % of 25, but fewer than 4
    with pytest.warns(UserWarning, match="1 speck"):
        assert without_specks(small, "m").sum() == 25


def test_a_dot_of_a_huge_picture_is_a_speck():
    """30 px of 40 megapixels are less than a pixel on a screen; alone they are what was meant."""
    huge = np.zeros((5200, 7800), bool)
    huge[10:15, 10:16] = True
    assert np.array_equal(without_specks(huge, "m"), huge)
    huge[3000:3050, 3000:3040] = True
    with pytest.warns(UserWarning, match="1 speck is not counted.*30 px beside a part of 2000 px"):
        assert without_specks(huge, "m").sum() == 2000


def test_specks_do_not_grow(tmp_path, region):
    dirty = region.copy()
    dirty[5, 70] = True
    Image.fromarray(dirty).save(tmp_path / "m.png")
    with pytest.warns(UserWarning, match=r"m\.png: 1 speck"):
        grown = read_mask(tmp_path / "m.png", SIZE, grow=6)
    assert not grown[:8, 60:].any() and grown.sum() > region.sum()


def test_alpha_that_is_asked_for_must_exist(tmp_path):
    Image.new("L", SIZE[::-1]).save(tmp_path / "m.png")
    with pytest.raises(ValueError, match="no alpha channel"):
        mask_levels(tmp_path / "m.png", read_picture(tmp_path / "m.png"), "alpha")


def test_a_silhouette_is_white_somewhere(tmp_path):
    Image.fromarray(np.full((9, 9), 100, np.uint8)).save(tmp_path / "a.png")
    with pytest.raises(ValueError, match="brightest level is 100; a silhouette is white"):
        read_silhouette(tmp_path / "a.png")


def test_a_photo_given_as_a_mask_or_silhouette_is_named(tmp_path: Path, region: np.ndarray) -> None:
    """Its bright half would be the mask."""
    photo = np.linspace(60, 230, region.size).astype(np.uint8).reshape(SIZE)
    Image.fromarray(photo).save(tmp_path / "m.png")
    told = r"m\.png: 100% of its pixels are neither black nor white, as in a photo"
    with pytest.warns(UserWarning, match=told):
        read_mask(tmp_path / "m.png", SIZE, 0.35)
    with pytest.warns(UserWarning, match=told):
        read_silhouette(tmp_path / "m.png")
    blurred = cv2.GaussianBlur((region * 255).astype(np.uint8), (0, 0), 2)
    Image.fromarray(blurred).save(tmp_path / "m.png")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read_mask(tmp_path / "m.png", SIZE)
        read_silhouette(tmp_path / "m.png")
