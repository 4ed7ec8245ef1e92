"""The inference script as a user calls it, on a small random base: results, recipe, mistakes."""

import json
import os
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from ldm.config.inference_cli import parse, parse_replay
from ldm.config.process import run, warnings_in_a_line
from ldm.data.files import locked_folder
from ldm.data.picture_write import embedded_text
from ldm.insertion.object_source import extracted
from ldm.merge.merge import merge, merge_input
from ldm.merge.merged_file import save_merged
from ldm.models.base import save_base
from ldm.models.runtime import threads
from ldm.objects.delta import save
from scripts import inference
from tests.fixtures.objects import learnt
from tests.fixtures.small import SMALL_IMAGES, YAML, small_base

BOXED = ["--example_img", "a.png", "--box", "1", "1", "9", "9"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("inference")
    save_base(small_base(), folder / "base")
    (folder / "small.yaml").write_text(YAML.format(base=folder / "base"))
    pixels = np.random.default_rng(0).integers(0, 256, (90, 140, 3), dtype=np.uint8)
    mask = np.zeros((90, 140), np.uint8)
    mask[30:60, 50:90] = 255
    for name in ("a", "b"):
        Image.fromarray(pixels).save(folder / f"{name}.png")
        Image.fromarray(mask).save(folder / f"{name}_mask.png")
    Image.fromarray(pixels[:50, :50]).save(folder / "reference.jpg")
    (folder / "outside.txt").write_text("500 500 600 600")
    (folder / "empty.txt").write_text("9 9 1 1")
    for name in ("pictures/data", "run", "pipeline/unet"):
        (folder / name).mkdir(parents=True)
    (folder / "run/config.yaml").write_text("# settings of a training run\n")
    (folder / "loop").symlink_to("loop")
    return folder


def main(words: list[str]) -> None:
    """The script as `run` starts it, but errors are raised."""
    with warnings_in_a_line():
        inference.main(words)


def call(folder: Path, *arguments: str) -> None:
    common = ["--config", str(folder / "small.yaml"), "--steps", "2", "--device", "cpu"]
    main([*common, "--reference", str(folder / "reference.jpg"), *arguments])


def test_composites_recipe_and_sheet(folder: Path, tmp_path: Path) -> None:
    images = [str(folder / "a.png"), str(folder / "b.png")]
    masks = [str(folder / "a_mask.png"), str(folder / "b_mask.png")]
    call(folder, "--example_img", *images, "--mask", *masks, "--n_samples", "2", "--outdir", str(tmp_path))
    names = sorted(file.name for file in tmp_path.iterdir())
    assert names == ["a_321.png", "a_322.png", "b_321.png", "b_322.png", "results.jsonl", "sheet.png"]
    before, after = np.asarray(Image.open(images[0])), np.asarray(Image.open(tmp_path / "a_322.png"))
    inside = np.asarray(Image.open(masks[0])) > 127
    assert (before[~inside] == after[~inside]).all() and (before[inside] != after[inside]).any()
    recipe = json.loads(embedded_text(tmp_path / "a_322.png")["recipe"])
    assert recipe["seed"] == 322 and recipe["settings"]["sample"]["steps"] == 2
    assert recipe["background"] == images[0] and len(recipe["base_fingerprint"]) == 16


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--example_img", "a.png"], "--mask"),
        (
            ["--example_img", "a.png", "--box", "1", "1", "9", "9", "--best_of", "2", "--n_samples", "2"],
            "best_of=2",
        ),
        ([], "expected one of --example_img"),
        (["--example_img", "a.png", "--manifest", "w.csv"], "expected one of --example_img"),
        (["--manifest", "w.csv", "--box", "1", "1", "9", "9"], "into each line"),
        (["--scene", "s.yaml"], "--reference does not go with --scene"),
        (["--manifest", "w.csv"], "no such manifest"),
        (["--bench", "nowhere"], "expected a test bench"),
        (["--example_img", "a.png", "a.png", "--box", "1", "1", "9", "9"], "two pictures"),
        (["--example_img", "gone.png", "--box", "1", "1", "9", "9"], "gone.png"),
        (["--example_img", "a.png", "--box", "1", "1", "999", "9"], "box"),
        (["--example_img", "a.png", "--mask", "reference.jpg"], "same size"),
        (["--example_img", "a.png", "--box", "-5", "1", "9", "9"], "inside it is 0 1 9 9"),
        (["--example_img", "a.png", "--box", "nan", "1", "9", "9"], "'nan' is not a number"),
        (
            ["--example_img", "a.png", "--box", "60", "50", "9", "9"],
            "9 9 60 50 (swapped corners) or 60 50 69",
        ),
        ([*BOXED, "--seed", "1.5"], "sample.seed=1.5: expected a whole number"),
        ([*BOXED, "--seed", "-1"], "sample.seed=-1: expected 0 to"),
        ([*BOXED, "--roi", "gone.txt"], "gone.txt: no such box file"),
        ([*BOXED, "--device", "tpu"], "--device tpu: this machine has cpu"),
        ([*BOXED, "--roi", "outside.txt"], "cuts off a part of the mask"),
        (
            [*BOXED, "--roi", "empty.txt"],
            "is 1 1 9 9 (swapped corners) or 9 9 10 10 (x y width height) or",
        ),
        ([*BOXED, "--roi_factor", "0.5"], "context of factor 0.5 cuts the mask; give 1 or more"),
        ([*BOXED, "--second_pass", "2"], "sample.second_pass=2: expected 0 to 1"),
        ([*BOXED, "--guidance_scale", "-1"], "guidance_scale=-1: expected 0 or more"),
        (
            [*BOXED, "--seed", str(2**70)],
            "sample.seed=1180591620717411303424: expected 0 to 9223372036854775807",
        ),
        ([*BOXED, "--pick", "x"], "--pick x: the object is no merged file; leave it out"),
        (
            ["--example_img", "a.png", "--box", "1", "1", "9", "9", "--object", "no.safetensors"],
            "no.safetensors",
        ),
        ([*BOXED, "--object", "."], " is no folder of a run; give an object file"),
        ([*BOXED, "--object", "base"], "base is a base's checkpoint; give it as --base, and the object as"),
        ([*BOXED, "--config", "loop"], "loop"),
        ([*BOXED, "--object", "run"], "no such file; write it: bash get_deltas.sh --path "),
        (
            [*BOXED, "--object", "pictures"],
            "pictures is an object folder, of pictures; learn it: bash train.sh",
        ),
        ([*BOXED, "--reference", "pictures"], "pictures is a folder; give a picture file"),
        ([*BOXED, "--base", "pipeline"], "pipeline holds no .safetensors file"),
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


def test_a_folder_of_results_that_is_a_file_is_a_mistake(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = folder / "a.png"
    with pytest.raises(SystemExit) as exit_:
        run(lambda: call(folder, "--example_img", str(file), *BOXED[2:], "--outdir", str(file)))
    error = capsys.readouterr().err.strip()
    assert exit_.value.code == 2 and "a.png is a file, not a folder" in error and "\n" not in error


def test_a_plan_is_drawn_and_printed_and_wrong_polarity_is_a_line_on_stderr(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image, mask = str(folder / "a.png"), str(folder / "a_mask.png")
    call(folder, "--example_img", image, "--mask", mask, "--invert", "--plan", "--outdir", str(tmp_path))
    out, error = capsys.readouterr()
    assert "140 x 90 px, 90.5% masked, 1 region" in out and "region 1:" in out
    assert error.startswith("warning: ") and "invert the mask" in error and error.count("\n") == 1
    drawing = np.asarray(Image.open(tmp_path / "a_plan.png"))
    assert drawing.shape == (90, 140, 3) and [file.name for file in tmp_path.iterdir()] == ["a_plan.png"]


def test_a_folder_is_what_a_viewer_shows_and_the_rest_is_counted_and_named(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    image = Image.open(folder / "a.png")
    (tmp_path / "img").mkdir()
    kinds = {"c.bmp": None, "d.gif": None, "e.avif": None, "f.jfif": "JPEG", "g.JPE": "JPEG", "h.PNG": None}
    for name, kind in kinds.items():
        image.save(tmp_path / "img" / name, kind)
    (tmp_path / "img/i.heic").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")
    for name in ("j.tga", ".DS_Store", "._h.PNG", "Thumbs.db"):
        (tmp_path / "img" / name).write_bytes(b"no picture")
    work = ["--example_img", str(tmp_path / "img"), "--mask", str(folder / "a_mask.png"), "--plan"]
    with pytest.raises(SystemExit) as stop:
        call(folder, *work, "--outdir", str(tmp_path / "out"))
    names = sorted(file.name for file in (tmp_path / "out").iterdir())
    assert stop.value.code == 12 and names == [f"{name}_plan.png" for name in "cdefgh"]
    error = capsys.readouterr().err
    assert "skipped j: " in error and "j.tga: not a readable picture" in error
    assert "skipped i: " in error and "i.heic: HEIC needs the extra `heic`" in error


def test_boxes_and_regions_are_read_however_they_are_written(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    (tmp_path / "bom.txt").write_text("50 30 90 60\r\n", "utf-8-sig")
    (tmp_path / "bom.json").write_text("[[50, 30], [90, 30], [90, 60], [50, 60]]", "utf-8-sig")
    (tmp_path / "semi.csv").write_text("background;box\r\na.png;50,0 30,0 90,0 60,0\r\n", "utf-8-sig")
    Image.open(folder / "a.png").save(tmp_path / "a.png")
    shares = ["0.3571429", "0.3333333", "0.6428571", "0.6666667"]
    boxes = [["50", "30", "90", "60"], ["50,30,90,60"], ["50;", "30;", "90;", "60"], shares]
    ways = [["--example_img", "a.png", "--box", *box] for box in boxes]
    ways += [["--example_img", "a.png", "--mask", str(tmp_path / f"bom.{kind}")] for kind in ("txt", "json")]
    ways += [["--manifest", str(tmp_path / "semi.csv")]]
    plans = []
    for way in ways:
        call(folder, *way, "--plan", "--outdir", str(tmp_path / "out"))
        plans.append(capsys.readouterr().out)
    assert len(set(plans)) == 1 and "1 region" in plans[0]


def test_a_manifest_goes_on_after_a_bad_item_and_says_how_many(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = folder / "work.csv"
    manifest.write_text(
        "background,box,name\na.png,50 30 90 60,one\ngone.png,1 1 9 9,two\nb.png,1 1 999 9,three\n"
    )
    arguments = ["--manifest", str(manifest), "--outdir", str(tmp_path), "--no-contact_sheet"]
    for again in (False, True):
        with pytest.raises(SystemExit) as exit_:
            call(folder, *arguments)
        out, error = capsys.readouterr()
        assert exit_.value.code == 12 and ("exists already" in out) == again
        assert "skipped two: " in error and "gone.png" in error and "2 skipped, 1 done" in error
    assert sorted(file.name for file in tmp_path.iterdir()) == ["one.png", "results.jsonl"]
    with pytest.raises(SystemExit):
        call(folder, *arguments, "--plan")
    assert "2 skipped, 1 done" in capsys.readouterr().err


def test_a_seam_above_the_limit_fails_the_run_and_is_kept(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = ["--example_img", str(folder / "a.png"), "--box", "50", "30", "90", "60"]
    with pytest.raises(SystemExit) as exit_:
        call(folder, *image, "--max-seam", "0.001", "--outdir", str(tmp_path))
    assert exit_.value.code == 1 and (tmp_path / "a.png").exists()
    assert "error: the seam of a.png" in capsys.readouterr().err
    row = json.loads((tmp_path / "results.jsonl").read_text())
    assert row["outside"] == 0 and row["seam"] > 0 and row["regions"] and row["seconds"] > 0


def test_the_best_of_several_is_kept_with_all_scores(folder: Path, tmp_path: Path) -> None:
    image = ["--example_img", str(folder / "a.png"), "--box", "50", "30", "90", "60"]
    call(folder, *image, "--best_of", "3", "--outdir", str(tmp_path))
    assert sorted(f.name for f in tmp_path.iterdir()) == ["a.png", "candidates", "results.jsonl", "sheet.png"]
    row = json.loads((tmp_path / "results.jsonl").read_text())
    assert {c["seed"] for c in row["candidates"]} == {321, 322, 323} and row["best_of"] == 3
    assert row["seed"] == row["candidates"][0]["seed"] and row["batch"] == [321, 322, 323]
    assert row["scores"]["score"] == max(c["score"] for c in row["candidates"])
    assert Image.open(tmp_path / "candidates" / "a.png").width > 3 * 256


def test_the_comparison_shows_the_base_before_learning_and_the_object(folder: Path, tmp_path: Path) -> None:
    save(learnt(small_base(), size=0.5), tmp_path / "toy.safetensors")
    image = ["--example_img", str(folder / "a.png"), "--box", "50", "30", "90", "60"]
    common = ["--config", str(folder / "small.yaml"), "--steps", "2", "--device", "cpu", *image]
    given = ["--object", str(tmp_path / "toy.safetensors"), "--compare", "--outdir", str(tmp_path / "out")]
    main([*common, *given])
    sheet = np.asarray(Image.open(tmp_path / "out" / "comparison.png"))
    mask, before, after = (sheet[28:284, 6 + i * 262 :][:, :256].astype(int) for i in range(3))
    assert sheet.shape[1] == 6 + 3 * 262  # this base has no composite to start from
    assert np.abs(before - mask).max() > 20 and np.abs(after - before).max() > 20
    edge = np.s_[:20]  # outside the mask
    assert np.abs(before[edge] - mask[edge]).max() <= 1 and np.abs(after[edge] - mask[edge]).max() <= 1
    with pytest.raises(ValueError, match="not a reference alone"):
        call(folder, *image, "--compare", "--outdir", str(tmp_path / "none"))
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("flags", [["--best_of", "2"], ["--compare"]])
def test_a_merged_file_without_a_picture_is_named_before_the_work(
    folder: Path, tmp_path: Path, flags: list[str]
) -> None:
    base, file = small_base(), tmp_path / "both.safetensors"
    save_merged(merge([merge_input(base, learnt(base, 1), "bee", SMALL_IMAGES)])[0], file)
    words = ["--config", str(folder / "small.yaml"), "--steps", "2", "--device", "cpu", *flags, *BOXED[2:]]
    words += [
        "--example_img",
        str(folder / "a.png"),
        "--object",
        str(file),
        "--outdir",
        str(tmp_path / "out"),
    ]
    with pytest.raises(
        ValueError, match=r"both\.safetensors: has no reference picture .*--dataset-dir FOLDER"
    ):
        main(words)
    assert not (tmp_path / "out").exists()


def test_the_comparison_leaves_out_what_was_skipped(folder: Path, tmp_path: Path) -> None:
    save(learnt(small_base(), size=0.5), tmp_path / "toy.safetensors")
    for name in ("a", "b"):
        (tmp_path / "in").mkdir(exist_ok=True)
        (tmp_path / f"in/{name}.png").write_bytes((folder / f"{name}.png").read_bytes())
    words = ["--config", str(folder / "small.yaml"), "--steps", "2", "--device", "cpu", "--compare"]
    words += ["--example_img", str(tmp_path / "in"), "--box", "50", "30", "90", "60"]
    words += ["--object", str(tmp_path / "toy.safetensors"), "--outdir", str(tmp_path / "out")]
    main(words)
    both = Image.open(tmp_path / "out/comparison.png").height
    (tmp_path / "in/b.png").write_bytes(b"broken")
    with pytest.raises(SystemExit) as stop:
        main(words)
    assert stop.value.code == 11 and Image.open(tmp_path / "out/comparison.png").height < both


def replay(folder: Path, *arguments: str) -> int:
    """The exit code."""
    with pytest.raises(SystemExit) as exit_:
        run(lambda: main(["--config", str(folder / "small.yaml"), *arguments]))
    return int(exit_.value.code or 0)


def test_replay_makes_the_same_pixels(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pixels = np.random.default_rng(5).integers(0, 256, (90, 140, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "c.png")
    work = ["--example_img", str(tmp_path / "c.png"), "--box", "50", "30", "90", "60", "--grow", "2"]
    call(folder, *work, "--n_samples", "2", "--guidance_scale", "3", "--outdir", str(tmp_path / "out"))
    file = tmp_path / "out" / "c_322.png"
    assert replay(folder, "--replay", str(file)) == 0
    assert "the same pixels" in capsys.readouterr().out
    again = tmp_path / "out" / "c_322_replay.png"
    assert (np.asarray(Image.open(again)) == np.asarray(Image.open(file))).all()
    assert embedded_text(again) == embedded_text(file)

    assert replay(folder, "--replay", str(folder / "a.png")) == 2
    assert "a.png: has no recipe" in capsys.readouterr().err
    assert replay(folder, "--replay", str(file), "--guidance_scale", "4") == 2
    assert "give only --base" in capsys.readouterr().err
    torch.manual_seed(1)
    save_base(small_base(1), tmp_path / "other")
    assert replay(folder, "--replay", str(file), "--base", str(tmp_path / "other")) == 2
    assert "was made with the base" in capsys.readouterr().err
    pixels[0, 0, 0] ^= 1
    Image.fromarray(pixels).save(tmp_path / "c.png")
    assert replay(folder, "--replay", str(file)) == 2
    assert "this background has changed" in capsys.readouterr().err


@pytest.mark.parametrize(("made_on", "taken"), [("cuda:1", "cuda"), ("cuda:0", "cuda:0"), ("cpu", "cpu")])
def test_a_replay_takes_the_device_of_the_result_if_there_is_one(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, made_on: str, taken: str
) -> None:
    call(folder, "--example_img", str(folder / "a.png"), "--mask", str(folder / "a_mask.png"),
         "--outdir", str(tmp_path))  # fmt: skip
    recipe, text = json.loads(embedded_text(tmp_path / "a.png")["recipe"]), PngInfo()
    recipe["machine"]["device"] = made_on
    text.add_text("recipe", json.dumps(recipe))
    Image.open(tmp_path / "a.png").save(tmp_path / "other.png", pnginfo=text)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    words = ["--config", str(folder / "small.yaml"), "--replay", str(tmp_path / "other.png")]
    args, _ = parse(words, "")
    parse_replay(words, args, "")
    assert args.device == taken


def test_a_replay_has_the_threads_of_the_result_only_while_it_lasts(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = torch.get_num_threads()
    with threads(before + 1):
        call(folder, "--example_img", str(folder / "a.png"), "--mask", str(folder / "a_mask.png"),
             "--outdir", str(tmp_path))  # fmt: skip
    assert replay(folder, "--replay", str(tmp_path / "a.png")) == 0
    out = capsys.readouterr()
    assert "the same pixels" in out.out and "another machine" not in out.err
    assert torch.get_num_threads() == before


def test_a_scene_is_planned_made_and_known(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scene = tmp_path / "room.yaml"
    boxes = ("[10, 10, 40, 40]", "[30, 30, 60, 60], order: 1")
    lines = [f"- {{reference: {folder / 'reference.jpg'}, box: {box}}}" for box in boxes]
    scene.write_text("\n".join([f"background: {folder / 'a.png'}", "placements:", *lines]))
    common = [
        "--config",
        str(folder / "small.yaml"),
        "--steps",
        "2",
        "--device",
        "cpu",
        "--scene",
        str(scene),
    ]
    main([*common, "--plan", "--outdir", str(tmp_path / "plan")])
    assert [file.name for file in (tmp_path / "plan").iterdir()] == ["room_plan.png"]
    for again in (False, True):
        main([*common, "--outdir", str(tmp_path / "out")])
        assert ("room_2: unchanged, from the cache" in capsys.readouterr().out) == again
    before, after = (
        np.asarray(Image.open(folder / "a.png")),
        np.asarray(Image.open(tmp_path / "out/room.png")),
    )
    inside = np.zeros((90, 140), bool)
    inside[10:40, 10:40] = inside[30:60, 30:60] = True
    assert (before[~inside] == after[~inside]).all() and (before[inside] != after[inside]).any()
    assert replay(folder, "--replay", str(tmp_path / "out" / "room.png"), "--outdir", str(tmp_path)) == 0
    assert (np.asarray(Image.open(tmp_path / "room_replay.png")) == after).all()

    scene.write_text(scene.read_text().replace(", order: 1", ""))
    with pytest.raises(ValueError, match="overlap in 100 pixels"):
        main([*common, "--outdir", str(tmp_path / "none"), "--base", "nowhere"])
    with pytest.raises(ValueError, match="--mask_channel background does not go with --scene"):
        main([*common, "--outdir", str(tmp_path / "none"), "--mask_channel", "background"])
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("names", "arguments", "lost"),
    [
        ((), ["--example_img", "a.png", "--mask", "a_mask.png"], "a.png would be overwritten"),
        ((), ["--example_img", "a.png", "--mask", "a_mask.png", "--plan"], ""),
        (("b.jpg",), ["--example_img", "b.jpg", "--mask", "b.png"], "b.png would be overwritten"),
        (("sheet.png",), ["--example_img", "sheet.png", "--mask", "a_mask.png"], "sheet.png would be"),
        (("c.jpg", "c.png"), ["--example_img", "c.jpg", *BOXED[2:]], "c.png was not written by this program"),
        (("c.jpg", "c_plan.png"), ["--example_img", "c.jpg", *BOXED[2:], "--plan"], "c_plan.png was not"),
        (("c.jpg", "sheet.png"), ["--example_img", "c.jpg", *BOXED[2:]], "sheet.png was not written"),
        (("c.jpg", "sheet.png"), ["--example_img", "c.jpg", *BOXED[2:], "--no-contact_sheet"], ""),
    ],
)
def test_no_input_and_no_foreign_picture_is_overwritten(
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    names: tuple[str, ...],
    arguments: list[str],
    lost: str,
) -> None:
    for name in ("a.png", "b.png", "a_mask.png"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    for name in names:
        Image.open(folder / "a.png").convert("RGB").save(tmp_path / name)
    before = {file: file.read_bytes() for file in tmp_path.iterdir()}
    monkeypatch.chdir(tmp_path)
    if not lost:
        call(folder, *arguments, "--outdir", str(tmp_path))
        call(folder, *arguments, "--outdir", str(tmp_path))  # its own results it may write again
    else:
        with pytest.raises(SystemExit) as stop:
            run(lambda: call(folder, *arguments, "--outdir", str(tmp_path)))
        message = capsys.readouterr().err
        assert stop.value.code == 2 and lost in message and "--outdir" in message and message.count("\n") == 1
        assert set(tmp_path.iterdir()) == set(before)
    assert {file: file.read_bytes() for file in before} == before


@pytest.mark.parametrize(("name", "flags"), [("sheet", []), ("comparison", ["--compare"])])
def test_no_result_has_the_name_of_a_sheet(folder: Path, tmp_path: Path, name: str, flags: list[str]) -> None:
    (tmp_path / f"{name}.png").write_bytes((folder / "a.png").read_bytes())
    work = ["--example_img", str(tmp_path / f"{name}.png"), *BOXED[2:], "--outdir", str(tmp_path / "out")]
    with pytest.raises(ValueError, match=rf"two pictures of this run would be called .*out/{name}\.png"):
        call(folder, *work, *flags)
    assert not (tmp_path / "out").exists()


def test_two_plans_of_one_name_are_refused(folder: Path, tmp_path: Path) -> None:
    lines = [f"{folder / 'a.png'},{9 * i} 9 {40 + 9 * i} 40,{5 * i}" for i in (0, 1)]
    (tmp_path / "m.csv").write_text("\n".join(["background,box,seed", *lines]))
    work = ["--manifest", str(tmp_path / "m.csv"), "--n_samples", "2", "--outdir", str(tmp_path / "out")]
    with pytest.raises(ValueError, match=r"two pictures of this run would be called .*out/a_plan\.png"):
        call(folder, *work, "--plan")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("flags", [[], ["--plan"]])
def test_results_do_not_join_the_backgrounds(folder: Path, tmp_path: Path, flags: list[str]) -> None:
    (tmp_path / "a.png").write_bytes((folder / "a.png").read_bytes())
    with pytest.raises(
        ValueError, match=r"--outdir .* is read as a folder of inputs.*; give another --outdir"
    ):
        call(
            folder,
            "--example_img",
            str(tmp_path),
            *BOXED[2:],
            "--outdir",
            f"{tmp_path}/../{tmp_path.name}",
            *flags,
        )
    assert [file.name for file in tmp_path.iterdir()] == ["a.png"]


@pytest.mark.parametrize("kind", ["picture", "file"])
def test_candidates_of_another_program_stay(folder: Path, tmp_path: Path, kind: str) -> None:
    mine = tmp_path / ("candidates/a.png" if kind == "picture" else "candidates")
    mine.parent.mkdir(exist_ok=True)
    mine.write_bytes((folder / "b.png").read_bytes())
    work = ["--example_img", str(folder / "a.png"), *BOXED[2:], "--best_of", "2", "--outdir", str(tmp_path)]
    message = r"a\.png was not written by this program" if kind == "picture" else "is a file, not a folder"
    with pytest.raises(ValueError, match=f"candidates.*{message}"):
        call(folder, *work)
    assert mine.read_bytes() == (folder / "b.png").read_bytes()
    assert [file for file in tmp_path.rglob("*") if file.is_file()] == [mine]


@pytest.mark.parametrize(
    "log",
    [
        "a line of mine",
        '{"background": "in/a.png", "box": [1, 1, 9, 9]}',
        "[]\n[]\n",
        '{"file": "a.png", "key": 3}\n',
    ],
)
def test_a_results_log_of_another_program_stays(folder: Path, tmp_path: Path, log: str) -> None:
    (tmp_path / "results.jsonl").write_text(log)
    work = ["--example_img", str(folder / "a.png"), "--box", "9", "9", "40", "40", "--outdir", str(tmp_path)]
    with pytest.raises(
        ValueError, match=r"results\.jsonl(: line 1 is no result of| was not written by) this program"
    ):
        call(folder, *work)
    if "background" in log:
        (tmp_path / "in").mkdir()
        (tmp_path / "in/a.png").write_bytes((folder / "a.png").read_bytes())
        with pytest.raises(
            ValueError, match=r"results\.jsonl: the results log of this run has the same name"
        ):
            call(folder, "--manifest", str(tmp_path / "results.jsonl"), "--outdir", str(tmp_path))
    assert (tmp_path / "results.jsonl").read_text() == log


def test_a_results_log_that_is_a_folder_is_named_before_the_work(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "results.jsonl").mkdir()
    work = ["--example_img", str(folder / "a.png"), "--box", "9", "9", "40", "40", "--outdir", str(tmp_path)]
    with pytest.raises(ValueError, match=r"results\.jsonl was not written by this program"):
        call(folder, *work)
    os.mkfifo(tmp_path / "a.png")
    with pytest.raises(ValueError, match=r"a\.png was not written by this program"):
        call(folder, *work)
    assert {file.name for file in tmp_path.iterdir()} == {"a.png", "results.jsonl"}


@pytest.mark.parametrize(("key", "text"), [("software", "GIMP"), ("recipe", "soup"), ("recipe", '["soup"]')])
def test_a_mark_of_another_program_is_no_mark(folder: Path, tmp_path: Path, key: str, text: str) -> None:
    about = PngInfo()
    about.add_text(key, text)
    Image.new("RGB", (9, 9)).save(tmp_path / "a.png", pnginfo=about)
    work = ["--example_img", str(folder / "a.png"), "--box", "9", "9", "40", "40", "--outdir", str(tmp_path)]
    with pytest.raises(ValueError, match=r"a\.png was not written by this program"):
        call(folder, *work)


def test_an_object_file_that_is_older_than_its_run_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_folder = tmp_path / "my mug"
    save(learnt(small_base()), run_folder / "my mug.safetensors")  # of step 0
    last, older = run_folder / "checkpoints/step-000020.ckpt", "is older than step-000020.ckpt of its run"
    last.parent.mkdir()
    last.touch()
    (run_folder / "config.yaml").touch()
    for changed, told in ((-9, False), (9, True)):
        os.utime(last, (time.time() + changed,) * 2)
        with warnings_in_a_line():
            assert extracted(run_folder, (".safetensors", ".ckpt")) == run_folder / "my mug.safetensors"
        output = capsys.readouterr().err
        assert (older in output) is (f"bash get_deltas.sh --path '{run_folder}'\n" in output) is told


@pytest.mark.parametrize("part", ["", "data", "mask"])
def test_results_do_not_go_into_an_object_folder(folder: Path, tmp_path: Path, part: str) -> None:
    for name in ("data", "bbox"):
        (tmp_path / "o" / name).mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "o")
    work = ["--example_img", str(folder / "a.png"), "--box", "9", "9", "40", "40", "--outdir"]
    with pytest.raises(ValueError, match="o is an object folder"):
        call(folder, *work, str(tmp_path / "link" / part))


def test_a_replay_overwrites_no_foreign_picture(folder: Path, tmp_path: Path) -> None:
    call(folder, "--example_img", str(folder / "a.png"), "--mask", str(folder / "a_mask.png"),
         "--outdir", str(tmp_path))  # fmt: skip
    foreign = tmp_path / "a_replay.png"
    foreign.write_bytes((folder / "b.png").read_bytes())
    with pytest.raises(ValueError, match=r"a_replay\.png was not written by this program"):
        main(["--replay", str(tmp_path / "a.png"), "--outdir", str(tmp_path)])
    assert foreign.read_bytes() == (folder / "b.png").read_bytes()


def test_specks_change_nothing_and_are_counted(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Stray pixels near a mask and far from it: the result is that of the clean mask, in a scene, too."""
    dirty = np.array(Image.open(folder / "a_mask.png"))
    dirty[3, 135] = dirty[58:60, 95] = 255
    Image.fromarray(dirty).save(tmp_path / "a_mask.png")
    for name, mask in (("clean", folder / "a_mask.png"), ("dirty", tmp_path / "a_mask.png")):
        call(folder, "--example_img", str(folder / "a.png"), "--mask", str(mask), "--outdir",
             str(tmp_path / name))  # fmt: skip
        scene = {"background": str(folder / "a.png"),
                 "placements": [{"mask": str(mask), "reference": str(folder / "reference.jpg")}]}  # fmt: skip
        (tmp_path / f"{name}.yaml").write_text(json.dumps(scene))
        work = ["--scene", str(tmp_path / f"{name}.yaml"), "--outdir", str(tmp_path / name)]
        main(["--config", str(folder / "small.yaml"), "--steps", "2", "--device", "cpu", *work])
    error = capsys.readouterr().err
    assert error.count("a_mask.png: 2 specks are not counted") == 2
    for clean, dirty_ in (("clean/a.png", "dirty/a.png"), ("clean/clean.png", "dirty/dirty.png")):
        pictures = [np.asarray(Image.open(tmp_path / name)) for name in (clean, dirty_)]
        assert np.array_equal(*pictures)


def test_what_a_plan_warns_of_is_said_in_the_run(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mask = np.zeros((90, 140), np.uint8)
    mask[40, 60] = 255
    Image.fromarray(mask).save(tmp_path / "dot.png")
    where = ["--example_img", str(folder / "a.png"), "--mask", str(tmp_path / "dot.png")]
    for box in (where, ["--example_img", str(folder / "a.png"), "--box", "60", "40", "61", "41"]):
        call(folder, *box, "--outdir", str(tmp_path / f"out{len(box)}"))
        assert "warning: a: the mask is 1 px for the model, too small" in capsys.readouterr().err


def test_a_huge_reference_costs_its_own_item(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.new("1", (14000, 13000)).save(tmp_path / "poster.png")
    (tmp_path / "work.csv").write_text(
        f"background,box,reference,name\n{folder}/a.png,50 30 90 60,poster.png,one\n"
        f"{folder}/a.png,50 30 90 60,{folder}/reference.jpg,two\n"
    )
    with pytest.raises(SystemExit) as exit_:
        call(folder, "--manifest", str(tmp_path / "work.csv"), "--outdir", str(tmp_path / "out"))
    error = capsys.readouterr().err
    assert exit_.value.code == 11 and (tmp_path / "out/two.png").is_file()
    assert "poster.png: 182 megapixels are too many; give a smaller picture" in error


def test_a_result_folder_has_one_writer(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [
        "--example_img",
        str(folder / "a.png"),
        "--box",
        "40",
        "20",
        "80",
        "60",
        "--outdir",
        str(tmp_path),
    ]
    with locked_folder(tmp_path, ""), pytest.raises(SystemExit) as stop:
        run(lambda: call(folder, *words))
    assert stop.value.code == 2 and "is being written by process" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
    call(folder, *words)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.png", "results.jsonl", "sheet.png"]


def test_a_name_of_255_bytes_gets_results(folder: Path, tmp_path: Path) -> None:
    long = tmp_path / ("a" * 251 + ".png")
    long.write_bytes((folder / "a.png").read_bytes())
    words = ["--box", "40", "20", "80", "60", "--n_samples", "2", "--outdir", str(tmp_path / "out")]
    call(folder, "--example_img", str(long), *words)
    assert len(list((tmp_path / "out").glob("aaa*_32[12].png"))) == 2
