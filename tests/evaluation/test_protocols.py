"""`paper` and `pbe`, derived a second time in numpy and OpenCV, on shapes whose boxes are known.

Nothing of ldm.evaluation.networks makes the expected values.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from ldm.batch.work_item import MaskedBackground
from ldm.data.picture import Picture
from ldm.evaluation.benchmark import Site
from ldm.evaluation.metrics import scores_of
from ldm.evaluation.networks import (
    load_networks,
    paper_box,
    paper_region,
    pbe_box,
    pbe_region,
    whole,
)
from ldm.evaluation.results import Insertion, References
from tests.fixtures.networks import write_clip, write_dino

SIZE = (90, 120)  # height, width of the picture
MEAN = np.array([0.48145466, 0.4578275, 0.40821073])  # CLIP's
STD = np.array([0.26862954, 0.26130258, 0.27577711])
ROWS, COLUMNS = np.mgrid[: SIZE[0], : SIZE[1]]


def rectangle(x0: int, y0: int, x1: int, y1: int) -> np.ndarray:
    """Columns x0 ... x1 - 1 of rows y0 ... y1 - 1."""
    inside = np.zeros(SIZE, bool)
    inside[y0:y1, x0:x1] = True
    return inside


ELLIPSE = ((COLUMNS - 60) / 35.5) ** 2 + ((ROWS - 40) / 12.5) ** 2 <= 1  # 71 x 25 px from column 25, row 28
BLOBS = rectangle(10, 10, 30, 20) | rectangle(50, 60, 60, 80)
BAND = rectangle(40, 0, 60, 90)  # from the upper to the lower border
LYING = rectangle(0, 30, 120, 50)  # from the left to the right border
ROOF = rectangle(40, 0, 60, 20)  # at one border
SHAPES = {"ellipse": ELLIPSE, "blobs": BLOBS, "band": BAND, "lying": LYING, "roof": ROOF}
PAPER = {  # x0, y0, x1, y1; a Canny edge lies one pixel above and left of the mask, and on its last pixels
    "ellipse": (24, 27, 96, 53),
    "blobs": (9, 9, 30, 20),  # the first blob only
    "band": (39, 0, 40, 90),  # its left edge, which is outside the mask
    "lying": (0, 29, 120, 30),
    "roof": (39, 0, 60, 20),
}
PBE = {  # from the first to before the last pixel in raster order
    "ellipse": (51, 28, 69, 52),  # the first and last rows have columns 51 ... 69
    "blobs": (10, 10, 59, 79),
    "band": (40, 0, 59, 89),
    "lying": (0, 30, 119, 49),
    "roof": (40, 0, 59, 19),
}


def picture() -> np.ndarray:
    """Coarse colours, uint8 [90,120,3]."""
    coarse = np.random.default_rng(5).integers(0, 256, (9, 12, 3), dtype=np.uint8)
    return cv2.resize(coarse, SIZE[::-1], interpolation=cv2.INTER_CUBIC)


def normalised(pixels: np.ndarray) -> np.ndarray:
    return ((pixels / 255 - MEAN) / STD).astype(np.float32)


def squashed(crop: np.ndarray) -> np.ndarray:
    """Bilinear at pixel centres, no antialiasing, one axis after the other => [224,224,3]."""
    for axis in (0, 1):
        n = crop.shape[axis]
        place = np.clip((np.arange(224) + 0.5) * n / 224 - 0.5, 0, n - 1)
        low = np.floor(place).astype(int)
        share = (place - low).reshape([-1, 1, 1] if axis == 0 else [1, -1, 1])
        high = np.minimum(low + 1, n - 1)
        crop = crop.take(low, axis) * (1 - share) + crop.take(high, axis) * share
    return crop


def as_the_paper(pixels: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Normalised at full size, times mask / 255, the box of the last contour, squared with zeros."""
    levels = mask.astype(np.uint8) * 255
    masked = normalised(pixels) * (levels / 255)[..., None]
    contours = cv2.findContours(cv2.Canny(levels, 128, 256), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)[0]
    points = contours[-1][:, 0]
    (x0, y0), (x1, y1) = points.min(0), points.max(0) + 1
    height, width = y1 - y0, x1 - x0
    side = max(height, width)
    square = np.zeros((side, side, 3))
    top, left = (side - height) // 2, (side - width) // 2
    square[top : top + height, left : left + width] = masked[y0:y1, x0:x1]
    return squashed(square)


def as_paint_by_example(pixels: np.ndarray, mask: np.ndarray) -> np.ndarray:
    rows, columns = np.where(mask.astype(np.uint8) * 255 == 255)  # in raster order
    return squashed(normalised(pixels)[rows[0] : rows[-1], columns[0] : columns[-1]])


def shown(image: torch.Tensor | None) -> np.ndarray:
    assert image is not None and image.shape == (1, 3, 224, 224)
    return image[0].permute(1, 2, 0).numpy()


@pytest.mark.parametrize("name", SHAPES)
def test_boxes_are_those_of_the_published_codes_arithmetic(name: str) -> None:
    paper, pbe = paper_box(SHAPES[name]), pbe_box(SHAPES[name])
    assert paper is not None and (paper.x0, paper.y0, paper.x1, paper.y1) == PAPER[name]
    assert pbe is not None and (pbe.x0, pbe.y0, pbe.x1, pbe.y1) == PBE[name]


@pytest.mark.parametrize("name", SHAPES)
def test_what_the_encoder_sees_is_derived_anew(name: str) -> None:
    pixels, mask = picture(), SHAPES[name]
    expected = as_the_paper(pixels, mask)
    assert np.allclose(shown(paper_region(Picture(pixels), mask)), expected, atol=1e-4)
    assert np.allclose(shown(pbe_region(Picture(pixels), mask)), as_paint_by_example(pixels, mask), atol=1e-4)


@pytest.mark.parametrize("name", ["band", "lying"])
def test_a_mask_from_border_to_border_collapses_to_nothing(name: str) -> None:
    assert not shown(paper_region(Picture(picture()), SHAPES[name])).any()


def test_only_one_of_two_blobs_is_seen_by_the_papers_code() -> None:
    pixels, first = picture(), rectangle(10, 10, 30, 20)
    both = shown(paper_region(Picture(pixels), BLOBS))
    assert np.array_equal(both, shown(paper_region(Picture(pixels), first)))
    other = pixels.copy()
    other[60:80, 50:60] ^= 255
    assert np.array_equal(both, shown(paper_region(Picture(other), BLOBS)))


def test_where_the_published_code_fails_there_is_no_crop() -> None:
    assert paper_box(rectangle(10, 10, 12, 12)) is None  # too small for an edge
    leaning = rectangle(60, 10, 70, 20) | rectangle(10, 20, 20, 30)
    assert pbe_box(leaning) is None  # it ends to the left of where it starts
    assert pbe_box(rectangle(10, 10, 30, 11)) is None  # one row, which the exclusive end leaves out
    for region, mask in ((paper_region, rectangle(10, 10, 12, 12)), (pbe_region, leaning)):
        assert region(Picture(picture()), mask) is None


def test_scores_are_cosines_of_what_is_derived_anew(tmp_path: Path) -> None:
    networks = load_networks(
        ["clip", "dino"], clip=write_clip(tmp_path / "c"), dino=write_dino(tmp_path / "d")
    )
    result, reference = picture(), np.random.default_rng(1).integers(0, 256, (50, 80, 3), dtype=np.uint8)
    for name, pixels in (("background", result ^ 1), ("result", result), ("reference", reference)):
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")

    def scored(mask: np.ndarray) -> dict[str, float]:
        Image.fromarray(mask.astype(np.uint8) * 255).save(tmp_path / "mask.png")
        masked = MaskedBackground(tmp_path / "background.png", tmp_path / "mask.png")
        references = References(tmp_path / "reference.png")
        insertion = Insertion(Site("1", "cup", masked), references, tmp_path / "result.png")
        return scores_of(insertion, ["clip", "dino"], networks)

    found = scored(ELLIPSE)
    small = np.asarray(Image.fromarray(reference).resize((224, 224), Image.Resampling.BICUBIC))
    assert np.allclose(shown(whole(reference)), normalised(small), atol=1e-4)
    for name, encoder, crop in (
        ("paper/clip", networks.clip, as_the_paper(result, ELLIPSE)),
        ("paper/dino", networks.dino, as_the_paper(result, ELLIPSE)),
        ("pbe/clip", networks.clip, as_paint_by_example(result, ELLIPSE)),
    ):
        assert encoder is not None
        tensors = [torch.from_numpy(x).float().permute(2, 0, 1)[None] for x in (crop, normalised(small))]
        a, b = (encoder(x)[0].double().numpy() for x in tensors)
        cosine = a @ b / np.linalg.norm(a) / np.linalg.norm(b)
        assert found[name] == pytest.approx(100 * cosine, abs=2e-3)
    assert {"paper/clip", "paper/dino", "v2/clip_mean"} <= scored(BLOBS).keys()
    leaning = rectangle(60, 10, 70, 20) | rectangle(10, 20, 20, 30)
    assert "pbe/clip" not in scored(leaning) and "paper/clip" in scored(leaning)
