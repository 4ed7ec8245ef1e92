"""A reference that lies in an object folder takes its box and silhouette there; a plain folder is named."""

from __future__ import annotations

import shlex
from pathlib import Path

import numpy as np
import pytest

from ldm.batch.work_item import MaskedBackground, WorkItem
from ldm.compositing.cut_out import cut_out_of, cut_out_picture
from ldm.data.insertset import load_insertset, sample_in_folder
from ldm.data.object_crops import ObjectImages, object_crop, squash
from ldm.data.picture import read_rgb
from ldm.insertion.object_source import ObjectSource

BEE = Path(__file__).parents[2] / "examples/objects/rocket_bee"
PHOTO = BEE / "data/3.jpg"


def test_its_box_and_silhouette_are_those_of_the_folder() -> None:
    [sample] = [s for s in load_insertset(BEE).few_shot if s.image.name == "3.jpg"]
    assert sample_in_folder(PHOTO) == sample and sample.mask is not None
    assert sample_in_folder(BEE / "test.jpg") is None
    pixels = read_rgb(PHOTO)
    shown, expected = cut_out_picture(PHOTO), cut_out_of(sample, sample.boxes[0], pixels)
    assert shown.box == expected.box and np.array_equal(shown.alpha, expected.alpha)
    crop = squash(object_crop(pixels, sample.boxes[0]), 64)
    assert np.array_equal(ObjectImages(64).reference(PHOTO)[0], crop)


def test_a_result_depends_on_them() -> None:
    sources = WorkItem(
        MaskedBackground(BEE / "test.jpg", box=(1, 1, 9, 9)), ObjectSource(reference=PHOTO), (1,)
    ).sources()
    assert sources["reference_box"] == BEE / "bbox/3.txt"
    assert sources["reference_mask"] == BEE / "mask/3.png"


def test_training_on_a_plain_folder_names_the_command(tmp_path: Path) -> None:
    (folder := tmp_path / "my photos").symlink_to(BEE / "data")
    with pytest.raises(ValueError, match="a plain folder of 5 pictures") as error:
        load_insertset(folder)
    command = str(error.value).partition("make one with: ")[2]
    assert shlex.split(command) == ["bash", "prepare.sh", str(folder), "--out", f"{folder}_object"]
