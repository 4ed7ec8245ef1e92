"""Callbacks: checkpoints, previews, logs, the progress bar, and stopping on a signal."""

from __future__ import annotations

import csv
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch

from ldm.data.insertset import load_insertset
from ldm.data.pairs import TrainingPairs
from ldm.data.picture import read_rgb
from ldm.models.checkpoint import write_ckpt
from ldm.objects.few_shot import prepare_few_shot
from ldm.training.checkpoints import (
    AtomicCheckpointIO,
    Checkpoints,
    checkpoints,
    find_checkpoint,
    read_checkpoint,
)
from ldm.training.finetune import FineTune, Tuning
from ldm.training.samples import SampleModule
from ldm.training.trainer import LoopOptions, Previews, Progress, StopOnSignal, build_trainer
from tests.fixtures.small import SMALL, SMALL_IMAGES, object_folder, small_base, small_filler


class At(pl.Callback):
    """Sends this process a signal after a batch."""

    def __init__(self, batch: int, number: signal.Signals = signal.SIGINT) -> None:
        self.batch, self.number = batch, number

    def on_train_batch_start(self, trainer: Any, module: Any, batch: Any, batch_idx: int) -> None:
        if batch_idx == self.batch:
            os.kill(os.getpid(), self.number)


def fit(
    tmp_path: Path, callbacks: list[pl.Callback], steps: int, accumulate_grad_batches: int = 1, start: int = 0
) -> pl.Trainer:
    """A run of the small base in tmp_path/run, from its last checkpoint if `start`."""
    root = object_folder(tmp_path / "toy")
    insertset, base = load_insertset(root), small_base()
    prepare_few_shot(base, SMALL_IMAGES.few_shot(insertset), "tokens")
    run = tmp_path / "run"
    trainer = build_trainer(
        run,
        callbacks,
        steps,
        LoopOptions(accumulate_grad_batches=accumulate_grad_batches, accelerator="cpu", devices=1),
        start,
    )
    pairs = TrainingPairs(insertset, SMALL.image_size, SMALL.reference_size)
    module = FineTune(base, Tuning(lr=1e-2, max_steps=1), card={"metadata": {}})
    trainer.fit(module, datamodule=SampleModule(pairs, 1), ckpt_path=find_checkpoint(run) if start else None)
    return trainer


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("accumulate_grad_batches", [1, 3])
def test_a_signal_finishes_the_step_saves_and_stops(
    tmp_path: Path, number: signal.Signals, accumulate_grad_batches: int
) -> None:
    heard: list[str] = []
    handlers = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    saving = Checkpoints(tmp_path / "run", every=100)
    stop = StopOnSignal(saving, lambda: heard.append("stop"))
    trainer = fit(tmp_path, [At(accumulate_grad_batches, number), saving, stop], 50, accumulate_grad_batches)
    assert stop.stopped and heard == ["stop"] and trainer.global_step == 2
    assert read_checkpoint(find_checkpoint(tmp_path / "run"))["global_step"] == 2
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == handlers


def test_a_stopped_run_ends_where_an_uninterrupted_one_does(tmp_path: Path) -> None:
    def saving(folder: str) -> Checkpoints:
        return Checkpoints(tmp_path / folder / "run", every=100)

    fit(tmp_path / "whole", [saving("whole")], 4, 2)
    first = saving("part")
    fit(tmp_path / "part", [At(2), first, StopOnSignal(first)], 4, 2)
    fit(tmp_path / "part", [saving("part")], 4, 2, start=2)
    whole, part = (read_checkpoint(find_checkpoint(tmp_path / f / "run")) for f in ("whole", "part"))
    assert whole["global_step"] == part["global_step"] == 4
    assert all(torch.equal(v, part["state_dict"][k]) for k, v in whole["state_dict"].items())


def test_a_second_signal_stops_at_once(tmp_path: Path) -> None:
    saving = Checkpoints(tmp_path / "run", every=100)
    with pytest.raises(SystemExit):  # what Lightning makes of KeyboardInterrupt
        fit(tmp_path, [At(1), At(1), saving, StopOnSignal(saving)], 50)
    assert not checkpoints(tmp_path / "run")


def test_checkpoints_are_regular_and_the_newest_are_kept(tmp_path: Path) -> None:
    fit(tmp_path, [Checkpoints(tmp_path / "run", every=2, keep=2)], 7, accumulate_grad_batches=2)
    assert [path.name for path in checkpoints(tmp_path / "run")] == ["step-000006.ckpt", "step-000007.ckpt"]


def test_a_finished_run_can_be_made_longer(tmp_path: Path) -> None:
    fit(tmp_path, [Checkpoints(tmp_path / "run", every=100)], 2)
    trainer = fit(tmp_path, [Checkpoints(tmp_path / "run", every=100)], 3, start=2)
    assert trainer.global_step == 3
    assert [path.name for path in checkpoints(tmp_path / "run")] == ["step-000002.ckpt", "step-000003.ckpt"]


def test_checkpoints_are_whole_or_absent(tmp_path: Path) -> None:
    io, path = AtomicCheckpointIO(), tmp_path / "step-000001.ckpt"
    io.save_checkpoint({"object": {"about": {"recipe": {}}}, "global_step": 1, "x": torch.ones(2)}, path)
    with pytest.raises(AttributeError):
        io.save_checkpoint({"object": {}, "x": lambda: None}, path)  # cannot be written
    assert torch.equal(io.load_checkpoint(path)["x"], torch.ones(2))
    assert list(tmp_path.iterdir()) == [path]


def test_a_wrong_checkpoint_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no such run"):
        find_checkpoint(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"holds no checkpoints/step"):
        find_checkpoint(tmp_path)
    torch.save({"state_dict": {}}, tmp_path / "other.ckpt")
    with pytest.raises(ValueError, match="no checkpoint of a training run"):
        read_checkpoint(tmp_path / "other.ckpt")
    (tmp_path / "half.ckpt").write_bytes((tmp_path / "other.ckpt").read_bytes()[:200])
    with pytest.raises(ValueError, match="cut off"):
        read_checkpoint(tmp_path / "half.ckpt")
    write_ckpt(tmp_path / "odd.ckpt", {"object": {"abou": {}}, "global_step": 1, "state_dict": {}})
    with pytest.raises(ValueError, match="damaged, its description of the run is not complete"):
        read_checkpoint(tmp_path / "odd.ckpt")


def test_a_checkpoint_of_an_older_version_is_read(tmp_path: Path) -> None:
    old = {"about": {"base": "1"}, "crops": torch.zeros(1)}
    torch.save({"object": old, "global_step": 1}, tmp_path / "old.ckpt")
    card = read_checkpoint(tmp_path / "old.ckpt")["object"]
    assert card["metadata"] == {"base": "1"} and card.keys() == {"metadata", "crops"}


def test_the_log_of_a_resumed_run_has_every_step_once(tmp_path: Path) -> None:
    fit(tmp_path, [Progress(1), Checkpoints(tmp_path / "run", every=2)], 4)
    (tmp_path / "run/checkpoints/step-000004.ckpt").unlink()  # as if it had crashed after step 2
    fit(tmp_path, [Progress(1), Checkpoints(tmp_path / "run", every=2)], 5, start=2)
    with (tmp_path / "run/metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    steps = [int(row["step"]) for row in rows]
    assert steps == sorted(set(steps)) and steps[-1] == 5
    assert all(float(row["loss"]) > 0 and float(row["samples_per_s"]) > 0 for row in rows)
    assert list((tmp_path / "run/tensorboard").glob("events.*"))


def test_the_bar_shows_loss_and_speed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fit(tmp_path, [Progress(1)], 2, accumulate_grad_batches=2)
    shown = capsys.readouterr()
    assert "2/2" in shown.err and "loss" in shown.err and "samples/s" in shown.err
    assert "GPU available" not in shown.err + shown.out and "Tip" not in shown.err + shown.out


def test_previews_change_with_the_object_inside_the_mask_only(tmp_path: Path) -> None:
    insertset = load_insertset(object_folder(tmp_path / "toy"))
    fill, run = small_filler(insertset, insertset.few_shot[:1]), tmp_path / "run"
    fit(tmp_path, [Previews(fill.preview, run, every=2)], 3)
    paths = sorted((run / "previews").iterdir())
    assert [path.name for path in paths] == ["step-000002.png", "step-000003.png"]
    first, second = (read_rgb(path)[:, -32:] for path in paths)
    assert first.shape == (32, 32, 3) and read_rgb(paths[0]).shape == (32, 128, 3)
    mask = fill.places[0].mask
    original = read_rgb(paths[0])[:, 32:64]
    assert 0 < mask.mean() < 1
    assert np.array_equal(first[~mask], original[~mask]) and not np.array_equal(first[mask], second[mask])


def test_previews_leave_training_as_it_is(tmp_path: Path) -> None:
    def run(folder: Path, *callbacks: pl.Callback) -> dict[str, torch.Tensor]:
        fit(folder, [Checkpoints(folder / "run", 100), *callbacks], 3)
        return read_checkpoint(find_checkpoint(folder / "run"))["state_dict"]

    insertset = load_insertset(object_folder(tmp_path / "toy"))
    draw = small_filler(insertset, insertset.few_shot[:1]).preview
    plain, seen = run(tmp_path / "a"), run(tmp_path / "b", Previews(draw, tmp_path / "b/run", every=1))
    assert all(torch.equal(plain[key], seen[key]) for key in plain)
