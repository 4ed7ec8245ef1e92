"""Learning an object: scripts/train.py and then scripts/get_deltas.py, as processes that outlive the server.

What is known of a run is read from its folder, so a server that was restarted finds it as it is: still
running, interrupted (it is resumed), learnt but not extracted, or finished.
"""

from __future__ import annotations

import csv
import logging
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from itertools import chain, count
from pathlib import Path
from typing import Any

from ldm.config.loader import ROOT
from ldm.config.schema import Config, load_config
from ldm.data.files import runs
from ldm.studio.imports import import_pictures
from ldm.studio.jobs import Job, JobBook
from ldm.studio.settings import changed
from ldm.studio.workspace import Workspace, shown_path

LOG = logging.getLogger(__name__)
OUTPUT = "studio.log"  # of a run folder: what the processes print
POLL = 0.5  # seconds
TAIL = 4000  # bytes of the log that are read
BAR = re.compile(r"(encoding|learning):[^\r\n]*?(\d+)/(\d+)")  # of tqdm
FINISHED = "done; next: bash get_deltas.sh"  # what train.py prints last
SCRIPTS = ("train.py", "get_deltas.py")


def run_name(workspace: Workspace, name: str) -> str:
    """The name of a new run of an object: its own, then NAME_2 ..."""
    names = chain([name], (f"{name}_{number}" for number in count(2)))
    return next(own for own in names if not (workspace.part("runs") / own).exists())


def training_words(
    workspace: Workspace, config: Config, root: Path, name: str, settings: Mapping[str, Any]
) -> list[str]:
    """The command line of scripts/train.py; ValueError if a setting is unknown or not allowed."""
    given = changed(config, settings, "learn")
    load_config(workspace.config, given)
    return [
        *("--config", shown_path(workspace.config), "--dataset-dir", shown_path(root)),
        *("--logdir", shown_path(workspace.part("runs")), "--name", name),
        *given,
    ]


def learning_command(words: Sequence[str], run: Path) -> str:
    """What does the same in a shell."""
    return f"bash train.sh {shlex.join(words)} && bash get_deltas.sh --path {shlex.quote(shown_path(run))}"


class Trainings(threading.Thread):
    """Starts, follows, pauses and ends the training processes, one at a time."""

    def __init__(self, workspace: Workspace, jobs: JobBook) -> None:
        super().__init__(name="trainings", daemon=True)
        self.workspace, self.jobs = workspace, jobs
        self.ending = threading.Event()
        self._child: subprocess.Popen[bytes] | None = None

    def run(self) -> None:
        """Follow the runs that a server before this one started, then those of the queue."""
        for job in reversed(self.running()):
            self._follow_safely(job)
        while not self.ending.is_set():
            taken = self.jobs.take(("learn",), POLL)
            if taken is not None:
                self._follow_safely(taken)

    def stop(self) -> None:
        """End this thread; a training goes on."""
        self.ending.set()

    def running(self) -> list[Job]:
        """The learning jobs that are running."""
        return [job for job in self.jobs.all() if job.kind == "learn" and job.state == "running"]

    def _follow_safely(self, job: Job) -> None:
        try:
            import_pictures()
            self._follow(job)
        except Exception as error:  # a fault of ours, or a full disk: the next job has its turn
            LOG.exception("job %s", job.id)
            self.jobs.end(job.id, "failed", error=" ".join(f"{type(error).__name__}: {error}".split())[:300])

    def _follow(self, job: Job) -> None:
        """Advance a job until it has ended or is paused."""
        tries = 0
        while not self.ending.is_set():
            job = self.jobs.get(job.id)
            run = Path(job.request["run"])
            if job.state_wanted:
                self._end(job, job.state_wanted)
                return
            if self._runs(job):
                self.jobs.update(job.id, **progress_of(run))
                self.ending.wait(POLL)
                continue
            code = None if self._child is None else self._child.poll()
            self._child = None
            if object_file(run).is_file():
                self.jobs.end(job.id, "done", **{**progress_of(run), "message": ""})
                return
            if code or tries > 2:
                self.jobs.end(job.id, "failed", error=last_line(run) or f"the process ended with {code}")
                return
            tries += 1
            self._start(job, run)

    def _start(self, job: Job, run: Path) -> None:
        """Start what the run needs next: training, training resumed, or extraction."""
        run.mkdir(parents=True, exist_ok=True)
        if FINISHED in tail(run):
            script, words, message = "get_deltas", ["--path", shown_path(run)], "extracting"
        elif any((run / "checkpoints").glob("step-*.ckpt")):  # ldm.training would load Lightning
            script, words, message = "train", ["--resume", shown_path(run)], "resuming"
        else:
            script, words, message = "train", list(job.request["words"]), "starting"
        with (run / OUTPUT).open("ab") as log:
            self._child = subprocess.Popen(
                [sys.executable, str(ROOT / "scripts" / f"{script}.py"), *words],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
                env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"},
            )  # fmt: skip
        self.jobs.update(job.id, process=self._child.pid, message=message)

    def _end(self, job: Job, wanted: str) -> None:
        """Pause (the run saves itself at its next step) or cancel a job."""
        if self._runs(job):
            _signal(job.process, signal.SIGTERM if wanted == "paused" else signal.SIGKILL)
        while self._runs(job) and not self.ending.is_set():
            self.jobs.update(job.id, message="saving" if wanted == "paused" else "stopping")
            if self.jobs.get(job.id).state_wanted == "cancelled":
                _signal(job.process, signal.SIGKILL)
            self.ending.wait(POLL)
        if self.ending.is_set():
            return
        self._child = None
        wanted = self.jobs.get(job.id).state_wanted
        found = progress_of(Path(job.request["run"]))
        if wanted == "cancelled":
            self.jobs.end(job.id, "cancelled", **{**found, "message": "its run folder is kept"})
        else:
            paused = {"state": "paused", "state_wanted": "", "process": 0, "seconds_left": None}
            self.jobs.update(job.id, **{**found, **paused, "message": ""})

    def _runs(self, job: Job) -> bool:
        """Whether the job's process runs, be it a child or one that an earlier server started."""
        if self._child is not None and self._child.pid == job.process:
            return self._child.poll() is None
        return is_ours(job.process, Path(job.request["run"]))


def is_ours(process: int, run: Path) -> bool:
    """Whether a process of this number runs one of our scripts on a run folder; numbers are used again."""
    if not process or not runs(process):
        return False
    command = Path(f"/proc/{process}/cmdline")
    if not command.is_file():  # not Linux
        return True
    words = command.read_text(errors="replace").split("\0")
    paths, run = {ROOT / word for word in words}, ROOT / run
    ours = any(ROOT / "scripts" / name in paths for name in SCRIPTS)
    return ours and (run in paths or (run.parent in paths and run.name in words))  # --logdir and --name


def _signal(process: int, number: signal.Signals) -> None:
    """Send a signal to a training; killing takes its worker processes, too."""
    with suppress(ProcessLookupError):  # it has ended by itself
        (os.killpg if number == signal.SIGKILL else os.kill)(process, number)


def object_file(run: Path) -> Path:
    """The object file that get_deltas.py writes."""
    return run / f"{run.name}.safetensors"


def tail(run: Path) -> str:
    """The end of what the processes printed."""
    log = run / OUTPUT
    if not log.is_file():
        return ""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - TAIL))
        return file.read().decode(errors="replace")


def last_line(run: Path) -> str:
    """The error that the processes printed, else their last line."""
    lines = [line.strip() for line in re.split(r"[\r\n]+", tail(run)) if line.strip()]
    errors = [line for line in lines if line.startswith("error: ")]
    return (errors or lines or [""])[-1].removeprefix("error: ")


def progress_of(run: Path) -> dict[str, Any]:
    """How far a run is, from its folder: steps, loss, scores, previews, seconds left."""
    from ldm.validation.score import read_scores

    settings = _settings(run)
    steps = settings.train.max_steps if settings else 0
    rows = _metrics(run)
    found: dict[str, Any] = {
        "steps": steps,
        "loss": [(int(row["step"]), float(row["loss"])) for row in rows],
        "scores": [(score.step, round(score.score, 4)) for score in read_scores(run, steps)],
        "previews": [path.stem for path in sorted((run / "previews").glob("step-*.png"))],
    }
    text = tail(run)
    bars = BAR.findall(text)
    if FINISHED in text:
        found |= {"message": "extracting the object file", "step": steps, "progress": 1.0}
        found["seconds_left"] = None
    elif bars:
        kind, done, total = bars[-1]
        found["message"] = f"{kind} {done} of {total}"
        if kind == "learning":
            step = int(done)
            found |= {"step": step, "progress": step / max(1, int(total))}
            found["seconds_left"] = _seconds_left(run, rows, int(total) - step)
    return found


def _settings(run: Path) -> Config | None:
    """The settings of a run; None before it has written them."""
    file = run / "config.yaml"
    return _read_settings(file, file.stat().st_mtime_ns) if file.is_file() else None


@lru_cache(maxsize=8)
def _read_settings(file: Path, changed: int) -> Config:
    return load_config(file)


def _metrics(run: Path) -> list[dict[str, str]]:
    file = run / "metrics.csv"
    if not file.is_file():
        return []
    with file.open(newline="") as lines:
        return [row for row in csv.DictReader(lines) if row.get("loss") and row.get("step")]


def _seconds_left(run: Path, rows: Sequence[Mapping[str, str]], steps: int) -> float | None:
    """From the logged speed."""
    speeds = [float(row["samples_per_s"]) for row in rows if row.get("samples_per_s")]
    if not speeds:
        return None
    settings = _settings(run)
    if settings is None:
        return None
    t = settings.train
    return round(steps * t.batch_size * t.accumulate_grad_batches / max(speeds[-1], 1e-9), 1)
