"""Pasting: only inside the mask; Poisson's equation meets the background at the edge."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ldm.data.picture import Picture
from ldm.evaluation.methods import paste_cut_out, paste_flat, paste_poisson

RED = (200, 40, 40)


@pytest.fixture()
def reference(tmp_path: Path) -> Path:
    """Red with a dark square in its middle."""
    pixels = np.full((30, 30, 3), RED, np.uint8)
    pixels[10:20, 10:20] = (100, 0, 0)
    Image.fromarray(pixels).save(tmp_path / "test.png")
    return tmp_path / "test.png"


def scene(rows: slice, columns: slice) -> tuple[Picture, np.ndarray]:
    mask = np.zeros((60, 80), bool)
    mask[rows, columns] = True
    return Picture(np.full((60, 80, 3), (90, 140, 90), np.uint8)), mask


@pytest.mark.parametrize("paste", [paste_flat, paste_poisson, paste_cut_out])
@pytest.mark.parametrize(
    ("rows", "columns"),
    [(slice(10, 50), slice(20, 60)), (slice(0, 40), slice(30, 80)), (slice(0, 60), slice(0, 80))],
)
def test_only_the_mask_changes(reference: Path, paste: object, rows: slice, columns: slice) -> None:
    background, mask = scene(rows, columns)
    pixels = paste(reference, background, mask).pixels  # type: ignore[operator]
    assert np.array_equal(pixels[~mask], background.pixels[~mask])
    assert (pixels[mask] != background.pixels[mask]).any()


def test_a_cut_out_leaves_its_ground_behind_and_stands_inside_the_mask(reference: Path) -> None:
    silhouette = np.zeros((30, 30), np.uint8)
    silhouette[10:20, 10:20] = 255
    Image.fromarray(silhouette).save(reference.with_name("test_mask.png"))
    background, mask = scene(slice(10, 50), slice(20, 60))
    shown = paste_cut_out(reference, background, mask).pixels
    assert (shown[25:40, 30:50] == (100, 0, 0)).all()
    changed = (shown != background.pixels).any(2)
    assert 0.6 < changed[mask].mean() < 0.8 and not changed[48:].any()


def test_flat_is_the_reference_and_poisson_meets_the_background(reference: Path) -> None:
    background, mask = scene(slice(10, 50), slice(20, 60))
    flat, poisson = (
        paste(reference, background, mask).pixels.astype(int) for paste in (paste_flat, paste_poisson)
    )
    edge, beside = (slice(11, 49), 21), (slice(11, 49), 18)
    assert (flat[edge] == RED).all()
    assert np.abs(poisson[edge] - background.pixels[beside]).max() <= 3
    # gradients are those of the reference: the square stays as much darker than what is around it
    step = poisson[30, 40] - poisson[30, 25]
    assert np.abs(step - (np.array((100, 0, 0)) - RED)).max() <= 25
