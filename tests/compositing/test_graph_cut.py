"""The cut is the exact optimum, and colours correct a network's doubtful opinion."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from ldm.compositing.graph_cut import minimum_cut, silhouette


@pytest.mark.parametrize("seed", range(5))
def test_no_other_silhouette_is_better(seed: int) -> None:
    rng = np.random.default_rng(seed)
    odds = rng.normal(0, 1, (3, 4)).round(2)
    index = np.arange(12).reshape(3, 4)
    one = np.concatenate([index[:, :-1].ravel(), index[:-1].ravel()])
    other = np.concatenate([index[:, 1:].ravel(), index[1:].ravel()])
    cost = rng.uniform(0, 1, len(one)).round(2)

    def worth(inside: np.ndarray) -> float:
        return float((odds.ravel() * inside).sum() - (cost * (inside[one] != inside[other])).sum())

    best = max(worth(np.array(each)) for each in product((False, True), repeat=12))
    assert worth(minimum_cut(odds, (one, other, cost)).ravel()) == pytest.approx(best)


def scene() -> tuple[np.ndarray, np.ndarray]:
    """A red disc on green noise, uint8 [96,96,3], and where it is."""
    y, x = np.mgrid[:96, :96]
    inside = (x - 48) ** 2 + (y - 48) ** 2 < 26**2
    pixels = np.where(inside[..., None], (200, 60, 40), (60, 130, 70))
    return (pixels + np.random.default_rng(0).normal(0, 12, pixels.shape)).clip(0, 255).astype(
        np.uint8
    ), inside


def test_a_part_that_the_network_misses_is_found_by_its_colour() -> None:
    pixels, inside = scene()
    odds = np.where(inside, 3.0, -3.0)
    odds[48:60, 48:75] = -1.5  # a quarter of the disc taken for ground
    found = silhouette(pixels, odds, (22, 22, 75, 75))
    assert (found & inside).sum() / (found | inside).sum() > 0.97


def test_nothing_far_outside_the_box_is_the_object() -> None:
    pixels, inside = scene()
    found = silhouette(pixels, np.where(inside, 3.0, -3.0), (22, 22, 48, 75))
    assert not found[:, 52:].any() and found[inside][:500].mean() > 0.3


def test_an_opinion_without_object_stays() -> None:
    pixels, _ = scene()
    assert not silhouette(pixels, np.full((96, 96), -2.0), (10, 10, 80, 80)).any()
