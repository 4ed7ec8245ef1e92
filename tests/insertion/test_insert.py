"""The method as one function: what it may change, what it must not, and that a seed means a picture."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from ldm.data.picture import Picture
from ldm.insertion.blend import BLENDS, Blend
from ldm.insertion.crop_paste import to_model_mask
from ldm.insertion.inpaint import Sampling
from ldm.insertion.insert import InsertOptions, insert
from ldm.insertion.region import InsertableObject, InsertRequest, ObjectFill, Result
from ldm.insertion.roi import CropContext, Roi, plan_rois
from ldm.models.base import Base
from ldm.tiling.second_pass import TiledSecondPass
from tests.fixtures.small import SMALL, small_base

FAST = Sampling("ddim", 2, 2.0)


@pytest.fixture(scope="module")
def base() -> Base:
    return small_base()


@pytest.fixture(scope="module")
def one(base: Base) -> InsertableObject:
    """An object that is nothing but its reference; regions are mid-grey."""
    reference = torch.rand(1, 3, 56, 56, generator=torch.Generator().manual_seed(1)) * 2 - 1
    return InsertableObject(base.contexts(base.context(reference)), ObjectFill())


def picture(height: int = 150, width: int = 190, channels: int = 3, dtype: type = np.uint8) -> Picture:
    top = np.iinfo(dtype).max
    return Picture(np.random.default_rng(3).integers(0, top + 1, (height, width, channels), dtype=dtype))


def box(size: tuple[int, int], x0: int = 40, y0: int = 30, x1: int = 80, y1: int = 90) -> np.ndarray:
    mask = np.zeros(size, bool)
    mask[y0:y1, x0:x1] = True
    return mask


def made(
    base: Base,
    one: InsertableObject,
    background: Picture,
    mask: np.ndarray,
    rois: list[Roi],
    seeds: list[int],
    sampling: Sampling,
    seam: Blend,
) -> list[Result]:
    """One task alone."""
    request, options = InsertRequest(mask, rois, seeds), InsertOptions(sampling, seam)
    [results] = insert(base, background, [request], [one], options)
    return results


@pytest.mark.parametrize("name", BLENDS)
@pytest.mark.parametrize(("channels", "dtype"), [(3, np.uint8), (4, np.uint16), (1, np.uint8)])
def test_only_masked_pixels_change(
    base: Base, one: InsertableObject, name: str, channels: int, dtype: type
) -> None:
    background = picture(channels=channels, dtype=dtype)
    mask = box(background.size)
    [result] = made(base, one, background, mask, plan_rois(mask), [5], FAST, BLENDS[name])
    before, after = background.pixels, result.picture.pixels
    assert after.dtype == dtype and after.shape == before.shape
    assert (after[~mask] == before[~mask]).all()
    assert (after[mask] != before[mask]).mean() > 0.2


def test_a_seed_means_one_picture_alone_or_in_a_batch(base: Base, one: InsertableObject) -> None:
    background = picture()
    mask = box(background.size)
    both = made(base, one, background, mask, plan_rois(mask), [5, 6], FAST, BLENDS["paste"])
    [alone] = made(base, one, background, mask, plan_rois(mask), [6], FAST, BLENDS["paste"])
    first, second, again = (r.picture.pixels.astype(int) for r in (*both, alone))
    assert np.abs(second - again).max() <= 4  # a batch rounds otherwise
    assert np.abs(first - second).max() > 40
    assert [r.record["seed"] for r in both] == [5, 6]


def test_far_components_are_filled_each_in_its_own_square(base: Base, one: InsertableObject) -> None:
    background = picture(200, 600)
    mask = box(background.size) | box(background.size, 500, 100, 540, 150)
    rois = plan_rois(mask)
    [result] = made(base, one, background, mask, rois, [1], FAST, BLENDS["membrane"])
    assert len(result.record["regions"]) == len(rois) == 2
    for part in (slice(40, 80), slice(500, 540)):
        assert (result.picture.pixels[:, part] != background.pixels[:, part]).any()
    assert (result.picture.pixels[~mask] == background.pixels[~mask]).all()


def test_a_picture_smaller_than_its_square_is_reflected(base: Base, one: InsertableObject) -> None:
    background = picture(40, 90)
    mask = box(background.size, 10, 5, 80, 30)
    rois = plan_rois(mask, CropContext(128))
    assert rois[0].size[0] > background.size[0]
    [result] = made(base, one, background, mask, rois, [1], FAST, BLENDS["membrane"])
    assert (
        result.picture.size == (40, 90) and (result.picture.pixels[~mask] == background.pixels[~mask]).all()
    )


def test_without_finite_pixels_there_is_no_result(base: Base, one: InsertableObject) -> None:
    background = picture()
    mask, context = box(background.size), base.context(torch.zeros(1, 3, 56, 56))
    unusable = InsertableObject(base.contexts(torch.full_like(context, float("nan"))), one.fill)
    with pytest.raises(ValueError, match="NaN or infinite pixels; give a smaller --object_scale"):
        made(base, unusable, background, mask, plan_rois(mask), [1], FAST, BLENDS["membrane"])


def test_the_record_says_where_and_how_well(base: Base, one: InsertableObject) -> None:
    background = picture()
    mask = box(background.size)
    [result] = made(base, one, background, mask, [Roi(10, 0, 110, 100)], [9], FAST, BLENDS["membrane"])
    [region] = result.record["regions"]
    assert region["roi"] == [10, 0, 110, 100] and result.record["seconds"] > 0
    assert all(region[key] >= 0 for key in ("seam", "seam_before", "colour_offset", "colour_offset_before"))


def test_a_mask_covers_every_model_pixel_it_touches() -> None:
    mask = np.zeros((400, 400), bool)
    mask[100, 100] = True
    assert to_model_mask(mask, 64).sum() == 1
    assert to_model_mask(box((32, 32), 0, 0, 16, 32), 64).mean() == 0.5


def test_a_large_region_is_worked_on_smaller_and_pasted_at_its_own_size(
    base: Base, one: InsertableObject, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Close to what it is at full size, and sharp at the mask's edge."""
    smooth = cv2.resize(picture(6, 8).pixels, (400, 300), interpolation=cv2.INTER_CUBIC)
    background, mask = Picture(smooth), box((300, 400), 60, 40, 301, 253)
    arguments = base, one, background, mask, plan_rois(mask), [5], FAST, BLENDS["paste"]
    [full] = made(*arguments)
    monkeypatch.setattr("ldm.insertion.region.MOST", 100)
    [small] = made(*arguments)
    changed = (small.picture.pixels != smooth).any(axis=2)
    assert not changed[~mask].any() and changed[mask].mean() > 0.9
    assert np.abs(small.picture.pixels.astype(int) - full.picture.pixels).mean() < 6


@pytest.mark.parametrize("antialias", [False, True])
@pytest.mark.parametrize("strength", [0.0, 0.5])
def test_the_unet_sees_the_mask_as_its_architecture_says(
    base: Base, one: InsertableObject, monkeypatch: pytest.MonkeyPatch, antialias: bool, strength: float
) -> None:
    """In the first pass and in tiles: a hole of whole latents has fractional cells only if antialiased."""
    monkeypatch.setattr(base, "architecture", replace(SMALL, mask_antialias=antialias))
    mask = np.zeros((256, 256), bool)
    mask[64:160, 80:176] = True
    seen: list[torch.Tensor] = []
    hook = base.unet.register_forward_pre_hook(lambda unet, inputs: seen.append(inputs[0][:, 8]))
    second = TiledSecondPass(strength) if strength else None
    request = InsertRequest(mask, [Roi(0, 0, 256, 256)], [1])
    insert(
        base, picture(256, 256), [request], [one], InsertOptions(FAST, BLENDS["paste"], second_pass=second)
    )
    hook.remove()
    assert len(seen) > (2 if strength else 1)
    assert all((((x > 0) & (x < 1)).any()) == antialias for x in seen)
