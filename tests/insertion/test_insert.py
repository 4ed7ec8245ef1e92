"""The method as one function: what it may change, what it must not, and that a seed means a picture."""

from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from ldm.insertion.sampling import Sampling
from ldm.models.collage import Collage, laid_over

from ldm.data.image import resize, to_image
from ldm.data.picture import Picture
from ldm.insertion.blend import BLENDS, Blend
from ldm.insertion.insert import insert
from ldm.insertion.paste import to_model_mask
from ldm.insertion.result import Result
from ldm.insertion.roi import Roi, plan_rois
from ldm.insertion.square import square_of
from ldm.insertion.task import Task
from ldm.models.base import Base
from ldm.models.contexts import Contexts
from ldm.models.sampler import sample
from tests.fixtures.tiny import TINY

FAST = Sampling("ddim", 2, 2.0)


@pytest.fixture(scope="module")
def base() -> Base:
    torch.manual_seed(0)
    return Base(TINY).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def context(base: Base) -> Contexts:
    reference = torch.rand(1, 3, 56, 56, generator=torch.Generator().manual_seed(1)) * 2 - 1
    return base.contexts(base.context(reference))


def picture(height: int = 150, width: int = 190, channels: int = 3, dtype: type = np.uint8) -> Picture:
    top = np.iinfo(dtype).max
    return Picture(np.random.default_rng(3).integers(0, top + 1, (height, width, channels), dtype=dtype))


def box(size: tuple[int, int], x0: int = 40, y0: int = 30, x1: int = 80, y1: int = 90) -> np.ndarray:
    mask = np.zeros(size, bool)
    mask[y0:y1, x0:x1] = True
    return mask


def made(
    base: Base,
    contexts: Contexts,
    background: Picture,
    mask: np.ndarray,
    rois: list[Roi],
    seeds: list[int],
    sampling: Sampling,
    seam: Blend,
) -> list[Result]:
    """One task alone."""
    [results] = insert(base, background, [Task(mask, mask, rois, seeds)], [contexts], sampling, seam)
    return results


@pytest.mark.parametrize("name", BLENDS)
@pytest.mark.parametrize(("channels", "dtype"), [(3, np.uint8), (4, np.uint16), (1, np.uint8)])
def test_only_masked_pixels_change(
    base: Base, context: Contexts, name: str, channels: int, dtype: type
) -> None:
    background = picture(channels=channels, dtype=dtype)
    mask = box(background.size)
    [result] = made(base, context, background, mask, plan_rois(mask), [5], FAST, BLENDS[name])
    before, after = background.pixels, result.picture.pixels
    assert after.dtype == dtype and after.shape == before.shape
    assert (after[~mask] == before[~mask]).all()
    assert (after[mask] != before[mask]).mean() > 0.2


def test_a_seed_means_one_picture_alone_or_in_a_batch(base: Base, context: Contexts) -> None:
    background = picture()
    mask = box(background.size)
    both = made(base, context, background, mask, plan_rois(mask), [5, 6], FAST, BLENDS["paste"])
    [alone] = made(base, context, background, mask, plan_rois(mask), [6], FAST, BLENDS["paste"])
    assert np.abs(both[1].picture.pixels.astype(int) - alone.picture.pixels).max() <= 1  # batching rounds
    assert (both[0].picture.pixels != both[1].picture.pixels).any()
    assert [r.record["seed"] for r in both] == [5, 6]


def test_without_start_noise_all_seeds_are_alike(base: Base, context: Contexts) -> None:
    background, mask = picture(), box((150, 190))

    def apart(noise: float) -> float:
        sampling = replace(FAST, noise=noise)
        a, b = made(base, context, background, mask, plan_rois(mask), [5, 6], sampling, BLENDS["paste"])
        return float(np.abs(a.picture.pixels.astype(int) - b.picture.pixels).mean())

    assert apart(0.0) == 0 < apart(1.0)


def test_far_components_are_filled_each_in_its_own_square(base: Base, context: Contexts) -> None:
    background = picture(200, 600)
    mask = box(background.size) | box(background.size, 500, 100, 540, 150)
    rois = plan_rois(mask)
    [result] = made(base, context, background, mask, rois, [1], FAST, BLENDS["membrane"])
    assert len(result.record["regions"]) == len(rois) == 2
    for part in (slice(40, 80), slice(500, 540)):
        assert (result.picture.pixels[:, part] != background.pixels[:, part]).any()
    assert (result.picture.pixels[~mask] == background.pixels[~mask]).all()


def test_a_picture_smaller_than_its_square_is_reflected(base: Base, context: Contexts) -> None:
    background = picture(40, 90)
    mask = box(background.size, 10, 5, 80, 30)
    rois = plan_rois(mask, factor=2.0, min_side=128)
    assert rois[0].size[0] > background.size[0]
    [result] = made(base, context, background, mask, rois, [1], FAST, BLENDS["membrane"])
    assert (
        result.picture.size == (40, 90) and (result.picture.pixels[~mask] == background.pixels[~mask]).all()
    )


def test_the_record_says_where_and_how_well(base: Base, context: Contexts) -> None:
    background = picture()
    mask = box(background.size)
    [result] = made(base, context, background, mask, [Roi(10, 0, 110, 100)], [9], FAST, BLENDS["membrane"])
    [region] = result.record["regions"]
    assert region["roi"] == [10, 0, 110, 100] and result.record["seconds"] > 0
    assert all(region[key] >= 0 for key in ("seam", "seam_before", "ring_offset", "ring_offset_before"))


def test_a_mask_covers_every_model_pixel_it_touches() -> None:
    mask = np.zeros((400, 400), bool)
    mask[100, 100] = True
    assert to_model_mask(mask, 64).sum() == 1
    assert to_model_mask(box((32, 32), 0, 0, 16, 32), 64).mean() == 0.5


@pytest.mark.parametrize("name", BLENDS)
def test_what_is_generated_is_pasted_in_its_own_mask_only(base: Base, context: Contexts, name: str) -> None:
    background = picture()
    hole, mask = box(background.size), box(background.size, 50, 40, 70, 80)
    task = Task(mask, hole, plan_rois(hole), [5])
    [[part]] = insert(base, background, [task], [context], FAST, BLENDS[name])
    after, before = part.picture.pixels, background.pixels
    assert (after[~mask] == before[~mask]).all() and (after[mask] != before[mask]).mean() > 0.2
    if name == "paste":
        [whole] = made(base, context, background, hole, plan_rois(hole), [5], FAST, BLENDS[name])
        assert (after[mask] == whole.picture.pixels[mask]).all(), "the model saw the same hole"


def test_a_large_region_is_worked_on_smaller_and_pasted_at_its_own_size(
    base: Base, context: Contexts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Close to what it is at full size, and sharp at the mask's edge."""
    smooth = cv2.resize(picture(6, 8).pixels, (400, 300), interpolation=cv2.INTER_CUBIC)
    background, mask = Picture(smooth), box((300, 400), 60, 40, 301, 253)
    arguments = base, context, background, mask, plan_rois(mask), [5], FAST, BLENDS["paste"]
    [full] = made(*arguments)
    monkeypatch.setattr("ldm.insertion.square.MOST", 100)
    [small] = made(*arguments)
    changed = (small.picture.pixels != smooth).any(axis=2)
    assert not changed[~mask].any() and changed[mask].mean() > 0.9
    assert np.abs(small.picture.pixels.astype(int) - full.picture.pixels).mean() < 6


@pytest.fixture(scope="module")
def shown() -> tuple[Base, Contexts]:
    """A base of collages and an object for it: a bright bar, twice as high as wide."""
    torch.manual_seed(0)
    base = Base(replace(TINY, collage=True)).eval().requires_grad_(False)
    reference = torch.zeros(1, 4, 56, 56)
    reference[:, :3, :, 14:42], reference[:, 3, :, 14:42] = 0.9, 1
    return base, base.contexts(base.context(reference), references=reference)


def test_a_base_of_collages_may_begin_from_the_scene_with_the_reference_in_it(
    shown: tuple[Base, Contexts], monkeypatch: pytest.MonkeyPatch
) -> None:
    base, contexts = shown
    begun: list[Any] = []

    def spy(*args: Any, begin: Any, **kwargs: Any) -> torch.Tensor:
        begun.append(begin)
        return sample(*args, begin=begin, **kwargs)

    monkeypatch.setattr("ldm.insertion.inpaint.sample", spy)
    background, mask = Picture(np.full((128, 128, 3), 60, np.uint8)), box((128, 128), 20, 20, 108, 108)
    for begin in (1.0, 0.5):
        sampling = replace(FAST, begin=begin)
        made(base, contexts, background, mask, [Roi(0, 0, 128, 128)], [5, 6], sampling, Blend())
    assert contexts.collage is not None
    laid = contexts.collage.over(torch.from_numpy(mask)[None, None].float())
    ground = torch.full((1, 3, 128, 128), 60 / 127.5 - 1)
    expected = base.encode(resize(laid_over(laid, ground), base.architecture.image_size))
    assert begun[0] is None and begun[1][1] == 0.5
    assert torch.allclose(begun[1][0], expected.expand(2, -1, -1, -1), atol=1e-4)


def test_without_a_collage_there_is_nothing_to_begin_from(base: Base, context: Contexts) -> None:
    background, mask = picture(), box((150, 190))
    late, early = (
        made(base, context, background, mask, plan_rois(mask), [5], replace(FAST, begin=begin), Blend())
        for begin in (0.5, 1.0)
    )
    assert np.array_equal(late[0].picture.pixels, early[0].picture.pixels)


def test_with_its_own_detail_the_reference_stays_sharp_and_takes_on_the_models_light(
    shown: tuple[Base, Contexts], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model that only darkens what it began from: scene and reference are darker, not blurred."""
    base, contexts = shown
    background, mask = picture(128, 128), box((128, 128), 20, 20, 108, 108)
    assert contexts.collage is not None
    laid = contexts.collage.over(torch.from_numpy(mask)[None, None].float())
    begun = laid_over(laid, to_image(background.pixels)[None])[0]
    decoded: list[torch.Tensor] = []

    def darker(latents: torch.Tensor) -> torch.Tensor:
        decoded.append(latents)
        level = -0.1 if len(decoded) == 1 else 0.0
        return torch.full((len(latents), 3, *[base.architecture.image_size] * 2), level)

    monkeypatch.setattr(base, "decode", darker)
    sampling = replace(FAST, begin=0.5, own_detail=12.0)
    [result] = made(base, contexts, background, mask, [Roi(0, 0, 128, 128)], [5], sampling, Blend())
    found = to_image(result.picture.pixels)
    assert torch.allclose(found[:, mask], (begun - 0.1).clamp(-1, 1)[:, mask], atol=0.02)
    assert torch.allclose(
        decoded[1], base.encode(resize(begun[None], base.architecture.image_size)), atol=1e-4
    )


def test_a_shadow_darkens_the_ground_at_the_foot(shown: tuple[Base, Contexts]) -> None:
    base, contexts = shown
    background, mask = Picture(np.full((128, 128, 3), 200, np.uint8)), box((128, 128), 20, 20, 108, 108)
    first, second = (
        made(base, contexts, background, mask, [Roi(0, 0, 128, 128)], [5], sampling, Blend())[0]
        for sampling in (replace(FAST, begin=0.3, own_detail=12.0, shadow=shadow) for shadow in (0.0, 0.6))
    )
    darker = first.picture.pixels.astype(int) - second.picture.pixels
    foot, above = darker[103:106, 55:73].mean(), np.abs(darker[30:70]).mean()
    assert foot > 30 and foot > 4 * above


@pytest.mark.parametrize("most", [2048, 40])
def test_a_halo_leaves_the_scene_around_the_object_as_it_is(
    shown: tuple[Base, Contexts], monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    base, contexts = shown
    monkeypatch.setattr("ldm.insertion.square.MOST", most)
    background, mask = picture(128, 128), box((128, 128), 20, 20, 108, 108)
    seam = Blend(feather=8, halo=0.1)
    [result] = made(base, contexts, background, mask, [Roi(0, 0, 128, 128)], [5], FAST, seam)
    changed = (result.picture.pixels != background.pixels).any(2)
    # 74 px high at the mask's foot, half as wide, and a tenth of its height around it
    rows, columns = changed.any(1).nonzero()[0], changed.any(0).nonzero()[0]
    assert abs(rows[0] - (101 - 74 - 7)) <= 5 and abs(columns[0] - (64 - 18 - 7)) <= 5
    assert abs(rows[-1] - 107) <= 4 and abs(columns[-1] - (64 + 18 + 7)) <= 5
    assert changed[40:95, 52:76].all()


def test_the_seam_is_that_of_what_is_pasted(shown: tuple[Base, Contexts]) -> None:
    """A halo leaves the mask's own edge as it was: it says nothing."""
    base, contexts = shown
    background, mask = Picture(np.full((128, 128, 3), 60, np.uint8)), box((128, 128), 8, 8, 120, 120)
    wide, narrow = (
        made(base, contexts, background, mask, [Roi(0, 0, 128, 128)], [5], FAST, Blend(halo=halo))[0]
        for halo in (0.0, 0.01)
    )
    assert wide.record["regions"][0]["seam"] > 1.5
    assert narrow.record["regions"][0]["seam"] > 1.5


def test_objects_that_share_a_picture_have_a_shadow_each() -> None:
    references = torch.ones(2, 4, 20, 20)
    regions = torch.zeros(2, 100, 100)
    regions[0, 5:45, 5:45], regions[1, 55:95, 55:95] = 1, 1
    hole = regions.any(0).numpy()
    square = square_of(torch.ones(3, 100, 100), hole, Collage(references, regions), [], 0.5)
    assert square.layer is not None and square.shaded is not None
    dark = square.shaded[3] - square.layer[3]
    assert dark[42:45, 10:40].max() > 0.2 and dark[92:95, 60:90].max() > 0.2
    coarse = regions[:, ::10, ::10]
    edge = square_of(torch.ones(3, 100, 100), hole, Collage(references, coarse), [], 0.0).layer
    assert edge is not None and (edge[3] > 0).float().mean() > 0.15, "coarse regions are scaled"


@pytest.mark.parametrize("antialias", [False, True])
@pytest.mark.parametrize("strength", [0.0, 0.5])
def test_the_unet_sees_the_mask_as_its_architecture_says(
    base: Base, context: Contexts, monkeypatch: pytest.MonkeyPatch, antialias: bool, strength: float
) -> None:
    """In the first pass and in tiles: a hole of whole latents has fractional cells only if antialiased."""
    monkeypatch.setattr(base, "architecture", replace(TINY, mask_antialias=antialias))
    mask = np.zeros((256, 256), bool)
    mask[64:160, 80:176] = True
    seen: list[torch.Tensor] = []
    hook = base.unet.register_forward_pre_hook(lambda unet, inputs: seen.append(inputs[0][:, 8]))
    sampling = replace(FAST, refine=strength)
    task = Task(mask, mask, [Roi(0, 0, 256, 256)], [1])
    insert(base, picture(256, 256), [task], [context], sampling, BLENDS["paste"])
    hook.remove()
    assert len(seen) > (2 if strength else 1)
    assert all((((x > 0) & (x < 1)).any()) == antialias for x in seen)
