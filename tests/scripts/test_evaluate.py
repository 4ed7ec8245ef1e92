"""The evaluation as a user calls it, on a bench in miniature and a tiny random base."""

import json
from pathlib import Path

import pytest

from ldm.config import run
from ldm.evaluation.methods import METHODS
from ldm.models.base import save_base
from ldm.objects.delta import load
from scripts import evaluate
from tests.fixtures.bench import write_bench
from tests.fixtures.tiny import config_file, loaded_base


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("evaluate")
    save_base(loaded_base(), folder / "base")
    config_file(folder / "tiny.yaml", folder / "base")
    write_bench(folder / "bench")
    return folder


def call(folder: Path, *arguments: str) -> None:
    paths = ["--config", str(folder / "tiny.yaml"), "--bench", str(folder / "bench")]
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
    ]
    evaluate.main([*paths, *few, *arguments])


def test_one_command_makes_the_table(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    call(folder, "--out", str(tmp_path), "--scenes", "s2")
    rows = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text().splitlines()]
    assert [row["method"] for row in rows] == list(METHODS)
    assert {row["outside"] for row in rows} == {0} and {row["object"] for row in rows} == {"brick"}
    learnt = {row["method"]: row["learning_seconds"] for row in rows}
    assert learnt["crossattn"] > 0 and learnt["crossattn-kv"] > 0 and learnt["zero-shot"] == 0
    text = (tmp_path / "report.md").read_text("utf-8")
    assert all(title in text for title in METHODS.values()) and (tmp_path / "sheet.png").is_file()
    wide, narrow = (
        load(tmp_path / "objects" / f"brick_{m}.safetensors") for m in ("crossattn", "crossattn-kv")
    )
    assert len(wide.weights) > len(narrow.weights) and wide.about.few_shot_count == 2 and wide.about.step == 1
    assert wide.about.recipe["train"]["max_steps"] == 1
    capsys.readouterr()

    call(folder, "--out", str(tmp_path), "--scenes", "s2", "--methods", "crossattn", "flat")
    out = capsys.readouterr().out
    assert "s2 " not in out and "fine-tuned, crossattn |" in out and "ceiling" not in out  # nothing made anew


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--methods", "flatt"], "flatt"),
        (["--scenes", "s7"], "no s7; there are s1, s2, s10"),
        (["--objects", "pear"], "no pear; there are apple, brick"),
        (["--bench", "nowhere"], "nowhere/scenes: no such folder"),
        (["--base", "nowhere"], "nowhere"),
        (["sample.stepz=3"], "steps"),
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
