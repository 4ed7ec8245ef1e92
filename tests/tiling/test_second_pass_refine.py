"""The second pass: native resolution, nothing but the tiles changes, seeds mean what they say."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Generator, Tensor

from ldm.data.picture import Picture
from ldm.insertion.blend import BLENDS
from ldm.insertion.inpaint import Sampling
from ldm.insertion.insert import InsertOptions, insert
from ldm.insertion.region import InsertableObject, InsertRequest, ObjectFill, RegionFill, region_of
from ldm.insertion.roi import Roi
from ldm.models.base import Base
from ldm.models.cross_attention import Contexts
from ldm.tiling.second_pass import Tiled, TiledSecondPass, plan_tiles, second_pass
from tests.fixtures.small import small_base


@pytest.fixture(scope="module")
def base() -> Base:
    return small_base()


@pytest.fixture(scope="module")
def contexts(base: Base) -> Contexts:
    return base.contexts(torch.randn(1, 3, 16, generator=Generator().manual_seed(1)))


def images(side: int, count: int = 1) -> list[Tensor]:
    g = Generator().manual_seed(2)
    return [torch.rand(3, side, side, generator=g) * 2 - 1 for _ in range(count)]


def hole(side: int) -> np.ndarray:
    mask = np.zeros((side, side), bool)
    mask[side // 4 : side // 2, side // 4 : side // 2] = True
    return mask


def refined(base: Base, contexts: Contexts, side: int, seeds: list[int]) -> list[Tensor]:
    first = images(side, 2)[1]
    region = region_of(images(side)[0], hole(side), [Generator().manual_seed(seed) for seed in seeds])
    sampling = Sampling(steps=4, guidance_scale=2)
    return second_pass(
        base, contexts, region, RegionFill(region), [first] * len(seeds), sampling, strength=0.4
    )


@pytest.mark.parametrize("side", [64, 75, 160])
def test_the_result_has_the_regions_size_and_keeps_what_no_tile_covers(
    base: Base, contexts: Contexts, side: int
) -> None:
    [out] = refined(base, contexts, side, [3])
    first = images(side, 2)[1]
    assert out.shape == first.shape and out.isfinite().all()
    inside = torch.from_numpy(hole(side))
    assert not torch.allclose(out[:, inside], first[:, inside], atol=0.05)
    if side <= 4 * 32:  # larger ones go through a smaller copy
        assert torch.allclose(out[:, -8:, -8:], first[:, -8:, -8:], atol=1e-6)


def test_a_seed_means_one_result_alone_or_in_a_batch(base: Base, contexts: Contexts) -> None:
    _, second = refined(base, contexts, 64, [3, 4])
    [alone] = refined(base, contexts, 64, [4])
    assert torch.allclose(second, alone, atol=1e-4)


def test_no_colour_that_srgb_lacks_is_shown(
    base: Base, contexts: Contexts, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Tensor] = []

    class Bright(RegionFill):
        def shown(self, mask: Tensor) -> Tensor:
            return torch.full((1, 3, *mask.shape[-2:]), 3.0)

    def encode(self: Tiled, image: Tensor) -> Tensor:
        seen.append(image)
        return encoded(self, image)

    encoded = Tiled.encode
    monkeypatch.setattr(Tiled, "encode", encode)
    region = region_of(images(64)[0], hole(64), [Generator().manual_seed(3)])
    second_pass(base, contexts, region, Bright(region), images(64), Sampling(steps=2), strength=0.5)
    assert max(float(image.abs().max()) for image in seen) == 1


def test_one_tile_is_the_painter_itself(base: Base, contexts: Contexts) -> None:
    x = torch.randn(1, 9, 16, 16, generator=Generator().manual_seed(0))
    tiled = Tiled(base, plan_tiles(np.ones((16, 16), bool), 16))
    arguments = x[:, :4], torch.tensor(5), x[:, 4:8], x[:, 8:], contexts.conditional
    assert torch.allclose(tiled.eps(*arguments), base.eps(*arguments), atol=1e-5)


def test_insert_refines_large_regions_only(base: Base, contexts: Contexts) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (100, 100, 3), dtype=np.uint8)
    mask = np.zeros((100, 100), bool)
    mask[30:60, 40:60] = True

    def made(roi: Roi, strength: float) -> np.ndarray:
        second_pass = TiledSecondPass(strength) if strength else None
        options = InsertOptions(Sampling("ddim", 3, 2.0), BLENDS["paste"], second_pass=second_pass)
        one, request = InsertableObject(contexts, ObjectFill()), InsertRequest(mask, [roi], [1])
        [[result]] = insert(base, Picture(pixels), [request], [one], options)
        assert (result.picture.pixels[~mask] == pixels[~mask]).all()
        return result.picture.pixels

    large, small = Roi(20, 20, 84, 84), Roi(26, 22, 70, 66)
    assert (made(large, 0.5) != made(large, 0)).any()
    assert (made(small, 0.5) == made(small, 0)).all()
