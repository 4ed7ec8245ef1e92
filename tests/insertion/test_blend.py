"""Each part of blending does its work and keeps out of the rest; the seam's numbers notice a seam."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ldm.insertion.blend import (
    BLENDS,
    Blend,
    _solve,
    blend,
    blend_named,
    colour_offset,
    composite,
    continued,
    depth,
    feather,
    membrane,
    paper_blur,
    ring,
    seam_ratio,
)


def scene(side: int = 128, seed: int = 0) -> tuple[torch.Tensor, np.ndarray]:
    """A textured background [3,side,side] in [-1,1] and a round mask."""
    rng = torch.Generator().manual_seed(seed)
    coarse = torch.randn(1, 3, 8, 8, generator=rng) * 0.3
    image = torch.nn.functional.interpolate(coarse, size=(side, side), mode="bicubic")[0]
    image = (image + 0.02 * torch.randn(3, side, side, generator=rng)).clamp(-0.8, 0.8)
    y, x = np.mgrid[:side, :side] - side / 2
    return image, x * x + (1.5 * y) ** 2 < (side / 3.2) ** 2


@given(st.integers(0, 10**6), st.floats(0, 30), st.tuples(st.integers(1, 40), st.integers(1, 40)))
@settings(max_examples=100, deadline=None)
def test_feather_lives_inside_the_mask(seed, radius, size):
    mask = np.random.default_rng(seed).random(size) < 0.8
    alpha = feather(mask, radius)
    assert alpha.dtype == np.float32 and (alpha[~mask] == 0).all() and (alpha[mask] > 0).all()
    assert (alpha[depth(mask) >= radius][mask[depth(mask) >= radius]] == 1).all()
    assert alpha.max() <= 1


def test_feather_rises_with_depth():
    mask = np.zeros((1, 40), bool)
    mask[:, 5:] = True
    row = feather(mask, 10)[0]
    assert (np.diff(row[4:15]) > 0).all() and (row[14:] == 1).all()


@pytest.mark.parametrize("mode", sorted(BLENDS))
def test_nothing_to_correct_changes_little(mode):
    background, mask = scene()
    image, alpha = blend(background, background, mask, BLENDS[mode])
    out = composite(background, image, alpha)
    band = 0.05 if mode == "paper" else 1e-6
    assert (out - background).abs().mean() < band


@pytest.mark.parametrize("mode", sorted(BLENDS))
def test_composite_is_identical_outside(mode):
    background, mask = scene()
    image, alpha = blend(background, background.flip(1), mask, BLENDS[mode])
    outside = torch.from_numpy(~mask)
    assert torch.equal(composite(background, image, alpha)[:, outside], background[:, outside])


@pytest.mark.parametrize("side", [48, 128, 301, 512])
def test_membrane_removes_a_constant_offset(side):
    background, mask = scene(side)
    cast = torch.tensor([0.1, -0.05, 0.2]).view(3, 1, 1)
    fixed = membrane(background, background + cast, mask, reach=math.inf)
    assert (fixed - background)[:, torch.from_numpy(mask)].abs().max() < 2e-3


def test_membrane_follows_an_offset_that_varies():
    background, mask = scene(256)
    ramp = torch.linspace(-0.2, 0.2, 256).expand(3, 256, 256)  # harmonic itself
    fixed = membrane(background, background + ramp, mask, reach=math.inf)
    assert (fixed - background)[:, torch.from_numpy(mask)].abs().mean() < 0.02


def test_membrane_leaves_the_middle_alone_when_its_reach_is_short():
    background, mask = scene(256)
    generated = background + 0.2
    fixed = membrane(background, generated, mask, reach=6)
    edge, middle = torch.from_numpy(depth(mask) == 1), torch.from_numpy(depth(mask) > 45)
    assert (fixed - background)[:, edge].abs().max() < 0.06
    assert (fixed - generated)[:, middle].abs().max() < 1e-3


def test_membrane_ignores_an_object_that_crosses_the_edge():
    background, mask = scene(128)
    generated = background.clone()
    generated[:, 50:78, 60:] = 0.9  # an arm out of the mask
    kept = torch.from_numpy(mask).clone()
    kept[40:90, 50:] = False
    fixed = membrane(background, generated, mask, reach=20)
    assert (fixed - generated)[:, kept].abs().mean() < 0.02


def test_membrane_without_an_edge_is_the_identity():
    background, mask = scene(64)
    for whole in (mask | True, mask & False):
        assert torch.equal(membrane(background, background + 0.1, whole, 32), background + 0.1)


def test_membrane_is_the_same_on_a_coarser_grid():
    """From 1024 px on it is solved at a fraction of the resolution."""
    lifts = []
    for side in (500, 1500):
        background, mask = scene(side)
        fixed = membrane(background, background + 0.2, mask, reach=side / 12, smooth=side / 128)
        lifts.append(
            (fixed - background)[0][side // 2, :: side // 50].numpy() * mask[side // 2, :: side // 50]
        )
    assert lifts[0].max() > 0.1  # the middle keeps the object's colour
    assert np.abs(lifts[0] - lifts[1]).max() < 0.01


def test_membrane_works_at_a_border():
    background, _ = scene(100)
    mask = np.zeros((100, 100), bool)
    mask[60:, :50] = True
    fixed = membrane(background, background + 0.1, mask, reach=math.inf)
    assert (fixed - background)[:, torch.from_numpy(mask)].abs().max() < 2e-3


@pytest.mark.parametrize("damping", [0.0, 1 / 20**2])
def test_grids_agree_with_the_direct_solution(damping):
    _, mask = scene(260)
    y, x = np.mgrid[:260, :260] / 260
    values = np.stack([x + y, np.sin(5 * x)], -1).astype(np.float32)
    edge = ring(mask, 6)
    direct = _solve(values, mask, damping)
    error = np.abs(continued(values, mask, edge, damping) - direct)[mask]
    assert error.max() < 0.06 and error.mean() < 0.015
    if damping == 0:
        assert np.abs(direct[..., 0] - values[..., 0]).max() < 1e-4  # x + y is harmonic
    else:
        assert direct[..., 0][130, 130] < 0.5 * values[..., 0][130, 130]


def test_paper_blur_blurs_a_band_inside():
    background, mask = scene()
    blurred = paper_blur(background, mask, 7)
    changed = (blurred != background).any(0).numpy()
    assert not changed[~mask].any()
    assert changed[mask & (depth(mask) <= 3)].mean() > 0.9 and not changed[depth(mask) > 3].any()


def test_lengths_grow_with_the_region():
    widths = []
    for side in (128, 256):
        background, mask = scene(side)
        alpha = blend(background, background, mask, Blend(feather=32))[1]
        widths.append(depth(mask)[alpha < 1].max())
    assert widths[1] / widths[0] == pytest.approx(2, rel=0.3)


def test_seam_ratio_notices_a_seam():
    background, mask = scene()
    inside = torch.from_numpy(mask)
    assert seam_ratio(background, mask) == pytest.approx(1, abs=0.2)
    assert seam_ratio(background + 0.2 * inside, mask) > 3


def test_seam_is_smaller_after_blending():
    background, mask = scene()
    generated = background + torch.tensor([0.2, 0.1, -0.1]).view(3, 1, 1)
    ratio, offset = {}, {}
    for mode, options in {**BLENDS, "feather": Blend(feather=8)}.items():
        image, alpha = blend(background, generated, mask, options)
        ratio[mode] = seam_ratio(composite(background, image, alpha), mask)
        offset[mode] = colour_offset(background, image, mask)
    assert ratio["paste"] > ratio["paper"] > ratio["membrane"]
    assert ratio["paste"] > 1.5 * ratio["feather"] and ratio["feather"] > 1.2 * ratio["membrane"]
    assert ratio["membrane"] == pytest.approx(seam_ratio(background, mask), abs=0.1)
    assert offset["paste"] == pytest.approx(0.2 * 127.5, rel=1e-3)
    assert offset["membrane"] < 1.5


def test_lengths_of_a_treatment_can_be_changed_one_by_one():
    own = BLENDS["membrane"]
    assert blend_named("membrane") == own
    assert blend_named("membrane", reach=0) == replace(own, reach=0)
    assert blend_named("paste", feather=3, reach=math.inf) == Blend(feather=3, reach=math.inf)
