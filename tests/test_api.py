"""The library is a way in beside the scripts, with the same results."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

import ldm
from ldm.api import MINI, LearnedObject, Model
from ldm.config.schema import load_config
from ldm.data.picture import read_picture
from scripts import inference

ROOT = Path(__file__).parents[1]
SCENES = ROOT / "examples" / "scenes"
TABLE, MASK = SCENES / "table.jpg", SCENES / "table_mask.png"
FEW = ("train.max_steps=2", "train.batch_size=2", "train.cached_samples=0", "train.precision=32-true",
       "sample.steps=2")  # fmt: skip


@pytest.fixture(scope="module")
def model() -> Model:
    return ldm.load(ROOT / "configs" / "mini.yaml", *FEW, device="cpu")


@pytest.fixture(scope="module")
def learned(model: Model) -> LearnedObject:
    return ldm.learn(model, ROOT / "examples" / "objects" / "rocket_bee")


def test_importing_it_loads_no_torch() -> None:
    code = "import sys, ldm; assert 'torch' not in sys.modules; assert {'load', 'learn'} <= set(dir(ldm))"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_an_unknown_name_says_what_there_is() -> None:
    with pytest.raises(AttributeError, match="insert, learn, load"):
        ldm.train  # noqa: B018


def test_a_composite_is_that_of_the_script(model: Model, learned: LearnedObject, tmp_path: Path) -> None:
    file = learned.save(tmp_path / "objects" / "bee.safetensors")
    made = ldm.insert(model, file, TABLE, mask=MASK, seed=7)
    inference.main(
        ["--object", str(file), "--example_img", str(TABLE), "--mask", str(MASK), "--seed", "7",
         "--steps", "2", "--outdir", str(tmp_path), "--device", "cpu"]
    )  # fmt: skip
    scripted = read_picture(tmp_path / "table.png").pixels
    assert np.array_equal(made.picture.pixels, scripted)
    saved = read_picture(made.save(tmp_path / "own.png")).pixels
    assert np.array_equal(saved, scripted) and made.record["seed"] == 7


def test_nothing_of_the_user_s_is_replaced(model: Model, learned: LearnedObject, tmp_path: Path) -> None:
    room, other = tmp_path / "room.png", tmp_path / "other.png"
    picture = Image.new("RGB", (90, 70), "grey")
    picture.save(room)
    picture.save(other)
    composite = ldm.insert(model, learned, room, box=(10, 10, 60, 60))
    (tmp_path / "link.png").hardlink_to(room)
    for name, message in (
        ("room.png", "would be overwritten"),
        ("link.png", "would be"),
        ("other.png", "was not"),
    ):
        with pytest.raises(ValueError, match=f"{message}.*another name"):
            composite.save(tmp_path / name)
    assert room.read_bytes() == other.read_bytes()
    composite.save(tmp_path / "out.png")
    composite.save(tmp_path / "out.png")  # its own
    foreign = tmp_path / "base.safetensors"
    save_file({"x": torch.zeros(1)}, foreign)
    with pytest.raises(ValueError, match="was not written as an object file"):
        learned.save(foreign)
    learned.save(learned.save(tmp_path / "bee.safetensors"))


def test_pixels_outside_the_mask_stay_and_inside_change(model: Model, learned: LearnedObject) -> None:
    background, mask = read_picture(TABLE).pixels, read_picture(MASK).pixels[..., 0] > 127
    changed = (ldm.insert(model, learned, TABLE, mask=MASK).picture.pixels != background).any(axis=2)
    assert changed[mask].any() and not changed[~mask].any()


def test_seeds_tell_results_apart(model: Model, learned: LearnedObject) -> None:
    first, again, other = (
        ldm.insert(model, learned, TABLE, box=(300, 200, 500, 400), seed=seed).picture.pixels
        for seed in (1, 1, 2)
    )
    assert np.array_equal(first, again) and not np.array_equal(first, other)


def test_a_reference_alone_is_enough(model: Model) -> None:
    reference = ROOT / "examples" / "objects" / "rocket_bee" / "test.jpg"
    made = ldm.insert(model, None, TABLE, mask=MASK, reference=reference)
    assert made.record["regions"] and made.picture.size == read_picture(TABLE).size


def test_mistakes_name_the_remedy(model: Model, learned: LearnedObject, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="reference"):
        ldm.insert(model, None, TABLE, mask=MASK)
    with pytest.raises(ValueError, match="safetensors"):
        learned.save(tmp_path / "bee.ckpt")
    with pytest.raises(ValueError, match="max_steps"):
        ldm.learn(model, ROOT / "examples" / "objects" / "rocket_bee", max_step=3)
    with pytest.raises(ValueError, match=r"learn: devices, hold_out only for scripts/train\.py; leave out"):
        ldm.learn(model, ROOT / "examples" / "objects" / "rocket_bee", hold_out="1", devices=2)
    with pytest.raises(FileNotFoundError, match="nothing"):
        ldm.load(tmp_path / "nothing.yaml")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"box": (1, 2, 3)}, r"insert: box '\[1, 2, 3\]'; expected four numbers"),
        ({"box": "10 20 thirty 40"}, "'thirty' is not a number"),
        ({"box": np.array([10, 20, 900, 40])}, "outside the picture, which is 90 x 70 pixels"),
        ({"box": (10, 10, 60, 60), "mask": MASK}, "given twice; give one of mask and box"),
        ({}, "no mask is given; give a mask or a box"),
        ({"box": (10, 10, 60, 60), "seed": -1}, "seed -1: expected 0 to"),
        ({"box": (10, 10, 60, 60), "seed": 1.5}, "seed 1.5; expected a whole number"),
    ],
)
def test_a_region_or_seed_that_is_none_is_one_line(tmp_path: Path, given: dict, message: str) -> None:
    Image.new("RGB", (90, 70), "grey").save(tmp_path / "room.png")
    unloaded: Any = None  # it is refused before the model is used
    model, room = Model(load_config(MINI), unloaded, "cpu"), tmp_path / "room.png"
    with pytest.raises(ValueError, match=message) as error:
        ldm.insert(model, None, room, reference=room, **given)
    assert "\n" not in str(error.value)
