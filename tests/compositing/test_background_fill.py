"""A background continued into a hole: known pixels stay, patterns go on, objects are not repeated."""

from __future__ import annotations

import numpy as np
import pytest

from ldm.compositing.background_fill import SEARCHED, fill_background

SIZE = 96


def square(size: int = SIZE) -> np.ndarray:
    hole = np.zeros((size, size), bool)
    hole[size // 3 : 2 * size // 3, size // 3 : 2 * size // 3] = True
    return hole


def stripes(size: int = SIZE, period: int = 8) -> np.ndarray:
    """Vertical stripes of 0.2 and 0.8, [size,size,3]."""
    row = np.where(np.arange(size) % period < period // 2, 0.2, 0.8)
    return np.broadcast_to(row[None, :, None], (size, size, 3)).astype(np.float32).copy()


def test_known_pixels_stay_and_a_pattern_goes_on() -> None:
    truth, hole = stripes(), square()
    shown = truth.copy()
    shown[hole] = 5  # what is in the hole is never looked at
    filled = fill_background(shown, hole)
    assert np.array_equal(filled[~hole], shown[~hole])
    assert np.abs(filled - truth)[hole].mean() < 0.06  # an even grey would be 0.3 away


def test_large_pictures_are_filled_at_their_own_sharpness() -> None:
    size = 2 * SEARCHED
    truth, hole = stripes(size, 16), square(size)
    filled = fill_background(np.where(hole[..., None], 0, truth), hole)
    assert np.abs(filled - truth)[hole].mean() < 0.06
    steps = np.abs(np.diff(filled[hole.any(1)][:, hole.any(0)], axis=1)).max(1)
    assert np.median(steps) > 0.4


def test_an_object_beside_the_hole_is_not_repeated() -> None:
    rng = np.random.default_rng(0)
    image = rng.normal(0.5, 0.02, (SIZE, SIZE, 3)).astype(np.float32)
    image[40:56, 8:24] = rng.uniform(0, 1, (16, 16, 3))
    hole = square()
    filled = fill_background(np.where(hole[..., None], 0, image), hole)
    assert filled[hole].std() < 0.05


def test_a_wall_ends_at_the_table_beside_the_hole() -> None:
    """A plain wall above a chequered table: in the hole each goes on at its own height."""
    image, size = np.full((SIZE, SIZE, 3), 0.4, np.float32), SIZE
    checks = np.add(*np.indices((size - 44, size)) // 8) % 2
    image[44:] = np.where(checks[..., None], (0.9, 0.9, 0.9), (0.8, 0.1, 0.1))
    hole = np.zeros((size, size), bool)
    hole[24:80, 28:68] = True
    filled = fill_background(np.where(hole[..., None], 0, image), hole)
    wall = np.abs(filled - 0.4).max(-1) < 0.1
    assert wall[24:40, 28:68].mean() > 0.9 and wall[50:80, 28:68].mean() < 0.1


@pytest.mark.parametrize("thick", [1, 3, 40])
def test_holes_at_the_border(thick: int) -> None:
    image, hole = np.full((50, 70, 3), 0.25, np.float32), np.zeros((50, 70), bool)
    hole[:thick] = hole[:, :thick] = True
    image[hole] = 1
    assert np.allclose(fill_background(image, hole), 0.25, atol=0.01)


def test_without_a_known_patch_or_pixel_it_is_even() -> None:
    image, hole = np.full((40, 40, 3), 0.75, np.float32), np.ones((40, 40), bool)
    assert np.allclose(fill_background(image, hole), 0.75)
    hole[0, :5] = False
    image[hole] = 0
    assert np.allclose(fill_background(image, hole), 0.75, atol=0.01)


def test_nothing_to_fill_and_the_same_result_again() -> None:
    image, hole = stripes(), square()
    assert np.array_equal(fill_background(image, np.zeros_like(hole)), image)
    assert np.array_equal(fill_background(image, hole), fill_background(image, hole))
