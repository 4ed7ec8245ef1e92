"""The region is square, contains the mask, stays inside when it can; what is cut out is what is there."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ldm.batch.contact_sheet import draw_plan
from ldm.data.picture import Picture
from ldm.insertion.roi import Roi, crop, plan_roi, plan_rois, squared, visible


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
    roi = plan_roi(mask, factor=factor, min_side=min_side)
    height, width = mask.shape
    side = roi.size[0]
    assert roi.size == (side, side)
    assert not (mask & ~inside(roi, mask.shape)).any()
    rows, columns = np.nonzero(mask)
    longer = int(max(np.ptp(rows), np.ptp(columns))) + 1
    assert longer <= side <= max(longer, min(height, width))
    assert side >= min(round(factor * longer), height, width) and side >= min(min_side, height, width)
    if side <= height:
        assert roi.y0 >= 0 and roi.y1 <= height
    if side <= width:
        assert roi.x0 >= 0 and roi.x1 <= width


def test_numbers():
    mask = np.zeros((100, 200), bool)
    mask[40:60, 90:100] = True
    assert plan_roi(mask) == Roi(75, 30, 115, 70)
    assert plan_roi(mask, context_px=5) == Roi(80, 35, 110, 65)
    assert plan_roi(mask, min_side=64) == Roi(63, 18, 127, 82)
    assert plan_roi(mask, min_side=512) == Roi(45, 0, 145, 100)
    mask[:, :] = False
    mask[95:, :150] = True
    assert plan_roi(mask) == Roi(0, -25, 150, 125)  # longer than the picture is high


def test_too_little_context_is_refused():
    with pytest.raises(ValueError, match="cuts the mask"):
        plan_roi(np.eye(9) > 0, factor=0.5)
    with pytest.raises(ValueError, match="empty"):
        plan_roi(np.zeros((4, 4), bool))
    with pytest.raises(ValueError, match="empty"):
        plan_rois(np.zeros((4, 4), bool))


@given(box_masks(5), st.integers(0, 30))
@settings(max_examples=150, deadline=None)
def test_every_masked_pixel_lies_in_one_square(mask, min_side):
    rois = plan_rois(mask, min_side=min_side)
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
