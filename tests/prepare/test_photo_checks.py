"""Each fault of a photo has its warning; a good photo has none."""

from __future__ import annotations

import cv2
import numpy as np

from ldm.data.boxes import Box
from ldm.prepare.photo_checks import (
    ALIKE,
    alike,
    best_view,
    check_photo,
    compare_views,
    sharpness,
    tile_similarity,
    view_of,
)

BOX = (100.0, 100.0, 400.0, 400.0)


def shown(box: Box = BOX, seed: int = 0, blur: float = 0) -> tuple[np.ndarray, Box, np.ndarray]:
    """A chequered object that fills its box, in a grey photo."""
    image, mask = np.full((600, 600, 3), 120, np.uint8), np.zeros((600, 600), np.uint8)
    x0, y0, x1, y1 = map(int, box)
    cells = np.random.default_rng(seed).integers(0, 255, (8, 8, 3), dtype=np.uint8)
    image[y0:y1, x0:x1] = cv2.resize(cells, (x1 - x0, y1 - y0), interpolation=cv2.INTER_NEAREST)
    mask[y0:y1, x0:x1] = 255
    return cv2.GaussianBlur(image, (0, 0), blur) if blur else image, box, mask


def test_a_good_photo_has_no_warning() -> None:
    assert check_photo(*shown()) == ()


def test_faults_of_one_photo() -> None:
    assert "small: the object is 60 x 80 px" in check_photo(*shown((100, 100, 160, 180)))[0]
    assert "blurred" in check_photo(*shown(blur=6))[0]
    assert "cut off by the photo's border (left, bottom)" in check_photo(*shown((0, 300, 300, 600)))[0]
    image, box, mask = shown((100, 100, 500, 400))
    mask[:, 260:340] = 0
    assert "2 separate pieces" in check_photo(image, box, mask)[0]


def test_blur_lowers_sharpness_and_light_does_not() -> None:
    image, box, mask = shown()
    dark = (image * 0.4).astype(np.uint8)
    assert sharpness(*shown(blur=8)) < 0.5 * sharpness(image, box, mask)
    assert abs(sharpness(dark, box, mask) / sharpness(image, box, mask) - 1) < 0.15


def test_faults_of_all_photos_together() -> None:
    views = {str(seed): view_of(*shown(seed=seed)) for seed in (1, 2, 3)}
    assert compare_views(views) == []
    again = views | {"4": view_of(*shown((90, 110, 410, 420), seed=2))}
    assert compare_views(again) == ["2 and 4 show nearly the same view: keep one, show other sides"]
    assert compare_views({"1": views["1"]})[0].startswith("1 photo: at least 3")


def test_a_copy_is_known_though_another_box_and_silhouette_were_proposed() -> None:
    image, box, mask = shown()
    copy = cv2.resize(image, None, fx=0.4, fy=0.4, interpolation=cv2.INTER_AREA)
    smaller = tuple(0.4 * value for value in (box[0], box[1], box[2], 0.6 * box[3]))
    other = view_of(copy, smaller, np.full(copy.shape[:2], 255, np.uint8))
    one = view_of(image, box, mask)
    assert tile_similarity(one.tile, other.tile) < ALIKE
    assert alike(one, other) and not alike(one, view_of(*shown(seed=5)))


def test_several_copies_are_one_warning() -> None:
    views = {name: view_of(*shown(seed=seed)) for name, seed in zip("abcd", (1, 2, 1, 1), strict=True)}
    assert compare_views(views) == ["a, c and d show nearly the same view: keep one, show other sides"]


def test_a_box_without_the_object_is_told() -> None:
    image, _, mask = shown((100, 100, 300, 300))
    assert check_photo(image, (310, 310, 500, 500), mask)[0].startswith(
        "nothing of the silhouette is in the box"
    )


def test_the_reference_is_whole_sharp_and_large() -> None:
    small, blurred, cut = shown((250, 250, 330, 330)), shown(blur=10), shown((0, 100, 300, 400))
    views = {name: view_of(*x) for name, x in zip("abcd", (small, blurred, shown(), cut), strict=True)}
    assert best_view(views) == "c"
