"""What is pasted is pasted; what is not is not touched, at any depth, size and position."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from ldm.data.colour_space import colour_space
from ldm.data.image import colours
from ldm.data.picture import Picture
from ldm.insertion.blend import BLENDS, blend
from ldm.insertion.crop_paste import crop_region, enlarged, paste_region, patched, shrunk, shrunk_mask
from ldm.insertion.roi import CropContext, Roi, crop, plan_roi
from tests.fixtures.profiles import PROFILES


def random_picture(seed: int, channels: int, dtype: type, size: tuple[int, int]) -> Picture:
    top = np.iinfo(dtype).max
    pixels = np.random.default_rng(seed).integers(0, top + 1, (*size, channels), dtype=dtype)
    return Picture(pixels)


@given(
    st.integers(0, 1000),
    st.sampled_from(sorted(BLENDS)),
    st.sampled_from([1, 2, 3, 4]),
    st.sampled_from([np.uint8, np.uint16]),
    st.tuples(st.integers(1, 70), st.integers(1, 70)),
    st.booleans(),
)
@settings(max_examples=150, deadline=None)
def test_pixels_outside_the_mask_are_identical(seed, mode, channels, dtype, size, whole):
    rng = np.random.default_rng(seed)
    picture = random_picture(seed, channels, dtype, size)
    mask = np.zeros(size, bool)
    y, x = rng.integers(0, size[0]), rng.integers(0, size[1])
    mask[y : y + 30, x : x + 20] = rng.random(mask[y : y + 30, x : x + 20].shape) < (1 if whole else 0.6)
    mask[y, x] = True
    roi = plan_roi(mask, CropContext(24))
    image = torch.from_numpy(rng.uniform(-1.2, 1.2, (3, *roi.size)).astype(np.float32))
    image, alpha = blend(crop_region(picture, roi), image, crop(mask, roi), BLENDS[mode])
    after = patched(picture, [paste_region(picture, roi, image, alpha)])
    assert after.pixels.dtype == dtype and after.pixels is not picture.pixels
    assert np.array_equal(after.pixels[~mask], picture.pixels[~mask])
    if channels in (2, 4):
        assert np.array_equal(after.pixels[..., -1], picture.pixels[..., -1])
    if mode == "paste":
        assert not np.array_equal(after.pixels[mask], picture.pixels[mask]) or mask.sum() < 3


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_pasting_replaces_exactly(channels, dtype):
    old, new = (random_picture(seed, channels, dtype, (40, 30)) for seed in (1, 2))
    mask = np.zeros((40, 30), bool)
    mask[0:9, 20:30] = True
    roi = plan_roi(mask)
    after = patched(old, [paste_region(old, roi, crop_region(new, roi), crop(mask, roi).astype(np.float32))])
    n = old.n_colours
    assert np.array_equal(after.pixels[mask][..., :n], new.pixels[mask][..., :n])
    assert np.array_equal(after.pixels[~mask], old.pixels[~mask])


def test_alpha_mixes():
    picture = Picture(np.full((8, 8, 3), 100, np.uint8))
    roi = plan_roi(np.ones((8, 8), bool))
    image = colours(np.full((8, 8, 3), 200, np.uint8))
    alpha = np.full((8, 8), 0.25, np.float32)
    assert (paste_region(picture, roi, image, alpha).pixels == 125).all()


@pytest.mark.filterwarnings("ignore:invalid value")
def test_what_is_not_pasted_is_not_even_looked_at():
    picture = random_picture(0, 3, np.uint8, (20, 20))
    mask = np.zeros((20, 20), bool)
    mask[5:9, 5:9] = True
    roi = plan_roi(mask)
    image = torch.where(torch.from_numpy(crop(mask, roi)), 1.0, torch.nan).expand(3, -1, -1)
    after = patched(picture, [paste_region(picture, roi, image, crop(mask, roi).astype(np.float32))])
    assert (after.pixels[mask] == 255).all() and np.array_equal(after.pixels[~mask], picture.pixels[~mask])


def test_strips_of_an_enlarged_image_are_those_of_the_whole():
    image = torch.randn(3, 12, 9, generator=torch.Generator().manual_seed(0)) / 4
    whole = F.interpolate(image[None], size=(50, 37), mode="bicubic")[0].clamp(-1, 1)
    for box in (Roi(0, 0, 37, 50), Roi(5, 7, 21, 33), Roi(36, 49, 37, 50)):
        assert torch.allclose(enlarged(image, (50, 37), box), whole[(slice(None), *box.slices)], atol=1e-5)
    assert torch.equal(enlarged(image, (12, 9), Roi(2, 3, 7, 9)), image[:, 3:9, 2:7])


def test_a_patch_holds_what_changes_and_no_more():
    picture, mask = random_picture(0, 4, np.uint16, (700, 30)), np.zeros((700, 30), bool)
    mask[3:690, 5:9] = True
    roi = plan_roi(mask, CropContext(900))
    box, pixels = paste_region(picture, roi, torch.zeros(3, 90, 90), crop(mask, roi).astype(np.float32))
    assert box == Roi(5, 3, 9, 690) and (pixels[..., :3] == 32768).all()


def test_shrunk_masks_cover_what_they_covered():
    mask = np.zeros((90, 60), bool)
    mask[31, 17] = True
    assert shrunk_mask(mask, 90) is mask and shrunk_mask(mask, 30).shape == (30, 20)
    assert shrunk_mask(mask, 30)[10, 5] and shrunk_mask(mask, 30).sum() == 1
    assert shrunk(np.zeros((90, 60, 1), np.uint16), 45).shape == (45, 30, 1)


@pytest.mark.parametrize("name", ["p3", "adobe", "prophoto", "linear"])
def test_what_is_pasted_has_the_colours_of_srgb_in_every_profile(name):
    """What a model makes beyond them is cut as in an sRGB picture; a background beyond them stays."""
    space, roi = colour_space(PROFILES[name], 3), Roi(0, 0, 4, 4)
    dark = Picture(np.full((4, 4, 3), 20000, np.uint16), PROFILES[name])
    made = torch.tensor([-1.4, 1.3, -0.6])[:, None, None].expand(3, 4, 4)
    patch = paste_region(dark, roi, made, np.ones((4, 4)))
    assert np.abs(space.to_srgb(patch.pixels / 65535) * 255 - [0, 255, 51]).max() <= 1
    green = Picture(np.full((4, 4, 3), [0, 65535, 0], np.uint16), PROFILES[name])
    kept = paste_region(green, roi, crop_region(green, roi), np.full((4, 4), 0.5))
    assert np.abs(kept.pixels.astype(int) - green.pixels).max() <= 257  # a level of 8 bits
