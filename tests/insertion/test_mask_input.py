"""However a region is marked, it is the same region; what does not fit is said."""

import json
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ldm.batch.work_item import Case, pair
from ldm.data.picture import Picture
from ldm.data.picture_write import write_picture
from ldm.insertion.mask_input import MaskOptions, read_insert_mask, read_polygons

SIZE = (20, 30)
BOX = (8, 5, 16, 12)
BACKGROUND = Path("background.png")


@pytest.fixture
def region() -> np.ndarray:
    mask = np.zeros(SIZE, bool)
    mask[5:12, 8:16] = True
    return mask


def picture(alpha: np.ndarray | None = None, dtype: type = np.uint8) -> Picture:
    top = np.iinfo(dtype).max
    pixels = np.random.default_rng(0).integers(0, top, (*SIZE, 3), dtype=dtype)
    return Picture(pixels if alpha is None else np.dstack([pixels, (alpha * top).astype(dtype)]))


def marked(
    mask: Path | None = None,
    box: tuple[float, ...] = (),
    of: Picture | None = None,
    **tools: bool | float | str,
) -> np.ndarray:
    return read_insert_mask(BACKGROUND, of or picture(), mask, box, MaskOptions(**tools))  # type: ignore[arg-type]


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_box_files_polygons_pictures_and_transparency_agree(tmp_path: Path, region: np.ndarray) -> None:
    corners = [[8, 5], [16, 5], [16, 12], [8, 12]]
    Image.fromarray(region).save(tmp_path / "m.png")
    Image.fromarray((np.dstack([~region] * 3 + [region]) * 255).astype(np.uint8)).save(tmp_path / "a.png")
    found = [
        marked(box=BOX),
        marked(write(tmp_path / "b.txt", "8 5 16 12")),
        marked(write(tmp_path / "one.json", json.dumps(corners))),
        marked(write(tmp_path / "list.json", json.dumps([corners]))),
        marked(write(tmp_path / "flat.json", json.dumps([[8, 5, 16, 5, 16, 12, 8, 12]]))),
        marked(tmp_path / "m.png"),
        marked(tmp_path / "a.png", channel="alpha"),
        marked(of=picture(~region), channel="background"),
        marked(of=picture(~region, np.uint16), channel="background"),
    ]
    assert all(np.array_equal(mask, region) for mask in found)


@pytest.mark.parametrize("grow", [-2, 3])
def test_the_tools_work_on_every_kind(tmp_path: Path, region: np.ndarray, grow: float) -> None:
    Image.fromarray(region).save(tmp_path / "m.png")
    kinds = [marked(box=BOX, grow=grow), marked(tmp_path / "m.png", grow=grow),
             marked(of=picture(~region), channel="background", grow=grow)]  # fmt: skip
    assert all(np.array_equal(mask, kinds[0]) for mask in kinds)
    assert (kinds[0].sum() > region.sum()) == (grow > 0) and kinds[0].any()


def test_half_transparency_counts_by_the_threshold() -> None:
    alpha = np.ones(SIZE)
    alpha[0, :4], alpha[1, :4] = 0, 0.4
    assert marked(of=picture(alpha), channel="background").sum() == 8
    assert marked(of=picture(alpha), channel="background", threshold=0.8).sum() == 4


def test_inverting_a_box_marks_the_rest_and_warns(region: np.ndarray) -> None:
    with pytest.warns(UserWarning, match="the box: 91% of the picture is masked"):
        assert np.array_equal(marked(box=BOX, invert=True), ~region)


@pytest.mark.parametrize("text", ["", "{}", "[]", "[[1, 2], 3]", '[[["a", 1]]]', "[[[1, 2, 3]]]"])
def test_bad_polygon_files_are_named(tmp_path: Path, text: str) -> None:
    with pytest.raises(ValueError, match=r"p\.json: (expected a list of polygons|not readable as JSON)"):
        read_polygons(write(tmp_path / "p.json", text))
    with pytest.raises(FileNotFoundError, match=r"none\.json"):
        read_polygons(tmp_path / "none.json")


def test_what_cannot_be_is_said(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no alpha channel; give a background with transparency"):
        marked(channel="background")
    with pytest.raises(ValueError, match="empty"):
        marked(of=picture(np.ones(SIZE)), channel="background")
    with pytest.raises(ValueError, match="threshold 1: expected 0"):
        marked(box=BOX, threshold=1)
    image = tmp_path / "b.png"
    write_picture(image, picture())
    with pytest.raises(ValueError, match="given twice"):
        pair([image], [], BOX, transparent=True)
    assert pair([image], [], transparent=True) == [Case(image)]


def test_what_nobody_would_see_is_said(tmp_path: Path, region: np.ndarray) -> None:
    """Alpha is kept, so an object in the transparent part stays invisible; half transparent is fine."""
    pixels = picture(~region).pixels
    Image.fromarray(pixels).save(tmp_path / "b.png")
    case = Case(tmp_path / "b.png", channel="background")
    with pytest.warns(UserWarning, match=r"b\.png: fully transparent in the mask"):
        assert np.array_equal(case.read()[1].mask, region)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        replace(case, channel="", box=(7, 5, 16, 12)).read()
