"""A run that validates itself: when, the best checkpoint, early stopping, resuming."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import pytorch_lightning as pl
import torch

from ldm.models.base import Base
from ldm.training.checkpoints import Checkpoints, best_checkpoint, find_checkpoint, read_checkpoint
from ldm.validation.callback import MOST, SAMPLE, SHARE, Validation, validation_interval
from ldm.validation.score import ValidationResult, ValidationScore, read_scores
from tests.training.test_callbacks import fit

PICTURE = np.zeros((4, 6, 3), np.uint8)


class Scripted:
    """A validator with given scores, by step."""

    def __init__(self, scores: Mapping[int, float]) -> None:
        self.scores, self.steps = scores, []

    def __call__(self, base: Base, step: int) -> ValidationResult:
        self.steps.append(step)
        score = self.scores.get(step, 0.0)
        return ValidationResult(ValidationScore(step, score, 1.0, float("nan"), (score, score)), PICTURE)


def validating(folder: Path, scores: Mapping[int, float], every: int, patience: int = 0) -> list[pl.Callback]:
    saving = Checkpoints(folder / "run", every=100)
    return [saving, Validation(Scripted(scores), folder / "run", every, saving, patience)]


def test_it_validates_before_training_regularly_and_at_the_end(tmp_path: Path) -> None:
    callbacks = validating(tmp_path, {2: 0.5, 4: 0.1, 5: 0.2}, every=2)
    fit(tmp_path, callbacks, 5, accumulate_grad_batches=2)
    run = tmp_path / "run"
    assert [x.step for x in read_scores(run, 9)] == [0, 2, 4, 5]
    assert [path.name for path in sorted((run / "validation").iterdir())] == [
        f"step-{step:06}.png" for step in (0, 2, 4, 5)
    ]


def test_the_best_checkpoint_is_that_of_its_step_and_has_a_reason(tmp_path: Path) -> None:
    fit(tmp_path / "two", [Checkpoints(tmp_path / "two/run", every=100)], 2)
    then = read_checkpoint(find_checkpoint(tmp_path / "two/run"))
    fit(tmp_path, validating(tmp_path, {2: 0.5, 3: 0.1}, every=1), 3)
    path, why = best_checkpoint(tmp_path / "run") or pytest.fail("no best")
    saved = read_checkpoint(path)
    assert saved["global_step"] == 2 and why.startswith("step 2: score 0.500")
    assert saved["object"].keys() == then["object"].keys()
    assert all(torch.equal(saved["state_dict"][k], v) for k, v in then["state_dict"].items())
    assert "optimizer_states" not in saved


@pytest.mark.parametrize(("patience", "last"), [(0, 6), (2, 4), (3, 5)])
def test_it_stops_when_nothing_improves(tmp_path: Path, patience: int, last: int) -> None:
    callbacks = validating(tmp_path, {1: 0.1, 2: 0.5, 3: 0.4}, every=1, patience=patience)
    trainer = fit(tmp_path, callbacks, 6)
    assert trainer.global_step == last and callbacks[1].stopped == (last < 6)
    assert read_checkpoint(find_checkpoint(tmp_path / "run"))["global_step"] == last


def test_a_resumed_run_validates_as_one_that_was_not_stopped(tmp_path: Path) -> None:
    scores = {1: 0.1, 2: 0.5, 3: 0.2, 4: 0.3}
    for folder in ("whole", "part"):
        fit(tmp_path / folder, validating(tmp_path / folder, scores, every=1), 4)
    run = tmp_path / "part/run"
    (run / "checkpoints/step-000004.ckpt").unlink()  # as if it had crashed behind step 1 ...
    early = validating(tmp_path / "early", scores, every=1)
    fit(tmp_path / "early", early, 1)
    find_checkpoint(tmp_path / "early/run").rename(run / "checkpoints/step-000001.ckpt")
    again = validating(tmp_path / "part", scores, every=1)
    fit(tmp_path / "part", again, 4, start=1)
    assert again[1].validate.steps == [2, 3, 4]
    for name in ("validation.csv", "best.txt"):
        assert (run / name).read_text() == (tmp_path / "whole/run" / name).read_text()
    states = [
        read_checkpoint(tmp_path / folder / "run/best.ckpt")["state_dict"] for folder in ("whole", "part")
    ]
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


def test_a_best_of_later_steps_does_not_outlive_a_crash(tmp_path: Path) -> None:
    """A new run starts in a folder whose run crashed before its first checkpoint."""
    run = tmp_path / "run"
    run.mkdir()
    (run / "best.ckpt").write_bytes(b"of step 7")
    (run / "best.txt").write_text("step 7: score 0.9\n")
    callbacks = validating(tmp_path, {}, every=1)
    callbacks[1]._keep_best = lambda module: None
    fit(tmp_path, callbacks, 1)
    assert best_checkpoint(run) is None and not (run / "best.ckpt").exists()


def test_the_best_is_one_whose_weights_are_there(tmp_path: Path) -> None:
    """A run whose best score is of step 3 crashes, goes on after step 2: the weights of step 1 are gone."""
    run = tmp_path / "run"
    fit(tmp_path, validating(tmp_path, {1: 0.5, 2: 0.1, 3: 0.9}, every=1), 3)
    (run / "checkpoints/step-000003.ckpt").unlink()
    early = validating(tmp_path / "early", {}, every=1)
    fit(tmp_path / "early", early, 2)
    find_checkpoint(tmp_path / "early/run").rename(run / "checkpoints/step-000002.ckpt")
    fit(tmp_path, validating(tmp_path, {3: 0.3, 4: 0.2}, every=1), 4, start=2)
    fit(tmp_path, validating(tmp_path, {5: 0.05}, every=1), 5, start=4)  # and once more, without a crash
    found = best_checkpoint(run)
    assert found and found[1].startswith("step 3: score 0.300")
    assert read_checkpoint(found[0])["global_step"] == 3


@pytest.mark.parametrize("cost", [20, 84, 400])
@pytest.mark.parametrize(("steps", "samples"), [(800, 8), (4000, 1), (2000, 1), (100, 1), (12, 64)])
def test_validation_costs_a_tenth_at_most(cost: int, steps: int, samples: int) -> None:
    every = validation_interval(steps, samples, cost)
    count = len({0, *range(every, steps + 1, every), steps}) if every else 0
    assert count * cost <= SHARE * steps * samples * SAMPLE and count <= MOST
    assert every or 2 * cost > SHARE * steps * samples * SAMPLE  # none only where two are too many


def test_the_default_runs_are_validated() -> None:
    assert validation_interval(800, 8, 84) == 80 and validation_interval(4000, 1, 84) == 500
