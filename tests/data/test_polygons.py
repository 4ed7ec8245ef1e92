"""Polygons as people and annotation tools write them; what is no polygon, or several objects, is one line."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ldm.data.boxes import Frame
from ldm.data.polygons import parse_polygons, polygons_in, read_polygons

OUTLINE = [[10, 20], [90, 20], [50, 80.5]]
FLAT = [10, 20, 90, 20, 50, 80.5]
SHAPE = {"label": "cup", "points": OUTLINE, "shape_type": "polygon", "group_id": None}
REGION = {
    "shape_attributes": {"name": "polygon", "all_points_x": [10, 90, 50], "all_points_y": [20, 20, 80.5]}
}
PHOTO = {"filename": "a.jpg", "size": 9, "regions": [REGION], "file_attributes": {}}
COCO = {"id": 1, "image_id": 1, "segmentation": [FLAT], "bbox": [10, 20, 80, 60.5], "iscrowd": 0}


def via(**attributes: Any) -> dict[str, Any]:
    return {"a.jpg9": {**PHOTO, "regions": [{"shape_attributes": attributes}]}}


@pytest.mark.parametrize(
    ("found", "sides"),
    [
        ({"shapes": [{"shape_type": "circle", "points": [[50, 40], [50, 60]]}]}, (30, 20, 70, 60)),
        (via(name="circle", cx=50, cy=40, r=20), (30, 20, 70, 60)),
        (via(name="ellipse", cx=50, cy=40, rx=20, ry=10), (30, 30, 70, 50)),
        (via(name="ellipse", cx=50, cy=40, rx=20, ry=10, theta=np.pi / 2), (40, 20, 60, 60)),
    ],
)
def test_circles_and_ellipses_are_outlines(found: Any, sides: tuple[int, ...]) -> None:
    [polygon] = parse_polygons(found, "x.json")
    points = np.array(polygon)
    assert np.allclose([*points.min(0), *points.max(0)], sides, atol=1e-6)


@pytest.mark.parametrize(
    "found",
    [
        OUTLINE,
        [OUTLINE],
        FLAT,
        [FLAT],
        {"version": "5.4", "flags": {}, "shapes": [SHAPE], "imagePath": "a.jpg", "imageWidth": 300},
        COCO,
        {"images": [{"id": 1}], "annotations": [COCO], "categories": []},
        {"a.jpg9": PHOTO},
        {"_via_settings": {}, "_via_img_metadata": {"a.jpg9": PHOTO}},
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_one_object_is_read_however_it_is_written(tmp_path: Path, found: Any, encoding: str) -> None:
    (tmp_path / "p.json").write_text(json.dumps(found, indent=1), encoding, newline="\r\n")
    assert read_polygons(tmp_path / "p.json") == [((10, 20), (90, 20), (50, 80.5))]


@pytest.mark.parametrize(
    "found",
    [
        {"shapes": [{**SHAPE, "points": [[90, 20], [10, 80.5]], "shape_type": "rectangle"}]},
        {"a.jpg9": {**PHOTO, "regions": [{"shape_attributes": {"name": "rect", "x": 10, "y": 20, "width": 80,
                                                               "height": 60.5}}]}},
    ],
)  # fmt: skip
def test_a_rectangle_of_an_annotation_tool_is_a_polygon(tmp_path: Path, found: Any) -> None:
    (tmp_path / "p.json").write_text(json.dumps(found))
    [polygon] = read_polygons(tmp_path / "p.json")
    assert sorted(polygon) == [(10, 20), (10, 80.5), (90, 20), (90, 80.5)]
    assert all((a[0] == b[0]) != (a[1] == b[1]) for a, b in pairwise(polygon)), "around, not across"


@pytest.mark.parametrize(
    ("found", "fault"),
    [
        ({"shapes": [SHAPE, SHAPE]}, "a file of LabelMe with 2 objects; keep the one that is meant"),
        ({"annotations": []}, "a file of COCO with 0 objects; keep"),
        ({"a": {**PHOTO, "regions": [REGION] * 3}}, "a file of VIA with 3 objects; keep"),
        ({"annotations": [{"bbox": [1, 2, 3, 4]}]}, "given: {annotations}"),
        ({"annotations": [{"segmentation": {"counts": "abc", "size": [9, 9]}}]}, "given: {'counts'"),
        ({"type": "FeatureCollection", "features": []}, "given: {type, features}"),
        ({}, "given: {}"),
        ([], "given: []"),
        (5, "given: 5"),
        ("10,20 90,20 50,80", "given: 10,20 90,20"),
        ([[1, 2], 3], "'3' is no point [x, y]"),
        ([[]], None),
        ([["10", "20", "90"]], "'10' is no point [x, y]"),
        ([["10", "20"], ["90", "20"], ["50", "80"]], "'10' is no point"),
        ([["a", 1]], "'a' is no point"),
        ([[[1, 2, 3]]], "'[1, 2, 3]' is no point"),
        ([[True, False], [1, 2], [3, 4]], "no point"),
        ([1, 2, 3, 4, 5], "5 numbers are no pairs x y"),
        ([[10**400, 1], [2, 3], [4, 5]], "too large"),
        ([1, 2, 3, 4], "a polygon of 2 points; give at least 3 points x, y, or a box: x0 y0 x1 y1 as --box"),
    ],
)
def test_what_is_no_polygon_is_one_line(found: Any, fault: str | None) -> None:
    with pytest.raises(ValueError, match=r"^p\.json: ") as error:
        polygons_in(parse_polygons(found, "p.json"), Frame(300, 200), "p.json")
    assert (fault or "a polygon of 0 points") in str(error.value)
    assert "\n" not in str(error.value) and len(str(error.value)) < 250


@pytest.mark.parametrize(
    "sized",
    [
        {"shapes": [SHAPE], "imageWidth": 300, "imageHeight": 200},
        {"annotations": [COCO], "images": [{"id": 1, "width": 300, "height": 200}]},
        {"annotations": [COCO], "images": [{"id": i, "width": 100 + 200 * i, "height": 200} for i in (0, 1)]},
    ],
)
def test_outlines_of_a_picture_of_another_size_are_refused(tmp_path: Path, sized: dict[str, Any]) -> None:
    (tmp_path / "p.json").write_text(json.dumps(sized))
    assert read_polygons(tmp_path / "p.json", Frame(200, 300, 6)) == [((10, 20), (90, 20), (50, 80.5))]
    for other in (Frame(600, 400), Frame(300, 200, 6)):
        width, height = other.shown
        fault = f"of 300 x 200 px; the background is {width} x {height}, as viewers show it; draw it there"
        with pytest.raises(ValueError, match=fault):
            read_polygons(tmp_path / "p.json", other)


def test_rounded_shares_are_shares() -> None:
    shares = [((-0.002, 0.0), (1.003, 0.0), (0.5, 1.0))]
    with pytest.warns(UserWarning, match="read as shares of the background"):
        [found] = polygons_in(shares, Frame(300, 200), "p")
    assert found == (pytest.approx((-0.6, 0)), pytest.approx((300.9, 0)), pytest.approx((150, 200)))


@pytest.mark.parametrize(
    "text", ["", "[[10, 20],\n[90, 20], [50, 80],]", "10,20 90,20", "[" * 100_000, f"[{'9' * 5000}, 1]"]
)
def test_what_is_no_json_is_shown(tmp_path: Path, text: str) -> None:
    (tmp_path / "p.json").write_text(text)
    with pytest.raises(ValueError, match=r"p\.json: not readable as JSON .*, near '") as error:
        read_polygons(tmp_path / "p.json")
    assert "\n" not in str(error.value) and "expected a list of polygons" in str(error.value)
    if "]," in text:
        assert "near '[90, 20], [50, 80],]'" in str(error.value)
    with pytest.raises(FileNotFoundError, match=r"none\.json"):
        read_polygons(tmp_path / "none.json")
