"""Inserting with a base that is shown the object's cut-out: where it starts, what it keeps and pastes."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from ldm.compositing.composite import composite_layers, composite_over, flattened
from ldm.compositing.composite_fill import (
    CompositeObject,
    CompositeSettings,
    make_composite_fill,
)
from ldm.data.image import resize, to_image
from ldm.data.picture import Picture
from ldm.insertion.blend import Blend
from ldm.insertion.inpaint import Sampling
from ldm.insertion.insert import InsertOptions, insert
from ldm.insertion.region import InsertableObject, InsertRequest, ObjectFill, Result, region_of
from ldm.insertion.roi import Roi
from ldm.models.base import Base
from ldm.models.sampler import Condition
from tests.fixtures.tiny import TINY

FAST = Sampling("ddim", 2, 2.0)
WHOLE = Roi(0, 0, 128, 128)


@pytest.fixture(scope="module")
def base() -> Base:
    torch.manual_seed(0)
    return Base(TINY).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def cut_outs() -> torch.Tensor:
    """A bright bar, twice as high as wide, [1,4,56,56]."""
    bar = torch.zeros(1, 4, 56, 56)
    bar[:, :3, :, 14:42], bar[:, 3, :, 14:42] = 0.9, 1
    return bar


def even(level: int) -> Picture:
    return Picture(np.full((128, 128, 3), level, np.uint8))


def noisy() -> Picture:
    return Picture(np.random.default_rng(3).integers(0, 256, (128, 128, 3), dtype=np.uint8))


def box(first: int = 20, last: int = 108) -> np.ndarray:
    mask = np.zeros((128, 128), bool)
    mask[first:last, first:last] = True
    return mask


def made(
    base: Base,
    cut_outs: torch.Tensor,
    background: Picture,
    mask: np.ndarray,
    seam: Blend,
    fill: ObjectFill,
    seeds: tuple[int, ...] = (5,),
) -> list[Result]:
    """One task whose region is all of the background."""
    one = InsertableObject(base.contexts(base.context(cut_outs)), fill)
    [results] = insert(
        base, background, [InsertRequest(mask, [WHOLE], seeds)], [one], InsertOptions(FAST, seam)
    )
    return results


def in_hole(cut_outs: torch.Tensor, mask: np.ndarray) -> torch.Tensor:
    return flattened(composite_layers(cut_outs, None, torch.from_numpy(mask)[None, None].float()))


def test_without_a_picture_of_the_object_the_region_is_grey(base: Base, cut_outs: torch.Tensor) -> None:
    fill = make_composite_fill(CompositeSettings(detail_transfer=12.0, keep_scene=True))(None)
    [ours], [plain] = (made(base, cut_outs, noisy(), box(), Blend(), x) for x in (fill, ObjectFill()))
    assert np.array_equal(ours.picture.pixels, plain.picture.pixels)


def test_detail_transfer_keeps_the_cut_out_sharp_and_takes_on_the_models_light(
    base: Base, cut_outs: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model that only darkens what it started from: scene and object are darker, not blurred."""
    background, mask = noisy(), box()
    start = composite_over(in_hole(cut_outs, mask), to_image(background.pixels)[None])[0]
    decoded: list[torch.Tensor] = []

    def darker(latents: torch.Tensor) -> torch.Tensor:
        decoded.append(latents)
        level = -0.1 if len(decoded) == 1 else 0.0
        return torch.full((len(latents), 3, *[base.architecture.image_size] * 2), level)

    monkeypatch.setattr(base, "decode", darker)
    fill = CompositeObject(cut_outs, CompositeSettings(detail_transfer=12.0, keep_scene=True))
    [result] = made(base, cut_outs, background, mask, Blend(), fill)
    found = to_image(result.picture.pixels)
    assert torch.allclose(found[:, mask], (start - 0.1).clamp(-1, 1)[:, mask], atol=0.02)
    assert torch.allclose(
        decoded[1], base.encode(resize(start[None], base.architecture.image_size)), atol=1e-4
    )


@pytest.mark.parametrize("source", ["object", "base"])
def test_what_is_learnt_counts_on_the_object_only(
    base: Base, cut_outs: torch.Tensor, monkeypatch: pytest.MonkeyPatch, source: str
) -> None:
    """With the base's own unconditional prediction, which draws what is around the object."""
    seen: list[Condition] = []

    def recorded(model: Any, condition: Condition, x_T: torch.Tensor, **_: Any) -> torch.Tensor:
        seen.append(condition)
        return x_T

    monkeypatch.setattr("ldm.insertion.inpaint.sample", recorded)
    fill = CompositeObject(cut_outs, CompositeSettings(keep_scene=True))
    sampling = replace(FAST, guidance_from=source)
    one = InsertableObject(base.contexts(base.context(cut_outs)), fill)
    insert(base, noisy(), [InsertRequest(box(), [WHOLE], (5, 6))], [one], InsertOptions(sampling, Blend()))
    own = seen[0].own
    if source == "object":
        assert own is None
        return
    assert own is not None and own.shape == seen[0].mask.shape and len(own) == 2
    alpha = in_hole(cut_outs, box())[:, 3:]
    assert own[0, 0, 8, 8] == alpha[0, 0, 68, 68] == 1 and own[0, 0, 8, 3] == alpha[0, 0, 68, 26] == 0


def test_objects_with_and_without_a_picture_are_inserted_together_as_alone(
    base: Base, cut_outs: torch.Tensor
) -> None:
    """Two squares side by side, each with its object: as one batch, and one after the other."""
    masks, rois = [np.zeros((128, 256), bool) for _ in range(2)], [Roi(x, 0, x + 128, 128) for x in (0, 128)]
    for mask, roi in zip(masks, rois, strict=True):
        mask[:, roi.x0 : roi.x1] = box()
    requests = [InsertRequest(mask, [roi], (5,)) for mask, roi in zip(masks, rois, strict=True)]
    contexts = base.contexts(base.context(cut_outs))
    shown = CompositeObject(cut_outs, CompositeSettings(keep_scene=True))
    objects = [InsertableObject(contexts, fill) for fill in (shown, ObjectFill())]
    background = Picture(np.random.default_rng(3).integers(0, 256, (128, 256, 3), dtype=np.uint8))
    options = InsertOptions(replace(FAST, guidance_from="base"), Blend())
    together = insert(base, background, requests, objects, options)
    for request, one, [result] in zip(requests, objects, together, strict=True):
        [[alone]] = insert(base, background, [request], [one], options)
        far = np.abs(result.picture.pixels.astype(int) - alone.picture.pixels)
        assert far.max() <= 1


def test_what_stands_inside_the_mask_is_replaced_unless_the_scene_is_kept(
    base: Base, cut_outs: torch.Tensor
) -> None:
    """A black block inside the mask, beside the object, on even ground."""
    background, mask = even(160), box()
    columns = np.flatnonzero(mask.any(0))
    block = (slice(40, 100), slice(int(columns[0]) + 2, int(columns[0]) + 10))
    background.pixels[block] = 0
    kept, replaced = (
        made(base, cut_outs, background, mask, Blend(), CompositeObject(cut_outs, settings))[0].picture
        for settings in (CompositeSettings(detail_transfer=16.0, keep_scene=keep) for keep in (True, False))
    )
    assert kept.pixels[block].mean() < 40
    assert replaced.pixels[block].mean() > 100
    assert (replaced.pixels[~mask] == background.pixels[~mask]).all()


def test_objects_that_share_a_region_stand_each_in_its_own_part() -> None:
    cut_outs = torch.ones(2, 4, 20, 20)
    regions = torch.zeros(2, 100, 100)
    regions[0, 5:45, 5:45], regions[1, 55:95, 55:95] = 1, 1
    region = region_of(torch.ones(3, 100, 100), regions.any(0).numpy(), [])
    for masks in (regions, regions[:, ::10, ::10]):  # coarse ones are scaled
        alpha = CompositeObject(cut_outs, regions=masks)(region).layer[3]
        assert alpha[15:35, 15:35].min() > 0.99 and alpha[65:85, 65:85].min() > 0.99
        assert alpha[:, 48:52].max() == 0 and alpha[5:45, 55:95].max() == 0
