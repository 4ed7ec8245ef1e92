"""The region is square, contains the mask, stays inside when it can; what is cut out is what is there."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ldm.batch.contact_sheet import OVERLAY_INK, draw_plan
from ldm.data.picture import Picture
from ldm.insertion.roi import (
    CropContext,
    Roi,
    cautions,
    crop,
    lines,
    plan_roi,
    plan_rois,
    scaling,
    squared,
    visible,
)


@st.composite
def box_masks(draw: st.DrawFn, boxes: int = 1) -> np.ndarray:
    height, width = draw(st.integers(1, 90)), draw(st.integers(1, 90))
    mask = np.zeros((height, width), bool)
    for _ in range(draw(st.integers(1, boxes))):
        y, x = draw(st.integers(0, height - 1)), draw(st.integers(0, width - 1))
        mask[y : y + draw(st.integers(1, 40)), x : x + draw(st.integers(1, 40))] = True
    return mask


def inside(roi: Roi, shape: tuple[int, int]) -> np.ndarray:
    out = np.zeros(shape, bool)
    out[visible(roi, shape).slices] = True
    return out


@given(box_masks(3), st.floats(1, 4), st.integers(0, 120))
@settings(max_examples=200, deadline=None)
def test_the_square_holds_the_mask(mask, factor, min_side):
    roi = plan_roi(mask, CropContext(min_side, factor))
    height, width = mask.shape
    side = roi.size[0]
    assert roi.size == (side, side)
    assert not (mask & ~inside(roi, mask.shape)).any()
    rows, columns = np.nonzero(mask)
    own = np.array([np.ptp(rows), np.ptp(columns)]) + 1
    longer, room = int(own.max()), np.minimum(np.ceil(1.25 * own), mask.shape).max()
    assert longer <= side <= max(room, min(height, width))
    assert side >= min(round(factor * longer), height, width) and side >= min(min_side, height, width)
    if side <= height:
        assert roi.y0 >= 0 and roi.y1 <= height
    if side <= width:
        assert roi.x0 >= 0 and roi.x1 <= width


def test_numbers():
    mask = np.zeros((100, 200), bool)
    mask[40:60, 90:100] = True
    assert plan_roi(mask) == Roi(75, 30, 115, 70)
    assert plan_roi(mask, CropContext(context_px=5)) == Roi(80, 35, 110, 65)
    assert plan_roi(mask, CropContext(64)) == Roi(63, 18, 127, 82)
    assert plan_roi(mask, CropContext(512)) == Roi(45, 0, 145, 100)
    mask[:, :] = False
    mask[95:, :150] = True
    assert plan_roi(mask) == Roi(0, -44, 188, 144)  # longer than the picture is high
    mask[95:, :] = True
    assert plan_roi(mask) == Roi(0, -50, 200, 150)  # there is no more of the scene


def test_too_little_context_is_refused():
    with pytest.raises(ValueError, match="cuts the mask"):
        plan_roi(np.eye(9) > 0, CropContext(roi_factor=0.5))
    with pytest.raises(ValueError, match="empty"):
        plan_roi(np.zeros((4, 4), bool))
    with pytest.raises(ValueError, match="empty"):
        plan_rois(np.zeros((4, 4), bool))


@given(box_masks(5), st.integers(0, 30))
@settings(max_examples=150, deadline=None)
def test_every_masked_pixel_lies_in_one_square(mask, min_side):
    rois = plan_rois(mask, CropContext(min_side))
    count = sum(inside(roi, mask.shape).astype(int) for roi in rois)
    assert (count[mask] == 1).all()


def test_components_far_apart_get_their_own_squares():
    mask = np.zeros((100, 300), bool)
    mask[10:20, 10:20] = mask[80:90, 250:260] = True
    assert plan_rois(mask) == [Roi(5, 5, 25, 25), Roi(245, 75, 265, 95)]
    mask[10:20, 22:26] = True  # within the first one's context
    assert [roi.size[0] for roi in plan_rois(mask)] == [32, 20]


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_crop(data):
    height, width = data.draw(st.integers(1, 12)), data.draw(st.integers(1, 12))
    array = np.arange(height * width * 2).reshape(height, width, 2)
    x0, y0 = data.draw(st.integers(-30, width - 1)), data.draw(st.integers(-30, height - 1))
    roi = Roi(x0, y0, data.draw(st.integers(max(x0, 0) + 1, 40)), data.draw(st.integers(max(y0, 0) + 1, 40)))
    part, seen = crop(array, roi), visible(roi, (height, width))
    assert part.shape == (*roi.size, 2)
    kept = part[seen.y0 - roi.y0 : seen.y1 - roi.y0, seen.x0 - roi.x0 : seen.x1 - roi.x0]
    assert np.array_equal(kept, array[seen.slices])
    assert crop(array > 3, roi).dtype == bool


def test_crop_reflects():
    row = np.array([[1, 2, 3]])
    assert crop(row, Roi(-4, 0, 5, 1)).tolist() == [[1, 2, 3, 2, 1, 2, 3, 2, 1]]
    assert crop(row, Roi(0, -2, 3, 2)).tolist() == [[1, 2, 3]] * 4


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_overlay_shows_mask_and_frame(channels, dtype):
    grey = np.iinfo(dtype).max // 2
    picture, mask = Picture(np.full((60, 80, channels), grey, dtype)), np.zeros((60, 80), bool)
    mask[20:40, 30:50] = True
    drawing = draw_plan(picture, mask, [Roi(20, 10, 60, 50), Roi(-5, -5, 10, 10)]).pixels
    assert drawing.shape == (60, 80, 3) and drawing.dtype == np.uint8
    assert drawing[0, 79].tolist() == [127] * 3 and drawing[10, 30].tolist() == [255, 210, 0]
    assert drawing[20, 40].tolist() == [255, 40, 40]
    assert drawing[30, 40, 0] > 150 > 110 > drawing[30, 40, 1]


@given(st.integers(-5, 60), st.integers(-5, 40), st.integers(1, 60), st.integers(1, 60))
def test_a_squared_box_is_a_square_inside_the_picture_that_keeps_its_longer_side(
    x: int, y: int, width: int, height: int
) -> None:
    size, box = (50, 70), Roi(x, y, x + width, y + height)
    if width == height:
        assert squared(box, size) == box
        return
    if max(width, height) > 50:
        with pytest.raises(ValueError, match="none around it fits into the background of 70 x 50 px"):
            squared(box, size)
        return
    found = squared(box, size)
    assert found.size == (max(width, height),) * 2
    assert min(found.x0, found.y0) >= 0 and found.x1 <= 70 and found.y1 <= 50
    if x >= 0 and y >= 0 and box.x1 <= 70 and box.y1 <= 50:
        assert found.x0 <= box.x0 and found.y0 <= box.y0 and found.x1 >= box.x1 and found.y1 >= box.y1


ROOT = Path(__file__).parents[2]


def mask_of(*boxes: tuple[int, int, int, int], size: tuple[int, int] = (600, 900)) -> np.ndarray:
    mask = np.zeros(size, bool)
    for x0, y0, x1, y1 in boxes:
        mask[y0:y1, x0:x1] = True
    return mask


def test_context_by_factor_in_pixels_and_by_zoom() -> None:
    mask = mask_of((400, 200, 500, 250))
    contexts = (
        CropContext(64, 2.0),
        CropContext(64, context_px=30),
        CropContext(512, 2.0),
        CropContext(512, 2.0, zoom=4),
    )
    assert [plan_rois(mask, context)[0].size[0] for context in contexts] == [200, 160, 512, 200]


def test_scale_is_model_pixels_a_pixel() -> None:
    assert scaling(Roi(0, 0, 200, 200), 100) == "200 => 100 px, shrunk 2.0x"
    assert scaling(Roi(0, 0, 40, 40), 80) == "40 => 80 px, enlarged 2.0x"
    assert scaling(Roi(0, 0, 40, 40), 40) == "40 => 40 px, not resized"


@pytest.mark.parametrize(
    ("mask", "context", "expected"),
    [
        (mask_of((400, 200, 500, 250)), CropContext(150, 2.0), ""),
        (mask_of((400, 200, 500, 250)), CropContext(64, 2.0), "shrunk 3.1 times"),
        (mask_of((400, 200, 403, 202)), CropContext(128, 2.0), "too small"),
        (mask_of((400, 200, 500, 250)), CropContext(100, 1.0), "fills its region"),
        (mask_of((0, 10, 900, 590)), CropContext(900, 1.2), "mirrored at its border"),
        (
            mask_of(*((60 * i, 60 * i, 60 * i + 9, 60 * i + 9) for i in range(9))),
            CropContext(20),
            "9 separate",
        ),
    ],
)
def test_what_to_beware_of(mask: np.ndarray, context: CropContext, expected: str) -> None:
    found = " ".join(cautions(mask, plan_rois(mask, context), context.model_side))
    assert expected in found and bool(expected) == bool(found)


def test_the_text_names_every_region_once() -> None:
    mask = mask_of((10, 10, 50, 50), (700, 400, 800, 500))
    text = "\n".join(lines(mask, plan_rois(mask, CropContext(64, 2.0)), 64))
    assert "900 x 600 px" in text and "2 regions" in text
    assert text.count("\n  region 1:") == text.count("\n  region 2:") == 1
    assert "80 px square" in text and "200 px square" in text


def test_no_zoom_at_all_is_refused() -> None:
    with pytest.raises(ValueError, match="zoom 0"):
        plan_rois(mask_of((1, 1, 9, 9)), CropContext(64, zoom=0))


def test_labels_stay_in_their_corner() -> None:
    picture, mask = Picture(np.full((100, 200, 3), 90, np.uint8)), np.zeros((100, 200), bool)
    rois = [Roi(20, 30, 120, 130), Roi(190, -10, 290, 90)]
    plain, labelled = draw_plan(picture, mask, rois).pixels, draw_plan(picture, mask, rois, ["x", "y"]).pixels
    changed = (plain != labelled).any(axis=2)
    assert changed[30:47, 20:60].any() and labelled[30:47, 20:60].min() < np.mean(OVERLAY_INK) + 60, "letters"
    changed[30:47, 20:60] = changed[:17, 190:] = False
    assert not changed.any()


def test_labels_grow_with_the_picture() -> None:
    picture, mask = Picture(np.zeros((10, 2400, 3), np.uint8)), np.zeros((10, 2400), bool)
    drawing = draw_plan(picture, mask, [Roi(0, 0, 2400, 10)], ["wide"]).pixels
    assert (drawing[5] != 0).any(axis=1).sum() > 120


def test_a_plan_loads_no_model(tmp_path: Path) -> None:
    """Seconds of imports are for those who insert."""
    script = """
import sys
from scripts.inference import main
main(sys.argv[1:])
assert not {"diffusers", "transformers", "ldm.models.base"} & set(sys.modules)
"""
    scene = ROOT / "examples/scenes/table"
    arguments = ["--example_img", f"{scene}.jpg", "--mask", f"{scene}_mask.png", "--outdir", str(tmp_path)]
    made = subprocess.run(
        [sys.executable, "-c", script, "--plan", *arguments], cwd=ROOT, capture_output=True, text=True
    )
    assert made.returncode == 0, made.stderr
    assert "region 1:" in made.stdout and [f.name for f in tmp_path.iterdir()] == ["table_plan.png"]
