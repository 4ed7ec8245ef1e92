"""A folder of results: one row of numbers and one picture for each method and scene, kept as they are made.

A row that is there is not made again, unless its `recipe` (all that it depends on) has changed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ldm.data.files import atomic_file
from ldm.data.picture import Picture
from ldm.data.picture_write import write_picture

Row = Mapping[str, Any]
FILE = "results.jsonl"


class Results:
    """The rows of a folder, by method and scene; pictures are `<method>/<scene>.png` in it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.file = Path(folder), Path(folder) / FILE
        self._rows: dict[tuple[str, str], Row] = _read(self.file) if self.file.is_file() else {}

    @property
    def rows(self) -> list[Row]:
        """All rows, in the order in which they were first made."""
        return list(self._rows.values())

    def picture(self, method: str, scene: str) -> Path:
        """Where the picture of a row is."""
        return self.folder / method / f"{scene}.png"

    def has(self, method: str, scene: str, recipe: Row) -> bool:
        """Is this row there, made by the same recipe, with its picture?"""
        row = self._rows.get((method, scene), {})
        return row.get("recipe") == recipe and self.picture(method, scene).is_file()

    def add(self, row: Row, picture: Picture) -> None:
        """Write a row, which names its method and scene, and its picture."""
        path = self.picture(row["method"], row["scene"])
        path.parent.mkdir(parents=True, exist_ok=True)
        write_picture(path, picture, {"row": json.dumps(row)})
        self._rows[row["method"], row["scene"]] = row
        with atomic_file(self.file) as file:
            file.write("".join(json.dumps(r) + "\n" for r in self.rows).encode())


def _read(file: Path) -> dict[tuple[str, str], Row]:
    rows = {}
    for number, line in enumerate(file.read_text("utf-8").splitlines(), start=1):
        try:
            row = json.loads(line)
            rows[row["method"], row["scene"]] = row
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{file}: line {number} is no result ({error!r}); remove the line") from error
    return rows
