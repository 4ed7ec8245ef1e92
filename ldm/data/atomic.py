"""Files that are whole or absent: written beside their final name, synced, then moved onto it.

Whether they can be is asked before the work is done.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


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
