"""A server that ends in the middle loses nothing: trainings go on, insertions are made again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("fastapi", reason="the extra `studio` is not installed")

from fastapi.testclient import TestClient

from ldm.config.loader import ROOT
from ldm.studio.learning import is_ours
from ldm.training.checkpoints import checkpoints
from tests.fixtures.small import written
from tests.studio.serving import (
    FAST,
    LEARNING,
    background_of,
    client_of,
    encoded,
    ended,
    mask_png,
    object_of,
    waited,
)

LONG = {**LEARNING, "train.max_steps": 5000, "train.preview_every": 0}


def process_of(client: TestClient, job: dict[str, Any]) -> int:
    return client.app.state.studio.jobs.get(job["id"]).process  # type: ignore[attr-defined]


def learning(client: TestClient) -> dict[str, Any]:
    """A long training that has done its first step."""
    object_of(client)
    job = client.post("/api/objects/disc/learn", json={"settings": LONG}).json()
    return waited(client, job, lambda job: job["step"] >= 1 or job["error"])


def gone(process: int, run: Path) -> bool:
    """Whether a process ends within some seconds."""
    end = time.monotonic() + 60
    while is_ours(process, run) and time.monotonic() < end:
        time.sleep(0.1)
    return not is_ours(process, run)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("scripts/train.py", "--logdir", "RUNS", "--name", "disc"), True),
        (("scripts/train.py", "--resume", "RUNS/disc"), True),
        (("scripts/get_deltas.py", "--path", "RUNS/disc"), True),
        (("scripts/train.py", "--logdir", "RUNS", "--name", "disc_2"), False),
        (("scripts/train.py", "--resume", "RUNS/disc_2"), False),
        (("my_train.py", "RUNS/disc"), False),
    ],
)
def test_another_process_with_the_number_of_a_training_is_not_ours(
    tmp_path: Path, words: tuple[str, ...], expected: bool
) -> None:
    """It is killed with its whole group when the training is cancelled."""
    own = [word.replace("RUNS", str(tmp_path)).replace("scripts", f"{ROOT}/scripts") for word in words]
    command = [sys.executable, "-c", "print(flush=True); input()", *own]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            # its command line is in /proc only when it runs
            assert process.stdout and process.stdout.readline()
            assert is_ours(process.pid, tmp_path / "disc") == expected
        finally:
            process.kill()


def test_the_next_server_goes_on_with_everything(tmp_path: Path) -> None:
    config, _ = written(tmp_path)
    with client_of(config, tmp_path / "studio") as client:
        learn = learning(client)
        process = process_of(client, learn)
        own = background_of(client, encoded(np.full((64, 64, 3), 90, np.uint8)))["id"]
        client.put(f"/api/backgrounds/{own}/masks/m1", content=mask_png((64, 64), (20, 20, 44, 44)))
        placed = {"background": own, "placements": [{"object": "disc", "mask": "m1"}]}
        long = {**placed, "settings": {**FAST, "sample.steps": 400}}
        first = client.post("/api/insert", json=long).json()
        waits = client.post("/api/insert", json={**placed, "settings": FAST}).json()
        waited(client, first, lambda job: job["step"] >= 3)
    try:
        assert is_ours(process, tmp_path / "studio/runs/disc")
        with client_of(config, tmp_path / "studio") as client:
            for job in (first, waits):
                assert client.get(f"/api/jobs/{job['id']}").json()["state"] in ("queued", "running")
            assert client.get(f"/api/jobs/{learn['id']}").json()["state"] == "running"
            assert process_of(client, learn) == process
            assert len(ended(client, first)["results"]) == len(ended(client, waits)["results"]) == 1
            before = learn["step"]
            waited(client, learn, lambda job: job["step"] > before)
            client.post(f"/api/jobs/{learn['id']}/cancel")
            ended(client, learn, "cancelled")
            assert gone(process, tmp_path / "studio/runs/disc")
    finally:
        if is_ours(process, tmp_path / "studio/runs/disc"):
            os.killpg(process, signal.SIGKILL)


@pytest.mark.slow
def test_a_training_is_paused_resumed_and_survives_a_reboot(tmp_path: Path) -> None:
    config, _ = written(tmp_path)
    run = tmp_path / "studio/runs/disc"
    with client_of(config, tmp_path / "studio") as client:
        job = learning(client)
        first = process_of(client, job)
        client.post(f"/api/jobs/{job['id']}/pause")
        job = waited(client, job, lambda job: job["state"] != "running")
        assert job["state"] == "paused" and gone(first, run)
        saved = int(checkpoints(run)[-1].stem.removeprefix("step-"))
        assert saved == job["step"] or saved >= 1
        client.post(f"/api/jobs/{job['id']}/resume")
        job = waited(client, job, lambda job: job["step"] > saved + 1)
        second = process_of(client, job)
        assert second != first
    os.killpg(second, signal.SIGKILL)  # a reboot ends both
    assert gone(second, run)
    saved = int(checkpoints(run)[-1].stem.removeprefix("step-"))
    with client_of(config, tmp_path / "studio") as client:
        job = waited(client, job, lambda job: process_of(client, job) not in (0, second))
        job = waited(client, job, lambda job: job["step"] > saved or job["error"])
        assert job["state"] == "running" and not job["error"]
        steps = [step for step, _ in job["loss"]]
        assert steps == sorted(set(steps))
        client.post(f"/api/jobs/{job['id']}/cancel")
        ended(client, job, "cancelled")


def test_the_page_says_that_the_base_is_missing_and_when_it_is_there_again(tmp_path: Path) -> None:
    config, _ = written(tmp_path)
    base = tmp_path / "base"
    base.rename(tmp_path / "elsewhere")
    with client_of(config, tmp_path / "studio") as client:
        end = time.monotonic() + 60
        while not (error := client.get("/api/info").json()["error"]) and time.monotonic() < end:
            time.sleep(0.1)
        assert "the base cannot be loaded: " in error and "does not exist" in error
        (tmp_path / "elsewhere").rename(base)
        object_of(client)
        picture = background_of(client, encoded(np.zeros((90, 120, 3), np.uint8)))
        client.put(
            f"/api/backgrounds/{picture['id']}/masks/m1", content=mask_png((120, 90), (30, 20, 60, 50))
        )
        asked = {
            "background": picture["id"],
            "placements": [{"object": "disc", "reference": "2", "mask": "m1"}],
            "settings": FAST,
        }
        ended(client, client.post("/api/insert", json=asked).json())
        assert client.get("/api/info").json()["error"] == ""
