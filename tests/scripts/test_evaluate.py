"""The evaluation as a user calls it, on a bench in miniature and a small random base."""

import json
import shutil
from pathlib import Path

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from ldm.batch.results_log import SHEET
from ldm.config.process import run
from ldm.evaluation.methods import METHODS
from ldm.evaluation.metrics import OFFLINE
from ldm.evaluation.results import Results
from ldm.models.base import save_base
from ldm.objects.delta import load
from scripts import evaluate
from tests.fixtures.bench import write_bench
from tests.fixtures.networks import write_alexnet, write_clip, write_dino
from tests.fixtures.small import YAML, small_base


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("evaluate")
    save_base(small_base(), folder / "base")
    (folder / "small.yaml").write_text(YAML.format(base=folder / "base"))
    write_bench(folder / "bench")
    return folder


def call(folder: Path, *arguments: str) -> None:
    paths = ["--config", str(folder / "small.yaml"), "--benchmark", str(folder / "bench")]
    few = [
        "--sampler",
        "ddim",
        "--steps",
        "1",
        "--max_steps",
        "1",
        "--device",
        "cpu",
        "train.accelerator=cpu",
        "train.cached_samples=3",  # more than a step draws
    ]
    evaluate.main([*paths, *few, *arguments])


def test_one_command_makes_the_table(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    call(folder, "--out", str(tmp_path), "--scenes", "s2")
    rows = {row["method"]: row for row in Results(tmp_path).rows}
    assert list(rows) == list(METHODS) and {row["object"] for row in rows.values()} == {"brick"}
    assert {row["scores"]["v2/outside"] for row in rows.values()} == {0}
    seconds = {method: row["scores"].get("v2/learning_seconds") for method, row in rows.items()}
    assert seconds["crossattn"] > 0 and seconds["crossattn-kv"] > 0 and seconds["zero-shot"] is None
    text = (tmp_path / "report.md").read_text("utf-8")
    assert all(f"| {name} |" in text for name in METHODS) and (tmp_path / "sheet.png").is_file()
    files = (tmp_path / "objects" / "bench" / "brick").glob("*.safetensors")
    narrow, wide = sorted((load(file) for file in files), key=lambda delta: len(delta.weights))
    assert (
        len(wide.weights) > len(narrow.weights)
        and wide.metadata.few_shot_count == 2
        and wide.metadata.step == 1
    )
    assert wide.metadata.recipe["train"]["max_steps"] == 1
    capsys.readouterr()

    call(folder, "--out", str(tmp_path), "--scenes", "s2", "--methods", "crossattn", "flat")
    out = capsys.readouterr().out
    measures = [json.loads(line) for line in (tmp_path / "measures.jsonl").read_text().splitlines()]
    assert [row["method"] for row in measures] == ["flat", "crossattn"]
    assert {row["scores"]["v2/outside"] for row in measures} == {0}
    assert "s2 " not in out and "| crossattn |" in out and "ceiling" not in out  # nothing made anew


@pytest.fixture(scope="module")
def filled(folder: Path) -> Path:
    """The bench, filled by two methods that need no learning."""
    call(folder, "--out", str(folder / "filled"), "--methods", "flat", "ceiling")
    return folder / "filled"


def score(folder: Path, *arguments: str) -> None:
    evaluate.main(["--config", str(folder / "small.yaml"), "--device", "cpu", *arguments])


def test_results_are_scored_by_every_protocol_against_another_run(
    folder: Path, filled: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    pytest.importorskip("sklearn", reason="needs the extra `quality`")
    mixture, clip = tmp_path / "gmm.safetensors", write_clip(tmp_path / "clip")
    backgrounds = tmp_path / "pictures"
    backgrounds.mkdir()
    for i, file in enumerate([*folder.glob("bench/scenes/*/*.png"), *filled.glob("*/*.png")]):
        shutil.copy(file, backgrounds / f"{i}.png")
    score(folder, "--fit_quality", str(backgrounds), "--out", str(mixture), "--clip", str(clip),
          "--components", "2")  # fmt: skip
    assert "not Paint-by-Example's own" in capsys.readouterr().out

    weights = ["--clip", str(clip), "--dino", str(write_dino(tmp_path / "dino"))]
    weights += ["--quality_model", str(mixture), "--alexnet", str(write_alexnet(tmp_path / "alex.pth"))]
    metrics = ["--metrics", *OFFLINE, "clip", "dino", "quality", "lpips", "clip-fid"]
    runs = ["--results", str(filled), "--against", str(filled / "flat"), "--out", str(tmp_path / "report")]
    score(folder, *runs, *metrics, *weights)
    rows = [json.loads(line) for line in (tmp_path / "report" / "measures.jsonl").read_text().splitlines()]
    assert len(rows) == 6 and all(len(row["scores"]) == len(rows[0]["scores"]) > 20 for row in rows)
    known = {(row["method"], row["name"]): row["scores"] for row in Results(filled).rows}
    for row in rows:  # the same as when it was made
        own = known[row["method"], row["name"]]
        for name in ("identity", "psnr_object", "ssim_region", "seam", "outside", "seconds"):
            assert row["scores"][f"v2/{name}"] == pytest.approx(own[f"v2/{name}"], abs=2e-5)
    said = (tmp_path / "report" / "report.md").read_text("utf-8")
    assert "paper: region DINOv2, x 100" in said and "pbe: quality score (close to, by our own GMM)" in said
    assert "clip: clip " in said and "2 components" not in said and "own, on pictures" in said
    assert "Frechet distances to the truths" in said and "paper: CLIP-FID" in said
    assert f"ceiling against {filled / 'flat'}, paired by image" in said
    assert rows[0]["networks"]["clip"].startswith("clip ")
    assert "own, on pictures" in rows[0]["networks"]["mixture"]
    assert rows[0]["model"] == "none" and len(rows[-1]["model"]) == 16


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--results", "nowhere"], "nowhere: no such folder of results"),
        (["--results", "FILLED", "--against", "FILLED"], "holds 2 methods (flat, ceiling)"),
        (["--results", "FILLED", "--metrics", "clip"], "hf download openai/clip-vit-base-patch32"),
        (["--results", "FILLED", "--metrics", "lpips", "--alexnet", "no.pth"], "no no.pth; fetch https://"),
        (["--results", "FILLED", "--metrics", "clipp"], "clipp"),
        (["--results", "FILLED", "--references", "nowhere.png"], "nowhere.png: no such"),
        (["--results", "FILLED", "--benchmark", "x"], "not allowed with"),
        (["--results", "FILLED", "--device", "warp"], "--device warp: this machine has cpu"),
        (["--results", "FILLED", "--out", __file__], "is a file, not a folder"),
        (["--benchmark", "x", "--against", "FILLED"], "--against goes with --results"),
        (["--fit_quality", "nowhere"], "nowhere: no such folder of pictures"),
        ([], "--benchmark --results --fit_quality"),
    ],
)
def test_a_mistake_in_scoring_is_one_line_and_leaves_nothing(
    folder: Path,
    filled: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "empty"))
    arguments = [str(filled) if word == "FILLED" else word for word in arguments]
    with pytest.raises(SystemExit) as stop:
        run(lambda: score(folder, "--out", str(tmp_path / "out"), *arguments))
    error = capsys.readouterr().err
    assert stop.value.code == 2 and message in error and error.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("work", ["--results", "--benchmark", "--fit_quality"])
@pytest.mark.parametrize("name", ["report.md", "measures.jsonl", "sheet.png", "results.jsonl"])
def test_what_another_program_wrote_is_not_replaced(
    folder: Path, tmp_path: Path, work: str, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before anything is read: `bench` has no results, and no pictures. A sheet may be that of inference."""
    out = tmp_path / name if work == "--fit_quality" else tmp_path
    (mark := PngInfo()).add_text(*next(iter(SHEET.items())))
    Image.new("RGB", (9, 9)).save(tmp_path / name, "PNG", pnginfo=mark)
    before = (tmp_path / name).read_bytes()
    with pytest.raises(SystemExit) as stop:
        run(lambda: score(folder, work, str(folder / "bench"), "--out", str(out)))
    error = capsys.readouterr().err
    read = (work, name) == ("--results", "results.jsonl")  # scoring does not write this one
    assert stop.value.code == 2 and error.count("\n") == 1
    assert (f"{name} " in error and "would be overwritten" in error) is not read
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == {name: before}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--methods", "flatt"], "flatt"),
        (["--scenes", "s7"], "no s7; there are s1, s2, s10"),
        (["--objects", "pear"], "no pear; there are apple, brick"),
        (["--benchmark", "nowhere"], "nowhere: no such folder"),
        (["--base", "nowhere"], "nowhere"),
        (["sample.stepz=3"], "steps"),
        (["--out", __file__], "is a file, not a folder"),
    ],
)
def test_a_mistake_is_one_line(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture, arguments: list[str], message: str
) -> None:
    with pytest.raises(SystemExit) as stop:
        run(lambda: call(folder, "--out", str(tmp_path / "out"), *arguments))
    error = capsys.readouterr().err
    assert stop.value.code == 2 and message in error and error.count("\n") == 1
    assert not (tmp_path / "out").exists()
