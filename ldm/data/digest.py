"""Files told apart by content: sha256, remembered while a file's size and time of change stay."""

from __future__ import annotations

import hashlib
import json
from functools import lru_cache
from pathlib import Path
from typing import Any

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
