"""What the campaign's scripts share: scripts run in forks of one process, on bases that cost nothing.

A fork starts without the seconds that imports take. The inserter is `Noise` (real regions, blending, pasting
and files around a model without weights), or the small base of the tests where weights matter.
"""

from __future__ import annotations

import os
import resource
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch

from ldm.batch.runner import RunOptions
from ldm.config import process
from ldm.data.picture import Picture
from ldm.insertion.blend import blend_named
from ldm.insertion.inpaint import Sampling
from ldm.insertion.insert import InsertOptions, insert
from ldm.insertion.object_source import ObjectSource
from ldm.insertion.region import InsertableObject, InsertRequest, ObjectFill, Result
from ldm.models.cross_attention import Contexts
from tests.fixtures.noisy import Noisy

LONG = 60  # seconds of processor time after which a case counts as hanging


class Noise:
    """A session without weights: real insertion, file to file, around `Noisy`."""

    fingerprint = "0123456789abcdef"

    def __init__(self, blend: str = "membrane") -> None:
        self.options = InsertOptions(Sampling("ddim", 2, 1.0), blend_named(blend))

    def load_object(self, source: ObjectSource) -> None:
        source.check()

    def ready(self, source: ObjectSource) -> InsertableObject:
        nothing = torch.zeros(1, 1, 4)
        return InsertableObject(Contexts(nothing, nothing), ObjectFill())  # type: ignore[arg-type]

    def insert(
        self, background: Picture, requests: list[InsertRequest], objects: Any = None
    ) -> list[list[Result]]:
        ready = objects or [self.ready(request.source) for request in requests]
        return insert(Noisy(), background, requests, ready, self.options)  # type: ignore[arg-type]


@contextmanager
def without_weights(blend: str = "membrane") -> Iterator[None]:
    """scripts/inference.py inserts with `Noise`."""
    from scripts import inference

    def session(args: Any, config: Any, options: RunOptions, items: Any) -> tuple[Any, RunOptions]:
        return Noise(blend), options

    with patch.object(inference, "session_for_items", session):
        yield


@dataclass(frozen=True)
class End:
    """How a forked script ended: exit code (negative: killed by this signal), output, seconds, peak MB."""

    code: int
    text: str
    seconds: float
    megabytes: float


def forked(main: Callable[[], None], output: Path, kill_after: float | None = None) -> End:
    """Run a script's `main` in a fork as `run` does; SIGKILL after so many seconds if it still runs."""
    start = time.perf_counter()
    child = os.fork()
    if child == 0:
        _become(main, output)
    limit = 10 * LONG if kill_after is None else kill_after  # other work may share the processor
    while True:
        ended, status, used = os.wait4(child, os.WNOHANG)
        if ended:
            break
        if time.perf_counter() - start > limit:
            os.kill(child, signal.SIGKILL)
            _, status, used = os.wait4(child, 0)
            break
        time.sleep(0.002)
    text = output.read_text("utf-8", "replace")
    return End(os.waitstatus_to_exitcode(status), text, time.perf_counter() - start, used.ru_maxrss / 1024)


def _become(main: Callable[[], None], output: Path) -> None:
    """The fork: its output goes to a file, it ends as a script's process does."""
    code = 0
    resource.setrlimit(resource.RLIMIT_CPU, (LONG, LONG))
    try:
        with output.open("w") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        process.run(main)
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 1
    except BaseException:
        code = 99  # `run` lets nothing through
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
