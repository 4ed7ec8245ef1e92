"""Metrics against independent computations, and what must hold for any picture."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from einops import rearrange
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter

from ldm.evaluation.metrics import bootstrap, psnr, ssim
from ldm.insertion.crop_paste import difference_outside
from ldm.insertion.roi import Roi, box_of


def images(seed: int, size: tuple[int, int] = (40, 50)) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    a = torch.rand(3, *size, generator=generator) * 2 - 1
    return a, (a + 0.3 * torch.randn(3, *size, generator=generator)).clamp(-1, 1)


def blob(seed: int, size: tuple[int, int] = (40, 50)) -> np.ndarray:
    mask = np.random.default_rng(seed).random(size) < 0.3
    mask[:3, 7:9] = True  # reaches the border
    return mask


def patch(seed: int) -> np.ndarray:
    mask = np.zeros((40, 50), bool)
    mask[12 + seed : 20, 20:31] = True
    return mask


def test_psnr_is_that_of_8_bit_levels_inside_the_region() -> None:
    a, b = images(0)
    region = blob(0)
    levels = [rearrange((x.double() + 1) * 127.5, "c h w -> h w c").numpy()[region] for x in (a, b)]
    mse = ((levels[0] - levels[1]) ** 2).mean()
    assert psnr(a, b, region) == pytest.approx(20 * np.log10(255 / np.sqrt(mse)), abs=1e-4)
    assert psnr(a, a, region) == 100


@pytest.mark.parametrize("where", [blob, patch])
def test_ssim_is_the_mean_of_scipys_map_over_the_region(where: Callable[[int], np.ndarray]) -> None:
    a, b = images(1)
    region = where(1)
    maps = [ssim_map(x, y) for x, y in zip((a.double() + 1) / 2, (b.double() + 1) / 2, strict=True)]
    expected = np.mean([m[region] for m in maps])
    assert ssim(a, b, region) == pytest.approx(expected, abs=1e-5)
    assert abs(ssim(a, b, region) - np.mean(maps)) > 1e-4  # the region matters
    assert ssim(a, a, region) == pytest.approx(1)


def ssim_map(x: torch.Tensor, y: torch.Tensor) -> np.ndarray:
    """Wang et al. 2004 on one channel in [0,1], by scipy's Gaussian."""

    def smooth(values: np.ndarray) -> np.ndarray:
        return gaussian_filter(values, 1.5, mode="mirror", radius=5)

    a, b = x.numpy(), y.numpy()
    mean_a, mean_b = smooth(a), smooth(b)
    var_a, var_b = smooth(a * a) - mean_a**2, smooth(b * b) - mean_b**2
    covariance = smooth(a * b) - mean_a * mean_b
    c1, c2 = 0.01**2, 0.03**2
    return ((2 * mean_a * mean_b + c1) * (2 * covariance + c2)) / (
        (mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2)
    )


@given(st.integers(0, 1000))
@settings(max_examples=20, deadline=None)
def test_fidelity_does_not_see_what_is_far_outside_the_region(seed: int) -> None:
    a, b = images(seed)
    region = np.zeros((40, 50), bool)
    region[12:20, 15:30] = True
    changed = b.clone()
    changed[:, 30:] = 0.5  # further away than a window of SSIM reaches
    assert psnr(a, changed, region) == psnr(a, b, region)
    assert ssim(a, changed, region) == pytest.approx(ssim(a, b, region), abs=1e-6)
    changed[:, 15, 20] += 0.5
    assert psnr(a, changed, region) != psnr(a, b, region) and ssim(a, changed, region) != ssim(a, b, region)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_difference_outside_is_the_largest_and_only_outside(dtype: type) -> None:
    top = int(np.iinfo(dtype).max)
    before = np.zeros((6, 7, 3), dtype)
    mask = np.zeros((6, 7), bool)
    mask[2:4, 2:4] = True
    after = before.copy()
    after[mask] = top
    assert difference_outside(after, before, mask) == 0
    after[0, 0, 1], after[5, 6, 2] = 3, top
    assert difference_outside(after, before, mask) == top == difference_outside(before, after, mask)
    assert difference_outside(after, before, np.ones_like(mask)) == 0


def test_the_bootstrap_interval_is_that_of_the_normal_law_for_many_values() -> None:
    values = np.random.default_rng(0).normal(5, 2, 400)
    low, high = bootstrap(values.tolist())
    half = 1.96 * values.std(ddof=1) / np.sqrt(len(values))
    assert low == pytest.approx(values.mean() - half, abs=0.03)
    assert high == pytest.approx(values.mean() + half, abs=0.03)
    assert bootstrap(values.tolist()) == (low, high)  # the same every time
    assert bootstrap([3.0]) == (3, 3)


def test_the_box_is_the_smallest() -> None:
    mask = np.zeros((10, 12), bool)
    mask[3, 4] = mask[8, 2] = True
    assert box_of(mask) == Roi(2, 3, 5, 9)
