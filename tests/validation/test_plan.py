"""Which picture is held out: never the reference's own, never one shown twice; and what a run plans."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from ldm.data.insertset import InsertSet, load_insertset
from ldm.features.imagenet import ImageNetFeatures
from ldm.validation.callback import choose_held_out, hold_out, plan_validation
from tests.fixtures.small import object_folder


class Hues:
    """Features of a picture: the angle of its mean colour on a circle, [2]."""

    mean = torch.zeros(1)

    of = ImageNetFeatures.of

    def pooled(self, image: Tensor) -> Tensor:
        middle = image[:, :, 100:124, 100:124].mean((2, 3))  # clear of the square's padding
        angle = (middle[:, 0] + 1) * 1.5
        return torch.stack([angle.cos(), angle.sin()], dim=1)


def toy(folder: Path, reds: list[int], reference: int) -> InsertSet:
    """Pictures 0, 1, ... of one colour each."""
    root = object_folder(folder, few_shot=len(reds))
    for i, red in enumerate(reds):
        Image.fromarray(np.full((48, 40, 3), (red, 90, 90), np.uint8)).save(root / f"data/{i}.png")
    Image.fromarray(np.full((30, 30, 3), (reference, 90, 90), np.uint8)).save(root / "test.png")
    return load_insertset(root)


@pytest.mark.parametrize(
    ("reds", "reference", "held"),
    [
        ([0, 60, 120, 180, 240], 250, "2"),  # the one in the middle
        ([0, 60, 120, 180, 230], 122, "1"),  # is the reference
        ([0, 60, 62, 120, 250], 10, "3"),  # 1 and 2 are the same
        ([0, 120, 240], 60, ""),  # too few
        ([100, 101, 102, 103], 104, ""),  # all are one picture
    ],
)
def test_the_chosen_picture(tmp_path: Path, reds: list[int], reference: int, held: str) -> None:
    assert choose_held_out(Hues(), toy(tmp_path, reds, reference)) == held  # type: ignore[arg-type]


def test_what_is_held_out_is_not_trained_on(tmp_path: Path) -> None:
    insertset = load_insertset(object_folder(tmp_path))
    training, held = hold_out(insertset, "1")
    assert [x.image.stem for x in held] == ["1"] and [x.image.stem for x in training.few_shot] == ["0", "2"]
    assert (training.same_category, training.reference) == (insertset.same_category, insertset.reference)
    assert hold_out(insertset, "") == (insertset, ())


def test_what_cannot_be_held_out_is_refused(tmp_path: Path) -> None:
    insertset = load_insertset(object_folder(tmp_path, few_shot=1))
    with pytest.raises(ValueError, match=r"hold_out '7' is no few-shot picture of .*; there are 0"):
        hold_out(insertset, "7")
    with pytest.raises(ValueError, match="leaves no few-shot picture"):
        hold_out(insertset, "0")


def plan(insertset: InsertSet, held_out: str = "auto", every: int = -1, steps: int = 800) -> tuple:
    made = plan_validation(
        insertset, held_out=held_out, every=every, max_steps=steps, samples=8, guidance_scale=5.0
    )
    return made.hold_out, made.every, len(made.training.few_shot), made.text()


def test_the_plan_of_a_run(tmp_path: Path) -> None:
    pytest.importorskip("efficientnet_lite_pytorch")
    five = load_insertset(Path("examples/objects/rocket_bee"))
    held, every, count, text = plan(five)
    assert held in {x.image.stem for x in five.few_shot} and (every, count) == (80, 4)
    assert text == f"validation every 80 steps on picture {held}, which is held out"
    assert plan(five, "none")[:3] == ("none", 80, 5)
    assert plan(five, "3", every=0) == ("3", 0, 4, "")
    assert plan(five, every=0) == ("none", 0, 5, "")
    assert plan(five, steps=5)[:3] == ("none", 0, 5) and "over 10 %" in plan(five, steps=5)[3]
    assert plan(five, steps=5, every=2)[1] == 2
    three = load_insertset(object_folder(tmp_path))
    assert plan(three)[:3] == ("none", 80, 3) and "the training pictures" in plan(three)[3]


def test_without_the_package_nothing_is_validated_or_held_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "efficientnet_lite_pytorch", None)
    held, every, count, text = plan(load_insertset(Path("examples/objects/rocket_bee")))
    assert (held, every, count) == ("none", 0, 5)
    assert text.startswith("no validation: ImageNet features need") and "\n" not in text


def test_the_example_holds_out_no_copy_of_the_reference(tmp_path: Path) -> None:
    """One of the pictures becomes the reference: it is never chosen."""
    pytest.importorskip("efficientnet_lite_pytorch")
    from ldm.features.imagenet import ImageNetFeatures

    root = tmp_path / "bee"
    shutil.copytree("examples/objects/rocket_bee", root)
    features = ImageNetFeatures()
    chosen = choose_held_out(features, load_insertset(root))
    box = [float(x) for x in (root / f"bbox/{chosen}.txt").read_text().split()[:4]]
    Image.open(root / f"data/{chosen}.jpg").crop([round(x) for x in box]).save(root / "test.jpg")
    (root / "test_mask.png").unlink()
    assert choose_held_out(features, load_insertset(root)) not in ("", chosen)
