"""An object in the pose of the truth: read in a line or refused in one, put exactly where it stands."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ldm.compositing.composite_fill import CompositeObject
from ldm.data.image import resize
from ldm.data.picture import Picture
from ldm.evaluation.posed import in_pose, paste_posed, read_posed
from ldm.insertion.region import InsertRequest, region_in
from ldm.insertion.roi import Roi

SIZE = (40, 60)
BOX = (20, 10, 32, 30)


@pytest.fixture()
def folder(tmp_path: Path) -> Path:
    pixels = np.zeros((20, 12, 4), np.uint8)
    pixels[:, :6] = (200, 40, 40, 255)
    Image.fromarray(pixels).save(tmp_path / "posed_0.png")
    (tmp_path / "posed.json").write_text(json.dumps({"box": BOX}))
    return tmp_path


def test_it_stands_at_its_box_in_every_region(folder: Path) -> None:
    posed = read_posed(folder, SIZE)
    assert posed is not None
    background, mask = Picture(np.full((*SIZE, 3), 90, np.uint8)), np.zeros(SIZE, bool)
    mask[8:32, 22:40] = True  # it covers the box's left side
    pasted = paste_posed(posed, background, mask).pixels
    expected = background.pixels.copy()
    expected[10:30, 22:26] = (200, 40, 40)
    assert np.array_equal(pasted, expected)

    fill = in_pose(CompositeObject(torch.rand(1, 4, 16, 16)), posed, SIZE)
    region = region_in(background, InsertRequest(mask, [Roi(16, 4, 46, 34)], [1]), 0, [])
    made = fill(region)
    assert torch.equal(made.layer[3] > 0, torch.from_numpy((expected != 90).any(2)[4:34, 16:46]))
    shown = made.shown(torch.ones(1, 1, 15, 15))
    assert shown.shape == (1, 3, 15, 15) and torch.equal(shown[0], resize(made.image[None], 15)[0])


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("posed.json", b"{}", "no place"),
        (
            "posed.json",
            b'{"box": [0, 0, 5, 5]}',
            "12 x 20 px; expected alpha, and the size of its box, 5 x 5",
        ),
        ("posed.json", b'{"box": [50, 10, 62, 30]}', "the box leaves the scene of 60 x 40 px"),
    ],
)
def test_what_does_not_fit_is_one_line(folder: Path, file: str, content: bytes, said: str) -> None:
    (folder / file).write_bytes(content)
    with pytest.raises(ValueError, match=said) as error:
        read_posed(folder, SIZE)
    assert "\n" not in str(error.value)


def test_a_scene_without_one_has_none(tmp_path: Path) -> None:
    assert read_posed(tmp_path, SIZE) is None
