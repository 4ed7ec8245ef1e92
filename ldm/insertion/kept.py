"""What placements of scenes made, kept in a folder by the content of all that determines it.

A file is named by its key, holds the pixels of a mask's box and carries its record. Each use makes it young
again; what was not used for longest goes first when the folder grows too large.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ldm.data.atomic import sweep
from ldm.data.picture import Picture, read_picture
from ldm.data.save import write_picture
from ldm.insertion.journal import recipe_in


class Kept:
    """The placements of a folder; the ones that this run used are never removed by it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        sweep(folder)
        self._used: set[Path] = set()

    def record(self, key: str) -> dict[str, Any]:
        """What a placement's record says; {} if it is not kept."""
        return recipe_in(self._file(key))

    def pixels(self, key: str) -> np.ndarray:
        """What is kept under the key, [h,w,C]."""
        file = self._file(key)
        os.utime(file)
        self._used.add(file)
        return read_picture(file).pixels

    def add(self, key: str, pixels: np.ndarray, record: Mapping[str, Any]) -> None:
        """Keep what lies in a mask's box."""
        self.folder.mkdir(parents=True, exist_ok=True)
        write_picture(self._file(key), Picture(pixels), {"recipe": json.dumps(record)})

    def prune(self, limit: float) -> list[Path]:
        """Remove what was not used for longest until `limit` bytes are left, or what this run used."""
        files = sorted(self.folder.glob("*.png"), key=lambda file: file.stat().st_mtime)
        excess = sum(file.stat().st_size for file in files) - limit
        removed = []
        for file in files:
            if excess <= 0:
                break
            if file not in self._used:
                excess -= file.stat().st_size
                file.unlink()
                removed.append(file)
        return removed

    def _file(self, key: str) -> Path:
        return self.folder / f"{key}.png"
