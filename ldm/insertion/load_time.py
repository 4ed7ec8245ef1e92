"""How long an object file takes until a base carries it, and what of the base it needs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, TypeVar

from ldm.insertion.blend import BLENDS
from ldm.insertion.sampling import Sampling
from ldm.insertion.session import open_session
from ldm.insertion.subject import Subject
from ldm.models.architecture import Architecture
from ldm.objects import baked
from ldm.objects.file import read_about
from ldm.objects.merged import load_merged

T = TypeVar("T")


@dataclass(frozen=True)
class LoadTime:
    """Seconds: `base` to load what the object needs of the base, `object` from its file to its constants."""

    file: Path
    kind: str
    bytes: int
    base: float
    object: float


def load_times(
    files: Sequence[Path], path: Path, architecture: Architecture, repeats: int = 5, device: str = "cpu"
) -> Iterator[LoadTime]:
    """The load time of each file, for the base at `path`: the base's once, the object's median of `repeats`.

    A merged file is timed with its first object. Files come from the system's cache where it holds them.
    Raises ValueError or FileNotFoundError in one line for a file that does not fit.
    """
    if repeats < 1:
        raise ValueError(f"repeats {repeats}: expected 1 or more")
    subjects = [_subject(file) for file in files]
    for alone in (True, False):  # one base after the other: two may not fit into memory
        those = [subject for subject in subjects if (subject.kind() == "baked") == alone]
        yield from _load_times(those, path, architecture, repeats, device) if those else ()


def load_time_table(times: Sequence[LoadTime]) -> list[str]:
    """A line a file."""
    lines = [f"{'file':40} {'kind':>7} {'MB':>8} {'base, s':>8} {'object, s':>10}"]
    for t in times:
        lines.append(f"{t.file.name:40} {t.kind:>7} {t.bytes / 2**20:8.2f} {t.base:8.2f} {t.object:10.3f}")
    return lines


def _subject(file: Path) -> Subject:
    """An object of the file; of a merged one the first."""
    return Subject(file, pick=load_merged(file).names[0] if read_about(file).kind == "merged" else "")


def _load_times(
    subjects: Sequence[Subject], path: Path, architecture: Architecture, repeats: int, device: str
) -> Iterator[LoadTime]:
    """Of subjects that need the same of the base."""
    base, session = _timed(
        open_session, path, architecture, subjects, Sampling(), BLENDS["paste"], "raw", device
    )
    for subject in subjects:
        assert subject.object is not None
        if subject.kind() == "baked":
            made = baked.load(subject.object)
            session.sampling = Sampling(guidance_from=baked.guidance_from(made), view=baked.view(made))
        seconds = []
        for _ in range(repeats):
            session.put_down()  # one that carries the subject already would have nothing to do
            seconds.append(_timed(session.take_on, subject)[0])
        size = subject.object.stat().st_size
        yield LoadTime(subject.object, subject.kind(), size, base, median(seconds))


def _timed(work: Callable[..., T], *arguments: Any) -> tuple[float, T]:
    """Seconds, and what the work came to."""
    start = time.perf_counter()
    done = work(*arguments)
    return time.perf_counter() - start, done
