"""However a region is marked, it is the same region; what does not fit is said."""

import json
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ldm.batch.work_item import MaskedBackground, pair
from ldm.data.exif import upright_pixels
from ldm.data.picture import Picture, read_picture
from ldm.data.picture_write import write_picture
from ldm.insertion.mask_input import MaskOptions, read_insert_mask

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
    assert pair([image], [], transparent=True) == [MaskedBackground(image)]


def test_what_nobody_would_see_is_said(tmp_path: Path, region: np.ndarray) -> None:
    """Alpha is kept, so an object in the transparent part stays invisible; half transparent is fine."""
    pixels = picture(~region).pixels
    Image.fromarray(pixels).save(tmp_path / "b.png")
    masked = MaskedBackground(tmp_path / "b.png", channel="background")
    with pytest.warns(UserWarning, match=r"b\.png: fully transparent in the mask"):
        assert np.array_equal(masked.read()[1], region)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        replace(masked, channel="", box=(7, 5, 16, 12)).read()


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".webp", ".avif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_region_counts_in_the_background_that_a_viewer_shows(
    tmp_path: Path, orientation: int, suffix: str
) -> None:
    """Oracle: a box painted into the shown background, which is stored turned; every way to mark hits it."""
    shown = np.zeros((60, 80, 3), np.uint8)
    shown[8:40, 24:56] = 255
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = upright_pixels(shown, {6: 8, 8: 6}.get(orientation, orientation))  # undoes the turn
    Image.fromarray(stored).save(tmp_path / f"b{suffix}", exif=exif, quality=100)
    Image.fromarray(shown).save(tmp_path / "m.png")
    polygon = json.dumps([[24, 8], [56, 8], [56, 40], [24, 40]])
    background = read_picture(tmp_path / f"b{suffix}")
    white = background.pixels[..., 0] > 127
    assert white.shape == (60, 80) and abs(int(white.sum()) - 32 * 32) < 64
    for mask in (
        marked(of=background, box=(24, 8, 56, 40)),
        marked(write(tmp_path / "b.txt", "24 8 56 40"), of=background),
        marked(write(tmp_path / "b.json", polygon), of=background),
        marked(tmp_path / "m.png", of=background),
    ):
        assert np.array_equal(mask, shown[..., 0] > 0)


def test_numbers_of_another_convention_mark_the_same_region(tmp_path: Path, region: np.ndarray) -> None:
    shares = [8 / 30, 5 / 20, 16 / 30, 12 / 20]
    with pytest.warns(UserWarning, match="shares"):
        assert np.array_equal(marked(box=tuple(shares)), region)
    text = " ".join(f"{value:.6f}" for value in shares)
    with pytest.warns(UserWarning, match=r"b\.txt: box 0\.266667 .*shares"):
        assert np.array_equal(marked(write(tmp_path / "b.txt", text)), region)
    x0, y0, x1, y1 = shares
    points = json.dumps([[[x0, y0], [x1, y0], [x1, y1], [x0, y1]]])
    with pytest.warns(UserWarning, match=r"p\.json: read as shares"):
        assert np.array_equal(marked(write(tmp_path / "p.json", points)), region)
    assert np.array_equal(marked(write(tmp_path / "b.txt", "8,4; 5,2; 15,7; 11,9")), region), "decimal commas"
    for encoding in ("utf-8-sig", "utf-16"):
        (tmp_path / "b.txt").write_text("8 5 16 12\r\n", encoding)
        assert np.array_equal(marked(tmp_path / "b.txt"), region)
        (tmp_path / "b.json").write_text("[[8, 5], [16, 5], [16, 12], [8, 12]]", encoding)
        assert np.array_equal(marked(tmp_path / "b.json"), region)
