"""Jobs: what was asked for, how far it is. They are kept in one SQLite file and survive the server.

A job waits in a queue, fair between browser tabs: the tab that was served longest ago is next.
"""

from __future__ import annotations

import json
import math
import sqlite3
import threading
import time
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from ldm.studio.workspace import new_id

ENDED = ("done", "failed", "cancelled")
PRIVATE = ("client", "request", "process", "state_wanted")  # of a job, not for the pages
QUICK = {"progress", "step", "steps", "seconds_left", "previews", "loss", "scores", "message"}  # change often


@dataclass(frozen=True)
class Job:
    """One job. `kind`: learn, insert or replay. `request`: what was asked for, as plain data.

    `process`: of a training run, 0: none. `state_wanted`: paused or cancelled, as soon as the job notices.
    `previews`: names of pictures.
    """

    id: str
    kind: str
    client: str
    request: Mapping[str, Any]
    state: str = "queued"
    created: float = 0.0
    started: float | None = None
    finished: float | None = None
    progress: float = 0.0
    step: int = 0
    steps: int = 0
    seconds_left: float | None = None
    message: str = ""
    loss: list[tuple[int, float]] = field(default_factory=list)
    scores: list[tuple[int, float]] = field(default_factory=list)
    previews: list[str] = field(default_factory=list)
    results: list[str] = field(default_factory=list)
    error: str = ""
    command: str = ""
    object: str = ""
    background: str = ""
    process: int = 0
    state_wanted: str = ""

    def public(self) -> dict[str, Any]:
        """The job as pages see it."""
        values = {key: _finite(value) for key, value in asdict(self).items() if key not in PRIVATE}
        return values | {"previews": [f"/api/jobs/{self.id}/previews/{name}" for name in self.previews]}


def _finite(value: Any) -> Any:
    """A value with None for numbers that JSON does not have: the loss of a run that diverged is NaN."""
    if isinstance(value, list | tuple):
        return [_finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


class JobBook:
    """All jobs, in memory and in a SQLite file; safe to use from several threads."""

    def __init__(self, file: Path) -> None:
        self._changed = threading.Condition()
        self._file = sqlite3.connect(file, check_same_thread=False, isolation_level=None)
        try:
            self._file.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError:  # locked, a full disk
            raise
        except sqlite3.DatabaseError as error:
            raise ValueError(
                f"{file} is no database of the studio ({error}); move it, or give another --folder"
            ) from error
        self._file.execute("CREATE TABLE IF NOT EXISTS jobs (id TEXT PRIMARY KEY, body TEXT NOT NULL)")
        self._jobs: dict[str, Job] = {}
        self._served: dict[str, float] = {}  # client => when a job of it was taken last
        known = {f.name for f in fields(Job)}
        for (body,) in self._file.execute("SELECT body FROM jobs ORDER BY id"):
            job = Job(**{key: value for key, value in json.loads(body).items() if key in known})
            self._jobs[job.id] = job

    def add(self, kind: str, client: str, request: Mapping[str, Any], own: str = "", **facts: Any) -> Job:
        """Put a new job into the queue; `own`: its id, made by `new_id`, if it is known already."""
        with self._changed:
            job = Job(own or new_id(), kind, client, request, created=time.time(), **facts)
            self._jobs[job.id] = job
            self._save(job)
            self._changed.notify_all()
            return job

    def all(self) -> list[Job]:
        """Newest first."""
        with self._changed:
            return sorted(self._jobs.values(), key=lambda job: (job.created, job.id), reverse=True)

    def get(self, own: str) -> Job:
        """A job by its id; FileNotFoundError if there is none."""
        with self._changed:
            if own not in self._jobs:
                raise FileNotFoundError(f"job {own[:40]}: no such job")
            return self._jobs[own]

    def update(self, own: str, **changes: Any) -> Job:
        """Change a job; it is saved, unless nothing but quickly changing values is new."""
        with self._changed:
            job = replace(self._jobs[own], **changes)
            self._jobs[own] = job
            if not changes.keys() <= QUICK:
                self._save(job)
            self._changed.notify_all()
            return job

    def end(self, own: str, state: str, message: str = "", **changes: Any) -> Job:
        """Finish a job: done, failed or cancelled; `message` replaces what it was doing."""
        assert state in ENDED, state
        ended = {
            "state": state,
            "finished": time.time(),
            "seconds_left": None,
            "process": 0,
            "message": message,
        }
        return self.update(own, **{**changes, **ended})

    def ask(self, own: str, wanted: str) -> Job:
        """Ask a job to become paused, cancelled or queued (again); ValueError if it cannot.

        One that waits changes at once; a running one when it notices `state_wanted`.
        """
        with self._changed:
            job = self.get(own)
            allowed = {"paused": ("queued", "running"), "queued": ("paused",)}
            if job.state not in allowed.get(wanted, ("queued", "running", "paused")):
                raise ValueError(f"the job is {job.state}; it cannot be {wanted} now")
            if wanted == "paused" and job.kind != "learn" and job.state == "running":
                raise ValueError("only learning can be paused while it runs; cancel it, or let it finish")
            if job.state == "running":
                return self.update(own, state_wanted=wanted)
            if wanted == "cancelled":
                return self.end(own, "cancelled")
            return self.update(own, state=wanted, state_wanted="")

    def take(self, kinds: Collection[str], timeout: float) -> Job | None:
        """The next waiting job of these kinds, now running; None if none came in `timeout` seconds."""
        with self._changed:
            self._changed.wait_for(lambda: self._next(kinds) is not None, timeout)
            job = self._next(kinds)
            if job is None:
                return None
            self._served[job.client] = time.monotonic()
            return self.update(job.id, state="running", started=job.started or time.time(), state_wanted="")

    def _next(self, kinds: Collection[str]) -> Job | None:
        waiting = [job for job in self._jobs.values() if job.state == "queued" and job.kind in kinds]
        return min(waiting, key=lambda job: (self._served.get(job.client, 0.0), job.created), default=None)

    def _save(self, job: Job) -> None:
        self._file.execute("INSERT OR REPLACE INTO jobs VALUES (?, ?)", (job.id, json.dumps(asdict(job))))

    def close(self) -> None:
        """Close the file."""
        with self._changed:
            self._file.close()
