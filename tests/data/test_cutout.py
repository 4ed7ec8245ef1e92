"""An object and its ground are told apart, and where that fails nothing is lost."""

from __future__ import annotations

import numpy as np
import pytest

from ldm.data import cutout
from ldm.data.cutout import cut_out, cut_out_picture, squared

GROUND, COLOUR = (40, 150, 60), (220, 40, 30)


def disc(height: int, width: int, radius: int, noise: float = 12.0) -> tuple[np.ndarray, np.ndarray]:
    """A noisy disc in the middle of a noisy ground, and where it is."""
    y, x = np.mgrid[:height, :width]
    inside = (y - height / 2 + 0.5) ** 2 + (x - width / 2 + 0.5) ** 2 <= radius**2
    pixels = np.where(inside[..., None], COLOUR, GROUND) + np.random.default_rng(0).normal(
        0, noise, (height, width, 3)
    )
    return pixels.clip(0, 255).astype(np.uint8), inside


@pytest.mark.parametrize("factor", [1, 4, 20])
def test_a_disc_loses_its_ground_at_any_size(factor: int) -> None:
    pixels, inside = disc(64 * factor, 80 * factor, 20 * factor)
    cut = cut_out(pixels, (18 * factor, 10 * factor, 62 * factor, 54 * factor))
    x0, y0, x1, y1 = cut.box
    assert np.abs(np.array(cut.box) / factor - (20, 12, 60, 52)).max() <= 1.5
    assert cut.pixels.shape == (y1 - y0, x1 - x0, 3)
    shown = (cut.pixels != cutout.GREY).any(2)
    true = inside[y0:y1, x0:x1]
    assert (shown & true).sum() / (shown | true).sum() > 0.93
    sure = np.abs(cut.pixels.astype(int) - pixels[y0:y1, x0:x1])[true & shown]
    assert np.median(sure) == 0, "the object's own pixels are as they were"


def test_the_same_picture_gives_the_same_cut_out() -> None:
    pixels, _ = disc(64, 80, 20)
    first, again = (cut_out(pixels, (18, 10, 62, 54)) for _ in range(2))
    assert first.box == again.box and np.array_equal(first.pixels, again.pixels)


def test_where_nothing_can_be_told_apart_the_box_stays_as_it_is() -> None:
    even = np.full((40, 50, 3), 200, np.uint8)
    for pixels, box in ((even, (0, 0, 50, 40)), (even[:1, :1], (0, 0, 1, 1)), (even, (3, 4, 4, 5))):
        cut = cut_out(pixels, box)
        assert cut.box == box and (cut.pixels == 200).all()


def test_what_covers_too_little_is_not_the_object(monkeypatch: pytest.MonkeyPatch) -> None:
    pixels, _ = disc(64, 80, 20)
    monkeypatch.setattr(cutout, "LEAST", 0.9)
    assert cut_out(pixels, (18, 10, 62, 54)).box == (18, 10, 62, 54)


def test_a_picture_with_transparency_is_cut_out_by_it() -> None:
    """It is read over mid-grey; GrabCut would take the touching rim for ground."""
    pixels = np.full((40, 40, 3), cutout.GREY, np.uint8)
    pixels[:, 10:25] = COLOUR
    shown = cut_out_picture(pixels)
    assert shown.shape == (40, 15, 3) and (shown == COLOUR).all()
    assert cut_out(pixels, (5, 5, 30, 30)).box == (10, 5, 25, 30)


def test_a_whole_picture_shows_its_ground_at_its_rim() -> None:
    pixels, _ = disc(60, 60, 26)
    shown = cut_out_picture(pixels)
    assert abs(shown.shape[0] - 52) <= 2 and (shown[0, 0] == cutout.GREY).all()


@pytest.mark.parametrize(("shape", "seen"), [((30, 60), (10, 20)), ((60, 30), (20, 10)), ((1, 500), (1, 20))])
def test_a_square_keeps_the_aspect(shape: tuple[int, int], seen: tuple[int, int]) -> None:
    image = squared(np.full((*shape, 3), 255, np.uint8), 20)
    filled = (image > 0.99).all(0)
    assert image.shape == (3, 20, 20) and ((image == 0).all(0) | filled).all()
    assert (int(filled.any(1).sum()), int(filled.any(0).sum())) == seen
    rows = filled.any(1).nonzero().flatten()
    assert abs(int(rows[0]) - (19 - int(rows[-1]))) <= 1, "in the middle"
