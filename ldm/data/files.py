"""Files: written whole or not at all, compared by sha256."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO


@contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """A binary file to write; it gets its name only if the block ends well, else nothing stays behind."""
    path = Path(path)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with part.open("w+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def check_folder(folder: Path, given: str) -> None:
    """ValueError if a file stands where a folder to write to, or one that it lies in, must be.

    `given`: the flag with its value, for the message.
    """
    there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    if not there.is_dir():
        raise ValueError(f"{given}: {there} is a file, not a folder; give another name")


def sweep(folder: Path) -> None:
    """Remove from a folder the half-written files of processes that were killed."""
    for part in folder.glob(".*.part"):
        owner = part.name.split(".")[-2]
        if owner.isdecimal() and not _runs(int(owner)):
            part.unlink(missing_ok=True)


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)  # asks, and does nothing
    except ProcessLookupError:
        return False
    except PermissionError:  # somebody else's
        return True
    return True


BLOCK = 1 << 20  # bytes


def file_digest(path: Path) -> str:
    """64 hex digits of a file's bytes; of a folder: of the names and bytes of all files in it.

    Raises FileNotFoundError in one line.
    """
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.is_file())
        return text_digest([[str(file.relative_to(path)), file_digest(file)] for file in files])
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    state = path.stat()
    return _of_bytes(path.resolve(), state.st_size, state.st_mtime_ns)


def text_digest(value: Any) -> str:
    """64 hex digits of plain values (whatever JSON can hold), whatever the order of keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


@lru_cache(maxsize=256)  # one object, mask or reference serves many backgrounds
def _of_bytes(path: Path, size: int, changed: int) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()
