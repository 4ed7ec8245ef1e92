"""An object is cut out of its background; where GrabCut fails, the whole box is kept."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ldm.compositing import cut_out as module
from ldm.compositing.cut_out import CutOut, cut_out, cut_out_of, cut_out_picture, solid, tidied
from ldm.data.insertset import Sample

GROUND, COLOUR = (40, 150, 60), (220, 40, 30)


def disc(height: int, width: int, radius: int, noise: float = 12.0) -> tuple[np.ndarray, np.ndarray]:
    """A noisy disc in the middle of a noisy ground, and where it is."""
    y, x = np.mgrid[:height, :width]
    inside = (y - height / 2 + 0.5) ** 2 + (x - width / 2 + 0.5) ** 2 <= radius**2
    pixels = np.where(inside[..., None], COLOUR, GROUND) + np.random.default_rng(0).normal(
        0, noise, (height, width, 3)
    )
    return pixels.clip(0, 255).astype(np.uint8), inside


def close(colours: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    return (np.abs(colours.astype(int) - colour) < 60).all(2)


@pytest.mark.parametrize("factor", [1, 4, 20])
def test_a_disc_loses_its_ground_at_any_size(factor: int) -> None:
    pixels, inside = disc(64 * factor, 80 * factor, 20 * factor)
    cut = cut_out(pixels, (18 * factor, 10 * factor, 62 * factor, 54 * factor))
    x0, y0, x1, y1 = cut.box
    assert np.abs(np.array(cut.box) / factor - (20, 12, 60, 52)).max() <= 1.5
    assert cut.colours.shape[:2] == cut.alpha.shape and max(cut.alpha.shape) <= module.SIDE
    true = np.array(Image.fromarray(inside[y0:y1, x0:x1]).resize(cut.alpha.shape[::-1]))
    assert ((cut.alpha > 0.5) & true).sum() / ((cut.alpha > 0.5) | true).sum() > 0.93
    ground = cut.alpha[~close(cut.colours, COLOUR)].sum()
    assert ground < 0.01 * cut.alpha.sum(), "its edge shows none"
    assert cut.alpha.min() == 0 and cut.alpha.max() == 1


def test_the_same_picture_gives_the_same_cut_out() -> None:
    pixels, _ = disc(64, 80, 20)
    first, again = (cut_out(pixels, (18, 10, 62, 54)) for _ in range(2))
    assert first.box == again.box and np.array_equal(first.colours, again.colours)
    assert np.array_equal(first.alpha, again.alpha)


def test_if_grabcut_fails_the_whole_box_is_kept() -> None:
    even = np.full((40, 50, 3), 200, np.uint8)
    for pixels, box in ((even, (0, 0, 50, 40)), (even[:1, :1], (0, 0, 1, 1)), (even, (3, 4, 4, 5))):
        cut = cut_out(pixels, box)
        assert cut.box == box and (cut.colours == 200).all() and (cut.alpha == 1).all()


def test_what_covers_too_little_is_not_the_object() -> None:
    pixels, _ = disc(64, 80, 20)
    assert cut_out(pixels, (18, 10, 62, 54), min_share=0.9).box == (18, 10, 62, 54)


def test_a_small_object_of_a_whole_picture_is_found(tmp_path: Path) -> None:
    Image.fromarray(disc(90, 90, 15)[0]).save(tmp_path / "disc.png")
    assert abs(max(cut_out_picture(tmp_path / "disc.png").alpha.shape) - 30) <= 2


def test_a_picture_in_which_nothing_is_found_is_named(tmp_path: Path) -> None:
    Image.new("RGB", (90, 60), (200, 210, 220)).save(tmp_path / "even.png")
    with pytest.warns(UserWarning, match=r"even\.png: no object stands out.*even_mask\.png"):
        found = cut_out_picture(tmp_path / "even.png", lambda pixels, box: np.zeros(pixels.shape[:2]))
    assert (found.alpha == 1).all()


def test_a_transparent_picture_is_named(tmp_path: Path) -> None:
    Image.new("RGBA", (90, 60), (200, 210, 220, 0)).save(tmp_path / "clear.png")
    with pytest.raises(ValueError, match=r"clear\.png: the silhouette is empty"):
        cut_out_picture(tmp_path / "clear.png")


def test_a_silhouette_that_is_empty_in_its_box_is_named(picture: Path) -> None:
    bar(picture.parent).save(picture.with_name("m.png"))
    sample = Sample(picture, ((30, 0, 40, 40),), picture.with_name("m.png"))
    with pytest.raises(ValueError, match=r"m\.png: the silhouette is empty inside the box 30 0 40 40"):
        cut_out_of(sample, sample.boxes[0], np.array(Image.open(picture)))


def test_an_inverted_silhouette_is_named() -> None:
    pixels, _ = disc(64, 80, 20)
    silhouette = np.full((64, 80), 255, np.uint8)
    silhouette[12:52, 20:60] = 0
    with pytest.raises(
        ValueError, match=r"m\.png: inverted, most of its white is outside of the box 18 10 62"
    ):
        cut_out(pixels, (18, 10, 62, 54), silhouette, name="m.png")
    assert cut_out(pixels, (18, 10, 62, 54), 255 - silhouette).box == (20, 12, 60, 52)


def test_a_few_transparent_pixels_are_no_silhouette(picture: Path) -> None:
    before, opened = cut_out_picture(picture), Image.open(picture)
    alpha = Image.new("L", (40, 40), 255)
    alpha.putpixel((0, 0), 0)
    opened.putalpha(alpha)
    opened.save(picture)
    assert cut_out_picture(picture).box == before.box


def test_small_holes_are_filled_and_specks_dropped_but_a_handle_stays_open() -> None:
    found = np.zeros((100, 100), bool)
    found[20:80, 20:80] = True
    found[30:34, 30:34] = found[40:60, 40:60] = False
    found[5:7, 5:7] = found[90:98, 40:60] = True
    expected = found.copy()
    expected[30:34, 30:34], expected[5:7, 5:7] = True, False
    assert np.array_equal(tidied(found), expected)
    assert not tidied(np.zeros((4, 4), bool)).any() and tidied(np.ones((4, 4), bool)).all()


def test_an_edge_has_the_colour_inside_it_and_thin_parts_keep_theirs() -> None:
    colours = np.full((30, 40, 3), 10, np.uint8)
    colours[:, 10:30], colours[:, 9], colours[:, 38] = 200, 100, 150
    alpha = np.zeros((30, 40), np.float32)
    alpha[:, 10:30], alpha[:, 9], alpha[:, 38] = 1, 0.5, 1
    cleaned = solid(colours, alpha)
    assert (cleaned[:, 9:30] == 200).all() and (cleaned[:, 38] == 150).all()
    assert np.array_equal(solid(colours, alpha * 0), colours)


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    """A red bar that fills its picture's height: GrabCut would take what touches the rim for ground."""
    pixels = np.full((40, 40, 3), GROUND, np.uint8)
    pixels[:, 10:25] = COLOUR
    Image.fromarray(pixels).save(tmp_path / "bar.png")
    return tmp_path / "bar.png"


def bar(tmp_path: Path, size: tuple[int, int] = (40, 40)) -> Image.Image:
    mask = Image.new("L", size)
    mask.paste(255, (10, 0, 25, 40))
    return mask


def is_bar(cut: CutOut) -> bool:
    return cut.alpha.shape == (40, 15) and bool((cut.alpha == 1).all() and (cut.colours == COLOUR).all())


def test_a_picture_is_cut_out_by_its_own_transparency_or_the_mask_beside_it(picture: Path) -> None:
    assert not is_bar(cut_out_picture(picture))
    bar(picture.parent).save(picture.with_name("bar_mask.png"))
    assert is_bar(cut_out_picture(picture))
    bar(picture.parent, (40, 44)).save(picture.with_name("bar_mask.png"))
    with pytest.raises(ValueError, match=r"bar_mask\.png: 40 x 44 px, its picture is 40 x 40"):
        cut_out_picture(picture)
    picture.with_name("bar_mask.png").unlink()
    opened = Image.open(picture)
    opened.putalpha(bar(picture.parent))
    opened.save(picture)
    assert is_bar(cut_out_picture(picture))
    sample = Sample(picture, ((0, 0, 40, 40),))
    assert is_bar(cut_out_of(sample, sample.boxes[0], np.array(opened.convert("RGB"))))


def test_specks_of_a_silhouette_do_not_size_the_object(picture: Path) -> None:
    """With or without them the cut-out is the same, and a line counts them."""
    mask = bar(picture.parent)
    mask.putpixel((0, 0), 255)
    mask.putpixel((39, 39), 255)
    mask.save(picture.with_name("bar_mask.png"))
    with pytest.warns(UserWarning, match=r"bar_mask\.png: 2 specks are not counted"):
        assert is_bar(cut_out_picture(picture))
    sample = Sample(picture, ((0, 0, 40, 40),), picture.with_name("bar_mask.png"))
    with pytest.warns(UserWarning, match=r"bar_mask\.png: 2 specks are not counted"):
        assert is_bar(cut_out_of(sample, sample.boxes[0], np.array(Image.open(picture).convert("RGB"))))


def test_the_border_of_a_whole_picture_is_background(tmp_path: Path) -> None:
    Image.fromarray(disc(60, 60, 26)[0]).save(tmp_path / "disc.png")
    shown = cut_out_picture(tmp_path / "disc.png")
    assert abs(shown.alpha.shape[0] - 52) <= 2 and shown.alpha[0, 0] == 0


@pytest.mark.parametrize(("shape", "seen"), [((30, 60), (10, 20)), ((60, 30), (20, 10)), ((1, 500), (1, 20))])
def test_a_square_keeps_the_aspect(shape: tuple[int, int], seen: tuple[int, int]) -> None:
    white = CutOut(np.full((*shape, 3), 255, np.uint8), np.full(shape, 0.5, np.float32), (0, 0, 1, 1))
    image = white.picture(20)
    filled = (image[3] > 0).numpy()
    assert image.shape == (4, 20, 20) and np.allclose(image, 0.5 * filled), "colours times alpha"
    assert (int(filled.any(1).sum()), int(filled.any(0).sum())) == seen
    rows = np.flatnonzero(filled.any(1))
    assert abs(rows[0] - (19 - rows[-1])) <= 1, "in the middle"
