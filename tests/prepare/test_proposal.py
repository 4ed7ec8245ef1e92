"""The object of a photo is found without a box, and cut out; given boxes and silhouettes are kept."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from benchmarks.proposals import box_iou, mask_iou
from ldm.config.loader import ROOT
from ldm.data.insertset import load_insertset
from ldm.data.mask_levels import read_silhouette
from ldm.data.picture import OPAQUE, read_rgb
from ldm.prepare.proposal import box_of, propose
from ldm.prepare.segmenter import Segmenter, load_segmenter

HEIGHT, WIDTH = 240, 320


def photo(seed: int, centre: tuple[int, int], radius: int = 55) -> tuple[np.ndarray, np.ndarray]:
    """A red and white target on a ground of its own colour and texture, and where it is."""
    random = np.random.default_rng(seed)
    ground = random.integers(40, 200, 3)
    image = np.clip(ground + random.normal(0, 25, (HEIGHT, WIDTH, 1)), 0, 255).astype(np.uint8)
    image = cv2.GaussianBlur(image, (0, 0), 1 + seed % 3)
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    cv2.circle(mask, centre, radius, 255, -1)
    for part, colour in ((1.0, (215, 30, 30)), (0.66, (240, 240, 240)), (0.33, (215, 30, 30))):
        cv2.circle(image, centre, round(radius * part), colour, -1)
    return image, mask


PHOTOS = [photo(1, (160, 120)), photo(2, (120, 130)), photo(3, (205, 105), 45), photo(4, (150, 100), 60)]


@pytest.mark.parametrize(("image", "mask"), PHOTOS)
def test_the_object_is_found_without_a_box(image: np.ndarray, mask: np.ndarray) -> None:
    found = propose(image)
    truth = box_of(mask)
    assert truth is not None and box_iou(found.box, truth) > 0.9 and found.source == "proposed"
    assert mask_iou(found.silhouette > 127, mask > 0) > 0.9


def test_an_object_that_the_border_cuts_is_found_up_to_it_and_named() -> None:
    image, mask = photo(5, (10, 130))
    cut = propose(image)
    assert cut.box[0] == 0 and mask_iou(cut.silhouette > 127, mask > 0) > 0.7
    assert any("cut off by the photo's border (left)" in warning for warning in cut.warnings)
    assert not any("cut off" in warning for other, _ in PHOTOS for warning in propose(other).warnings)


@pytest.mark.parametrize("name", ["grabcut", "matting"])
def test_a_segmenter_locates_in_pixels_of_the_photo(name: str) -> None:
    image, mask = photo(6, (130, 120))
    large = cv2.resize(image, (5 * WIDTH, 5 * HEIGHT))
    found, truth = load_segmenter(name).locate(large), box_of(mask)
    assert found is not None and truth is not None
    assert box_iou(found, tuple(5 * side for side in truth)) > 0.8  # type: ignore[arg-type]


def test_a_given_box_is_kept_and_a_box_outside_refused() -> None:
    image, mask = PHOTOS[0]
    box = (100.5, 60.0, 220.0, 180.0)
    proposal = propose(image, box)
    assert proposal.box == box and proposal.source == "box"
    assert not any("cut" in warning for warning in proposal.warnings)
    assert mask_iou(proposal.silhouette > 127, mask > 0) > 0.95
    with pytest.raises(ValueError, match="outside the photo, which is 320 x 240"):
        propose(image, (400, 0, 500, 100))


def test_a_box_that_cuts_the_object_is_named() -> None:
    image, _ = PHOTOS[0]
    assert any("cut the object" in warning for warning in propose(image, (100, 60, 150, 180)).warnings)


def test_a_given_silhouette_is_kept_and_checked() -> None:
    image, mask = PHOTOS[0]
    proposal = propose(image, silhouette=mask)
    assert proposal.silhouette is mask and proposal.box == (105, 65, 216, 176)
    with pytest.raises(ValueError, match="10 x 10 px for a photo of 320 x 240"):
        propose(image, silhouette=mask[:10, :10])
    with pytest.raises(ValueError, match="empty silhouette"):
        propose(image, silhouette=np.zeros_like(mask))


def test_where_nothing_is_found_it_is_said() -> None:
    nothing = Segmenter("nothing", lambda pixels, box: np.zeros(pixels.shape[:2], np.float32))
    assert nothing.locate(PHOTOS[0][0]) is None
    proposal = propose(PHOTOS[0][0], segmenter=nothing)
    assert "no object found: draw its box" in proposal.warnings
    assert (proposal.silhouette > 127).any()


def test_the_demo_object_is_found_and_cut_out_in_its_photos() -> None:
    samples = load_insertset(ROOT / "examples/objects/rocket_bee").few_shot
    boxes, silhouettes = [], []
    for sample in samples:
        assert sample.mask is not None
        found = propose(read_rgb(sample.image))
        boxes.append(box_iou(found.box, sample.boxes[0]))
        silhouettes.append(mask_iou(found.silhouette > OPAQUE, read_silhouette(sample.mask) > OPAQUE))
    assert min(boxes) > 0.85 and np.mean(silhouettes) > 0.93, (boxes, silhouettes)
