"""Contact sheets show every picture, whole and in its place."""

import numpy as np

from ldm.batch.contact_sheet import (
    CAPTION,
    MARGIN,
    TILE,
    close_up,
    contact_sheet,
    hatched,
    rgb8,
    sheet_row,
    thumbnail,
)
from ldm.data.picture import Picture
from ldm.insertion.roi import Roi


def flat(colour: tuple[int, int, int], size: tuple[int, int]) -> np.ndarray:
    return np.full((*size, 3), colour, np.uint8)


def test_every_tile_is_where_its_row_and_column_are() -> None:
    rows = [[flat((255, 0, 0), (10, 20)), flat((0, 255, 0), (50, 50))], [flat((0, 0, 255), (30, 10))]]
    sheet = contact_sheet(rows, ["a", "b"], side=40)
    step = 40 + MARGIN
    for (y, x), colour in {(0, 0): (255, 0, 0), (0, 1): (0, 255, 0), (1, 0): (0, 0, 255)}.items():
        centre = sheet[CAPTION + MARGIN + y * step + 20, MARGIN + x * step + 20]
        assert tuple(centre) == colour
    assert tuple(sheet[-MARGIN - 20, -MARGIN - 20]) == (255, 255, 255)  # nothing there


def test_thumbnails_keep_the_aspect() -> None:
    assert thumbnail(flat((1, 2, 3), (100, 50)), 20).shape == (20, 10, 3)
    assert thumbnail(flat((1, 2, 3), (1, 500)), 20).shape == (1, 20, 3)


def test_pictures_of_any_depth_show_alike() -> None:
    shallow = np.random.default_rng(0).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    deep = shallow.astype(np.uint16) * 257
    assert (rgb8(Picture(deep)) == shallow).all() and (rgb8(Picture(shallow)) == shallow).all()
    assert rgb8(Picture(shallow[..., :1])).shape == (4, 5, 3)
    assert (close_up(Picture(deep), Roi(1, 1, 4, 3)) == shallow[1:3, 1:4]).all()


def test_the_hole_is_grey() -> None:
    mask = np.zeros((4, 4), bool)
    mask[1:3] = True
    shown = hatched(flat((9, 9, 9), (4, 4)), mask)
    assert (shown[mask] == 128).all() and (shown[~mask] == 9).all()


def test_a_row_has_thumbnails_only() -> None:
    large, mask = Picture(np.zeros((700, 900, 3), np.uint8)), np.zeros((700, 900), bool)
    row = sheet_row(large, mask, Roi(0, 0, 600, 600), [large, large])
    assert len(row) == 5 and all(max(tile.shape) <= TILE for tile in row)
