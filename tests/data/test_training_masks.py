"""Training masks: what they cover, what they never touch, how they vary."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from torch import Tensor

from ldm.data.boxes import Box, pixel_box
from ldm.data.training_masks import box_mask, enlarge, free_form, training_mask

Case = tuple[Box, tuple[int, int], int]


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """A box of at least a pixel inside a picture of (H, W), and a seed."""
    height, width = draw(st.integers(2, 90)), draw(st.integers(2, 90))
    w, h = draw(st.floats(1, width)), draw(st.floats(1, height))
    x0, y0 = draw(st.floats(0, 1)) * (width - w), draw(st.floats(0, 1)) * (height - h)
    return (x0, y0, min(x0 + w, width), min(y0 + h, height)), (height, width), draw(st.integers(0, 2**31))


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def binary(mask: Tensor, size: tuple[int, int]) -> bool:
    return mask.shape == (1, *size) and bool(((mask == 0) | (mask == 1)).all())


@given(cases())
@settings(deadline=None, max_examples=100)
def test_each_side_grows_by_at_most_40_percent_of_its_free_space(case: Case) -> None:
    (x0, y0, x1, y1), (height, width), seed = case
    left, top, right, bottom = enlarge((x0, y0, x1, y1), (height, width), seeded(seed))
    for grown, free in (
        (x0 - left, x0),
        (y0 - top, y0),
        (right - x1, width - x1),
        (bottom - y1, height - y1),
    ):
        assert -1e-6 <= grown <= 0.4 * free + 1e-6


def test_the_growth_uses_its_whole_range_on_every_side() -> None:
    boxes = torch.tensor([enlarge((100, 100, 200, 200), (300, 300), seeded(i)) for i in range(300)])
    grown = (boxes - torch.tensor([100.0, 100, 200, 200])).abs() / 100
    assert (grown.min(dim=0).values < 0.02).all() and (grown.max(dim=0).values > 0.38).all()
    assert grown.T.corrcoef().fill_diagonal_(0).abs().max() < 0.25  # sides move independently


def test_box_mask_is_the_pixels_that_the_box_touches() -> None:
    expected = torch.zeros(1, 6, 8)
    expected[:, 1:4, 2:7] = 1
    assert torch.equal(box_mask((2, 1, 7, 4), (6, 8)), expected)
    assert torch.equal(box_mask((2.9, 1.1, 6.1, 3.01), (6, 8)), expected)
    assert pixel_box((-3, -1, 99, 5.5), (6, 8)) == (0, 0, 8, 6)


@given(cases())
@settings(deadline=None, max_examples=200)
def test_a_blob_holds_the_middle_of_the_object_and_stays_in_the_enlarged_box(case: Case) -> None:
    box, size, seed = case
    enlarged = enlarge(box, size, seeded(seed))
    mask = free_form(box, enlarged, size, seeded(seed + 1))
    assert binary(mask, size)
    assert (mask <= box_mask(enlarged, size)).all()
    x0, y0, x1, y1 = box
    assert mask[0, int((y0 + y1) / 2), int((x0 + x1) / 2)] == 1


def test_a_blob_never_misses_the_middle_of_a_tiny_box() -> None:
    for seed in range(3000):
        x, y = (10 * torch.rand(2, generator=seeded(seed))).tolist()
        box = (x, y, x + 1.01, y + 1.01)
        assert free_form(box, box, (12, 12), seeded(seed))[0, int(y + 0.505), int(x + 0.505)] == 1


def test_a_blob_covers_the_object_but_for_the_jitter_and_bulges_beyond_it() -> None:
    box, enlarged, size = (60, 50, 160, 130), (20, 10, 220, 170), (200, 240)
    for seed in range(20):
        mask = free_form(box, enlarged, size, seeded(seed))
        assert mask[:, 53:127, 63:157].all()
        inside = box_mask(box, size).sum()
        assert 1.2 * inside < mask.sum() < 0.8 * box_mask(enlarged, size).sum()
        rows, columns = mask[0].any(1).nonzero().flatten(), mask[0].any(0).nonzero().flatten()
        assert rows[0] < 45 and rows[-1] > 135 and columns[0] < 55 and columns[-1] > 165


def test_blobs_are_not_shifted() -> None:
    """Where box and enlarged box are symmetric, the mean blob is: its middle is that of the picture."""
    mean = torch.stack(
        [free_form((30, 20, 50, 40), (20, 10, 60, 50), (60, 80), seeded(i))[0] for i in range(300)]
    )
    y, x = torch.meshgrid(torch.arange(60) + 0.5, torch.arange(80) + 0.5, indexing="ij")
    assert abs((mean * x).sum() / mean.sum() - 40) < 0.25
    assert abs((mean * y).sum() / mean.sum() - 30) < 0.25


def test_a_blob_has_no_holes_and_one_part() -> None:
    """Jitter must not fold the outline: background and blob are each one connected piece."""
    for seed in range(30):
        mask = free_form((60, 50, 160, 130), (40, 10, 200, 150), (200, 240), seeded(seed))[0].numpy()
        assert ndimage.label(mask, structure=[[1] * 3] * 3)[1] == 1
        assert ndimage.label(1 - mask, structure=[[1] * 3] * 3)[1] == 1


def test_half_of_the_training_masks_are_boxes_half_are_blobs() -> None:
    box, size = (20, 20, 50, 40), (64, 80)
    drawn = [training_mask(box, size, seeded(seed)) for seed in range(400)]
    assert all(binary(mask, size) for mask, _ in drawn)
    assert all((mask <= box_mask(enlarged, size)).all() for mask, enlarged in drawn)
    boxes = sum(torch.equal(mask, box_mask(enlarged, size)) for mask, enlarged in drawn)
    assert 160 < boxes < 240


def test_the_generator_decides_everything() -> None:
    box, size = (20, 20, 50, 40), (64, 80)
    torch.manual_seed(1)
    first = [training_mask(box, size, seeded(seed)) for seed in range(10)]
    torch.manual_seed(2)
    again = [training_mask(box, size, seeded(seed)) for seed in range(10)]
    assert all(torch.equal(a[0], b[0]) and a[1] == b[1] for a, b in zip(first, again, strict=True))
    assert len({enlarged for _, enlarged in first}) == 10
