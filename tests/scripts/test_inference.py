"""The inference script as a user calls it, on a tiny random base: results, recipe, mistakes."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ldm.config import run
from ldm.data.save import read_text
from ldm.models.base import Base, save_base
from scripts import inference
from tests.fixtures.tiny import TINY, config_file


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("inference")
    torch.manual_seed(0)
    save_base(Base(TINY), folder / "base")
    config_file(folder / "tiny.yaml", folder / "base")
    pixels = np.random.default_rng(0).integers(0, 256, (90, 140, 3), dtype=np.uint8)
    mask = np.zeros((90, 140), np.uint8)
    mask[30:60, 50:90] = 255
    for name in ("a", "b"):
        Image.fromarray(pixels).save(folder / f"{name}.png")
        Image.fromarray(mask).save(folder / f"{name}_mask.png")
    Image.fromarray(pixels[:50, :50]).save(folder / "reference.jpg")
    return folder


def call(folder: Path, *arguments: str) -> None:
    common = ["--config", str(folder / "tiny.yaml"), "--steps", "2", "--device", "cpu"]
    inference.main([*common, "--reference", str(folder / "reference.jpg"), *arguments])


def test_composites_recipe_and_sheet(folder: Path, tmp_path: Path) -> None:
    images = [str(folder / "a.png"), str(folder / "b.png")]
    masks = [str(folder / "a_mask.png"), str(folder / "b_mask.png")]
    call(folder, "--example_img", *images, "--mask", *masks, "--n_samples", "2", "--outdir", str(tmp_path))
    names = sorted(file.name for file in tmp_path.iterdir())
    assert names == ["a_321.png", "a_322.png", "b_321.png", "b_322.png", "sheet.png"]
    before, after = np.asarray(Image.open(images[0])), np.asarray(Image.open(tmp_path / "a_322.png"))
    inside = np.asarray(Image.open(masks[0])) > 127
    assert (before[~inside] == after[~inside]).all() and (before[inside] != after[inside]).any()
    recipe = json.loads(read_text(tmp_path / "a_322.png")["recipe"])
    assert recipe["seed"] == 322 and recipe["settings"]["sample"]["steps"] == 2
    assert recipe["background"] == images[0] and len(recipe["base_fingerprint"]) == 16


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--example_img", "a.png"], "--mask"),
        (["--example_img", "gone.png", "--box", "1", "1", "9", "9"], "gone.png"),
        (["--example_img", "a.png", "--box", "1", "1", "999", "9"], "box"),
        (["--example_img", "a.png", "--mask", "reference.jpg"], "same size"),
        (
            ["--example_img", "a.png", "--box", "1", "1", "9", "9", "--object", "no.safetensors"],
            "no.safetensors",
        ),
        (["--example_img", "a.png", "--box", "1", "1", "9", "9", "--sampler", "plsm"], "plms"),
        (["--example_img", "a.png", "--box", "1", "1", "9", "9", "--stepz", "3"], "--steps"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing(
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(folder)
    with pytest.raises(SystemExit) as exit_:
        run(lambda: call(folder, *arguments, "--outdir", str(tmp_path)))
    error = capsys.readouterr().err.strip()
    assert exit_.value.code == 2 and message in error and len(error.splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_a_plan_is_drawn_and_printed_and_wrong_polarity_is_a_line_on_stderr(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image, mask = str(folder / "a.png"), str(folder / "a_mask.png")
    call(folder, "--example_img", image, "--mask", mask, "--invert", "--plan", "--outdir", str(tmp_path))
    out, error = capsys.readouterr()
    assert "140 x 90 px, 90.5% marked, 1 region" in out and "region 1:" in out
    assert error.startswith("warning: ") and "invert the mask" in error and error.count("\n") == 1
    drawing = np.asarray(Image.open(tmp_path / "a_plan.png"))
    assert drawing.shape == (90, 140, 3) and [file.name for file in tmp_path.iterdir()] == ["a_plan.png"]
