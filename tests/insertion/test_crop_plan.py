"""The plan says what the model will see, and warns of what it cannot see well."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ldm.batch.contact_sheet import OVERLAY_INK, draw_plan
from ldm.data.picture import Picture
from ldm.insertion.crop_plan import CropContext, CropPlan, lines, plan_crops, rois_around, scaling
from ldm.insertion.roi import Roi

ROOT = Path(__file__).parents[2]


def mask_of(*boxes: tuple[int, int, int, int], size: tuple[int, int] = (600, 900)) -> np.ndarray:
    mask = np.zeros(size, bool)
    for x0, y0, x1, y1 in boxes:
        mask[y0:y1, x0:x1] = True
    return mask


def planned(mask: np.ndarray, context: CropContext) -> CropPlan:
    return plan_crops(mask, rois_around(mask, context), context.model_side)


def notes(mask: np.ndarray, context: CropContext) -> str:
    made = planned(mask, context)
    return " ".join([*made.notes, *(note for region in made.regions for note in region.notes)])


def test_context_by_factor_in_pixels_and_by_zoom() -> None:
    mask = mask_of((400, 200, 500, 250))
    sides = [
        planned(mask, context).regions[0].roi.size[0]
        for context in (
            CropContext(64, 2.0),
            CropContext(64, context_px=30),
            CropContext(512, 2.0),
            CropContext(512, 2.0, zoom=4),
        )
    ]
    assert sides == [200, 160, 512, 200]


def test_scale_is_model_pixels_a_pixel() -> None:
    region = planned(mask_of((400, 200, 500, 250)), CropContext(100, 2.0)).regions[0]
    assert region.scale == 0.5 and scaling(region) == "200 => 100 px, shrunk 2.0x"
    assert scaling(planned(mask_of((9, 9, 29, 29)), CropContext(80, 2.0, zoom=4)).regions[0]).endswith(
        "enlarged 2.0x"
    )
    assert scaling(planned(mask_of((9, 9, 29, 29)), CropContext(40, 2.0)).regions[0]).endswith("not resized")


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
    found = notes(mask, context)
    assert expected in found and bool(expected) == bool(found)


def test_the_text_names_every_region_once() -> None:
    mask = mask_of((10, 10, 50, 50), (700, 400, 800, 500))
    text = "\n".join(lines(planned(mask, CropContext(64, 2.0))))
    assert "900 x 600 px" in text and "2 regions" in text
    assert text.count("region 1:") == text.count("region 2:") == 1
    assert "80 px square" in text and "200 px square" in text


def test_no_zoom_at_all_is_refused() -> None:
    with pytest.raises(ValueError, match="zoom 0"):
        rois_around(mask_of((1, 1, 9, 9)), CropContext(64, zoom=0))


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
