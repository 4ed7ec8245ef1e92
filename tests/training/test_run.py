"""One training run: the script and the library learn the same, and bf16 that is emulated runs in fp32."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from ldm.config import build, build_training
from ldm.config.process import warnings_in_a_line
from ldm.config.schema import load_config
from ldm.data.insertset import load_insertset
from ldm.objects.delta import load
from ldm.training.run import learn_to_file
from ldm.training.trainer import check_devices
from scripts import get_deltas, train
from tests.fixtures.small import SMALL, written

SETTINGS = ["train.max_steps=2", "train.lr=0.01", "train.cached_samples=5", "train.single_view=0.5"]
QUIET = ["train.preview_every=0", "train.validate_every=0"]


def test_more_processes_than_cores_are_refused() -> None:
    cores = os.cpu_count() or 1
    check_devices("cpu", cores)
    with pytest.raises(ValueError, match=f"--devices {cores + 1}: .*; give at most {cores}"):
        check_devices("cpu", cores + 1)


def test_the_library_learns_on_the_named_device_alone() -> None:
    """Several devices would run the caller's program once on each."""
    config = load_config(None, ["train.devices=2", "train.accelerator=gpu"])
    loops = [build_training.training_run_of(config, device).loop for device in ("", "cpu", "cuda:1", "cuda")]
    assert [(loop.accelerator, loop.devices) for loop in loops] == [
        ("gpu", "2"), ("cpu", 1), ("cuda", "1,"), ("cuda", 1)
    ]  # fmt: skip


def test_the_script_and_the_library_learn_the_same(tmp_path: Path) -> None:
    config, root = written(tmp_path)
    common = ["--config", str(config), "--dataset-dir", str(root), "--logdir", str(tmp_path / "logs")]
    train.main([*common, *SETTINGS, *QUIET])
    get_deltas.main(["--path", str(tmp_path / "logs/toy")])
    run = build_training.training_run_of(load_config(config, SETTINGS))
    learn_to_file(tmp_path / "base", SMALL, load_insertset(root), run, tmp_path / "toy.safetensors")
    one, other = load(tmp_path / "logs/toy/toy.safetensors"), load(tmp_path / "toy.safetensors")
    assert one.weights.keys() == other.weights.keys() and len(one.weights) > 10
    assert all(torch.equal(value, other.weights[name]) for name, value in one.weights.items())
    assert one.tokens is not None and other.tokens is not None and torch.equal(one.tokens, other.tokens)
    assert (one.metadata.step, other.metadata.recipe["train"]["lr"]) == (2, 0.01)


def test_emulated_bf16_is_one_warning_and_a_run_in_fp32(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(build, "bf16_works", lambda device: False)
    config, root = written(tmp_path)
    common = ["--config", str(config), "--dataset-dir", str(root), "--logdir", str(tmp_path / "logs"), *QUIET]
    for name, precision in (("half", "bf16-mixed"), ("full", "32-true")):
        with warnings_in_a_line():
            train.main([*common, *SETTINGS, "--name", name, "--precision", precision])
        err = capsys.readouterr().err
        assert err.count("no bf16 instructions") == (name == "half")
    states = [
        torch.load(tmp_path / f"logs/{name}/checkpoints/step-000002.ckpt", weights_only=True)["state_dict"]
        for name in ("half", "full")
    ]
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())
