"""results.jsonl of a folder: one line a finished result, appended after its picture is safe on disk.

A line says file, key (all that determines the result), seeds, regions, proof, scores and timings. A picture
carries its key too, so that a run that is killed between the two knows what it has.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from PIL import UnidentifiedImageError

from ldm.data.files import sweep
from ldm.data.picture_write import embedded_text

FILE = "results.jsonl"


class ResultsLog:
    """The results of a folder. Of each only what is asked for stays in memory: thousands do no harm."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.path = folder, folder / FILE
        self._keys: dict[str, str] = {}
        self._seams: dict[str, float] = {}
        folder.mkdir(parents=True, exist_ok=True)
        sweep(folder)
        if self.path.is_file():
            _mend(self.path)
            for row in rows(self.path):
                self._note(row)

    def has(self, file: str, key: str) -> bool:
        """Is this result's line there, and is it the file's last one?"""
        return self._keys.get(file) == key

    def seam(self, file: str) -> float:
        """The seam ratio of a file's last result."""
        return self._seams[file]

    def add(self, row: Mapping[str, Any]) -> None:
        """Append a line, on disk when this returns."""
        with self.path.open("ab") as file:
            file.write((json.dumps(row) + "\n").encode())
            file.flush()
            os.fsync(file.fileno())
        self._note(row)

    def _note(self, row: Mapping[str, Any]) -> None:
        self._keys[row["file"]], self._seams[row["file"]] = row["key"], float(row["seam"])


def rows(path: Path) -> Iterator[dict[str, Any]]:
    """The lines of a journal; ValueError in one line if one is none."""
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            try:
                row = json.loads(line)
                row["file"], row["key"], float(row["seam"])
            except (ValueError, KeyError, TypeError) as error:
                raise ValueError(
                    f"{path}: line {number} is no result ({error!r}); remove the line"
                ) from error
            yield row


def recipe_in(file: Path) -> dict[str, Any]:
    """The recipe that a result carries; {} if there is no such file, or none in it."""
    try:
        return json.loads(embedded_text(file).get("recipe", "{}"))
    except (FileNotFoundError, UnidentifiedImageError, json.JSONDecodeError):
        return {}


def _mend(path: Path) -> None:
    """Cut off a line that was not written to its end."""
    with path.open("rb+") as file:
        content = file.read()
        file.truncate(content.rfind(b"\n") + 1)
