"""The training script: a whole small run, resumed, interrupted, and refused."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ldm.config.process import run
from ldm.data.files import LOCK, locked_folder
from ldm.training.checkpoints import find_checkpoint, new_run, read_checkpoint
from scripts import train
from tests.fixtures.small import object_folder, written


def arguments(folder: Path, *more: str) -> list[str]:
    config, root = written(folder)
    common = ["--config", str(config), "--dataset-dir", str(root), "--logdir", str(folder / "logs")]
    return [*common, "--preview_every", "0", "--validate_every", "0", *more]


def state(path: Path) -> dict[str, torch.Tensor]:
    return read_checkpoint(find_checkpoint(path))["state_dict"]


def failing(argv: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """Run as from the command line, which must end with exit code 2 => stderr."""
    with pytest.raises(SystemExit) as stop:
        run(lambda: train.main(argv))
    assert stop.value.code == 2
    return capsys.readouterr().err


def test_a_run_prints_what_it_does_and_what_comes_next(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_ = tmp_path / "logs/toy bee"
    train.main(arguments(tmp_path, "--max_steps", "2", "--preview_every", "2", "--name", run_.name))
    output = capsys.readouterr().out.splitlines()
    assert len(output) == 3
    assert "3 few-shot, 2 same-category" in output[0]
    assert "weights (crossattn-kv), step 0 to 2" in output[1]
    assert output[2].endswith(f"next: bash get_deltas.sh --path '{run_}'")
    found = {path.relative_to(run_).as_posix() for path in run_.rglob("*")}
    assert {
        "checkpoints/step-000002.ckpt",
        "config.yaml",
        "metrics.csv",
        "shown.png",
        "previews/step-000002.png",
    } <= found


def test_an_earlier_checkpoint_is_resumed_only_if_there_is_no_later_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "logs/toy"
    train.main(arguments(tmp_path, "--max_steps", "2", "train.checkpoint_every=1"))
    first, last = (run / f"checkpoints/step-00000{step}.ckpt" for step in (1, 2))
    before = last.read_bytes()
    output = failing(["--resume", str(first), "--max_steps", "3"], capsys)
    assert "later checkpoints than step-000001.ckpt, like step-000002.ckpt" in output
    assert f"--resume {run}" in output and last.read_bytes() == before
    last.rename(tmp_path / "later.ckpt")
    train.main(["--resume", str(first), "--max_steps", "3"])
    assert find_checkpoint(run).name == "step-000003.ckpt"


def test_a_run_is_named_with_its_folder(tmp_path: Path) -> None:
    train.main(arguments(tmp_path, "--max_steps", "1", "--name", "toy"))
    train.main(arguments(tmp_path, "--max_steps", "1", "--name", "group/toy"))
    assert find_checkpoint(tmp_path / "logs/group/toy").name == "step-000001.ckpt"


def test_a_view_that_is_not_there_does_not_stop_learning(tmp_path: Path) -> None:
    """Inference refuses it; previews use all tokens."""
    for more in (
        ("--few_shot", "none", "sample.reference_view=2"),
        ("--few_shot", "tokens", "sample.reference_view=9"),
    ):
        name = more[1]
        train.main(arguments(tmp_path, "--max_steps", "1", "--preview_every", "1", "--name", name, *more))
        assert (tmp_path / "logs" / name / "previews/step-000001.png").is_file()


def test_a_resumed_run_needs_no_other_flag(tmp_path: Path) -> None:
    options = [
        "--freeze_model",
        "crossattn",
        "--accumulate_grad_batches",
        "2",
        "--lr",
        "0.01",
        "--few_shot",
        "linear",
    ]
    train.main(arguments(tmp_path, *options, "--max_steps", "4", "--name", "whole"))
    train.main(arguments(tmp_path, *options, "--max_steps", "2", "--name", "part"))
    train.main(["--resume", str(tmp_path / "logs/part"), "--max_steps", "4", "--hold_out", "auto"])
    whole, part = state(tmp_path / "logs/whole"), state(tmp_path / "logs/part")
    assert whole.keys() == part.keys() and all(torch.equal(whole[key], part[key]) for key in whole)


def test_a_run_that_has_all_its_steps_encodes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    train.main(arguments(tmp_path, "--max_steps", "2"))
    before = find_checkpoint(tmp_path / "logs/toy").read_bytes()
    monkeypatch.setattr("ldm.training.run.TrainingPairs", None)
    for steps in ("2", "1"):
        capsys.readouterr()
        train.main(["--resume", str(tmp_path / "logs/toy"), "--max_steps", steps])
        assert "step-000002.ckpt: done; next: bash get_deltas.sh" in capsys.readouterr().out
    assert find_checkpoint(tmp_path / "logs/toy").read_bytes() == before


def test_what_a_resumed_run_does_not_take_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By a finished run, too; flags that it began with may be repeated."""
    train.main(arguments(tmp_path, "--max_steps", "1", "--lr", "0.01"))
    resume = ["--resume", str(tmp_path / "logs/toy")]
    before = find_checkpoint(tmp_path / "logs/toy").read_bytes()
    capsys.readouterr()
    for words, told in (
        (["--lr", "1"], "train.lr=1.0: a resumed run keeps its own, 0.01; leave it out"),
        (["--name", "other"], "train.name=other: a resumed run keeps its own; leave it out"),
        (["--logdir", str(tmp_path)], f"keeps its own, {tmp_path / 'logs'}; leave"),
        (["--freeze_model", "crossattn"], "keeps its own, crossattn-kv; leave"),
        (["data.augment=false"], "data.augment=False: a resumed run keeps its own, True; leave"),
        (["base.region_fill=composite"], "keeps its own, grey; leave"),
    ):
        output = failing([*resume, "--max_steps", "2", *words], capsys)
        assert told in output and output.count("\n") == 1
    assert find_checkpoint(tmp_path / "logs/toy").read_bytes() == before
    (tmp_path / "toy").rename(tmp_path / "moved")
    taken = ["--dataset-dir", str(tmp_path / "moved"), "--lr", "0.01", "--max_steps", "2"]
    train.main([*resume, *taken, "--preset", "8gb", "--cached_samples", "1", "--preview_every", "2"])
    assert find_checkpoint(tmp_path / "logs/toy").name == "step-000002.ckpt"
    assert (tmp_path / "logs/toy/previews/step-000002.png").is_file()


def validated(folder: Path, *more: str) -> list[str]:
    """A run of four pictures that validates itself every other step."""
    pytest.importorskip("efficientnet_lite_pytorch")
    config, root = written(folder)
    object_folder(root, few_shot=4)
    common = ["--config", str(config), "--dataset-dir", str(root), "--logdir", str(folder / "logs")]
    return [
        *common,
        "--preview_every",
        "0",
        "--validate_every",
        "2",
        "--max_steps",
        "4",
        "--lr",
        "0.01",
        *more,
    ]


def test_a_run_validates_on_a_picture_that_it_does_not_learn_from(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "logs/toy"
    train.main(validated(tmp_path))
    output = capsys.readouterr().out
    saved = read_checkpoint(find_checkpoint(run))["object"]
    held = saved["metadata"]["recipe"]["train"]["hold_out"]
    assert "3 few-shot, 2 same-category" in output and f"on picture {held}, which is held out" in output
    assert "best: step " in output and "before training" in output
    assert saved["metadata"]["few_shot_count"] == len(saved["crops"]) == 3
    sheets = [path.name for path in sorted((run / "validation").iterdir())]
    assert sheets == ["step-000000.png", "step-000002.png", "step-000004.png"]
    names = {path.name for path in run.iterdir()}
    assert {"best.ckpt", "best.txt", "validation.csv"} <= names


def test_a_resumed_run_holds_out_the_same_and_ends_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train.main([*validated(tmp_path), "--name", "whole"])
    train.main([*validated(tmp_path), "--name", "part", "--max_steps", "2"])
    train.main(["--resume", str(tmp_path / "logs/part"), "--max_steps", "4", "--hold_out", "auto"])
    whole, part = state(tmp_path / "logs/whole"), state(tmp_path / "logs/part")
    assert all(torch.equal(whole[key], part[key]) for key in whole)
    csv, other = ((tmp_path / "logs" / name / "validation.csv").read_text() for name in ("whole", "part"))
    assert csv == other and csv.count("\n") == 4
    output = failing(["--resume", str(tmp_path / "logs/part/best.ckpt"), "--max_steps", "6"], capsys)
    assert "best.ckpt cannot be resumed" in output and f"--resume {tmp_path / 'logs/part'}" in output


def test_a_picture_that_is_not_there_is_not_held_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = failing(arguments(tmp_path, "--hold_out", "9"), capsys)
    assert "hold_out '9'" in output and "there are 0, 1, 2" in output and not (tmp_path / "logs").exists()


def test_another_run_is_never_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = arguments(tmp_path, "--max_steps", "1")
    train.main(argv)
    before = find_checkpoint(tmp_path / "logs/toy").read_bytes()
    output = failing(argv, capsys)
    assert "--resume" in output and "--name" in output
    assert find_checkpoint(tmp_path / "logs/toy").read_bytes() == before


def test_a_run_replaces_no_foreign_file_and_goes_into_no_object_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run of version 0.4 that was stopped before its first checkpoint has no mark, and is known."""
    argv, run_ = arguments(tmp_path, "--max_steps", "1"), tmp_path / "logs/toy"
    (run_ / "previews").mkdir(parents=True)
    assert "holds files that are not of a run" in failing(argv, capsys)
    (run_ / "metrics.csv").write_text("mine")
    (run_ / "config.yaml").write_text("base: notes of mine, train:\n")
    assert "holds files that are not of a run" in failing(argv, capsys)
    assert (run_ / "metrics.csv").read_text() == "mine"
    (run_ / "config.yaml").write_text("base:\n  path: x\ntrain:\n  lr: 1.0\nextract:\n  which: best\n")
    assert new_run(tmp_path / "logs", "toy") == run_
    assert "toy is an object folder" in failing([*argv, "--logdir", str(tmp_path)], capsys)


def test_a_run_that_another_process_writes_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = arguments(tmp_path, "--max_steps", "1")
    with locked_folder(tmp_path / "logs/toy", ""):
        said = failing(argv, capsys)
        assert f"toy is being written by process {os.getpid()}; wait for it" in said and said.count("\n") == 1
        assert [file.name for file in (tmp_path / "logs/toy").iterdir()] == [LOCK]
    train.main(argv)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--accelerator", "mps"], "--accelerator mps: this machine has cpu"),
        (["--accelerator", "cpu", "--devices", "0"], "--accelerator cpu --devices 0: "),
        (["--accelerator", "cpu", "--devices", "many"], "--accelerator cpu --devices many: "),
    ],
)
def test_devices_that_are_not_there_are_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: list[str], message: str
) -> None:
    if "mps" in flags and torch.backends.mps.is_available():
        pytest.skip("this machine has mps")
    said = failing(arguments(tmp_path, "--max_steps", "1", *flags), capsys)
    assert said.startswith(f"error: {message}") and said.count("\n") == 1 and not (tmp_path / "logs").exists()


def test_faults_of_the_folder_are_listed_and_nothing_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = arguments(tmp_path, "base.path=nowhere")  # not even looked for
    (tmp_path / "toy/bbox/0.txt").write_text("1 2 3")
    (tmp_path / "toy/data/1.png").write_bytes(b"no picture")
    output = failing(argv, capsys)
    assert "2 faults" in output and "bbox/0.txt" in output and "data/1.png" in output
    assert not (tmp_path / "logs").exists()


@pytest.mark.parametrize(
    ("flags", "hint"),
    [
        (["--max_step", "3"], "did you mean --max_steps?"),
        (["--name", ".."], "--name ..: outside of --logdir"),
        (["--name", "/tmp/run"], "--name /tmp/run: outside of --logdir"),
        (["--freeze_model", "crossatn"], "did you mean crossattn"),
        (["--base", "nowhere"], "nowhere does not exist"),
        (["--logdir", __file__], "is a file, not a folder"),
        (["--resume", "nowhere"], "nowhere: no such run"),
    ],
)
def test_mistakes_are_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: list[str], hint: str
) -> None:
    output = failing(arguments(tmp_path, *flags), capsys)
    assert hint in output and output.count("\n") == 1
    assert not (tmp_path / "logs").exists()


@pytest.mark.parametrize(
    ("name", "told"),
    [("data/1.png", "data/1.png"), ("reg_bbox/1.txt", "reg_data/1.png"), ("test.png", "test.png")],
)
def test_pictures_that_changed_are_not_resumed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, told: str
) -> None:
    train.main(arguments(tmp_path, "--max_steps", "1"))
    capsys.readouterr()
    file = tmp_path / "toy" / name
    before = file.read_bytes()
    if file.suffix == ".txt":
        file.write_text("1 1 9 9")
    else:
        other = np.random.default_rng(0).integers(0, 256, np.asarray(Image.open(file)).shape, dtype=np.uint8)
        Image.fromarray(other).save(file)
    resume = ["--resume", str(tmp_path / "logs/toy"), "--max_steps", "2"]
    kept = {path: path.read_bytes() for path in (tmp_path / "logs/toy").rglob("*.*") if path.is_file()}
    output = failing(resume, capsys)
    assert f"error: {told}: not as when this run began" in output and output.count("\n") == 1
    assert kept == {path: path.read_bytes() for path in kept}  # config.yaml and shown.png, too
    file.write_bytes(before)
    train.main(resume)


def test_a_picture_that_was_added_is_not_resumed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train.main(arguments(tmp_path, "--max_steps", "1"))
    capsys.readouterr()
    for name in ("data/0.png", "bbox/0.txt"):
        file = tmp_path / "toy" / name
        file.with_stem("9").write_bytes(file.read_bytes())
    output = failing(["--resume", str(tmp_path / "logs/toy"), "--max_steps", "2"], capsys)
    assert "error: data/9.png: not as when this run began" in output and output.count("\n") == 1


def test_a_base_that_changed_is_not_resumed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from ldm.models.base import save_base
    from tests.fixtures.small import small_base

    train.main(arguments(tmp_path, "--max_steps", "1"))
    save_base(small_base(seed=5), tmp_path / "base", dtype=torch.float32)
    capsys.readouterr()
    output = failing(["--resume", str(tmp_path / "logs/toy"), "--max_steps", "2"], capsys)
    assert "base is" in output and output.count("\n") == 1


def test_ctrl_c_saves_and_says_how_to_go_on(tmp_path: Path) -> None:
    argv = arguments(tmp_path, "--max_steps", "100000", "--workers", "1")
    process = subprocess.Popen(
        [sys.executable, "scripts/train.py", *argv],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    metrics = tmp_path / "logs/toy/metrics.csv"
    until = time.monotonic() + 60
    while not metrics.exists() and process.poll() is None and time.monotonic() < until:
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: workers are hit, too
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    last = out.splitlines()[-1]
    assert last.startswith("stopped and saved at step") and last.endswith(f"--resume {tmp_path / 'logs/toy'}")
    assert "Traceback" not in err
    step = read_checkpoint(find_checkpoint(tmp_path / "logs/toy"))["global_step"]
    assert f"at step {step};" in last and step >= 1
