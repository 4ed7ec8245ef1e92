"""The results in the studio's folder: newest first, with what made each of them."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from PIL import Image

from ldm.data.files import PICTURE_SUFFIXES, list_files
from ldm.studio.workspace import Workspace, read_json, shown_path

ID = re.compile(r"([A-Za-z0-9][\w-]{0,63})~([\w.-]{1,120})", re.ASCII)  # folder, name of the file
ASKED = "asked.json"  # of a result folder: what the page asked for, and the command


def result_id(file: Path) -> str:
    """The id of a result file."""
    return f"{file.parent.name}~{file.name}"


@dataclass(frozen=True)
class Result:
    """A result file, its line in the results log, and what was asked for ({}: made in a shell)."""

    file: Path
    row: Mapping[str, Any]
    asked: Mapping[str, Any]


class Results:
    """The results of a workspace."""

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace

    def all(self) -> list[dict[str, Any]]:
        """Newest first; those whose file was removed are left out."""
        found = [one for folder in self.workspace.part("results").iterdir() for one in self._of(folder)]
        found.sort(key=lambda one: (one.file.stat().st_mtime, one.file.name), reverse=True)
        return [self.public(one) for one in found]

    def get(self, own: str) -> Result:
        """A result by its id; FileNotFoundError if there is none."""
        match = ID.fullmatch(own)
        folder = self.workspace.part("results", match[1]) if match else None
        there = [one for one in self._of(folder) if match and one.file.name == match[2]] if folder else []
        if not there:
            raise FileNotFoundError(f"result {own[:80]}: no such result; its file may have been removed")
        return there[0]

    def public(self, one: Result) -> dict[str, Any]:
        """A result as pages see it."""
        own = result_id(one.file)
        address = f"/api/results/{own}"
        with Image.open(one.file) as opened:
            width, height = opened.size
        return {
            "id": own,
            "name": one.file.name,
            "created": one.file.stat().st_mtime,
            "background": one.asked.get("background") or Path(one.row["background"]).name,
            "background_name": one.asked.get("background_name") or Path(one.row["background"]).name,
            "objects": _objects(one),
            "seed": _parts(one)[0].get("seed"),
            "width": width,
            "height": height,
            "image": f"{address}/image",
            "thumb": f"{address}/image?max=512",
            "mask": f"{address}/mask" if any(self.masks(one)) else "",
            "settings": dict(one.asked.get("settings", {})),
            "placements": list(one.asked.get("placements", [])),
            "regions": [region["roi"] for row in _parts(one) for region in row.get("regions", [])],
            "seam": one.row["seam"],
            "seconds": one.row["seconds"],
            "command": one.asked.get("command", ""),
            "removable": bool(one.asked),
        }

    def remove(self, own: str) -> None:
        """Remove a result that the studio made, with its folder if it was the last one in there."""
        one = self.get(own)
        if not one.asked:
            raise ValueError(f"{shown_path(one.file)} was not made by the studio; remove the file yourself")
        one.file.unlink()
        if not list_files(one.file.parent):  # a person may keep pictures there
            shutil.rmtree(one.file.parent)

    def masks(self, one: Result) -> list[Path | None]:
        """The mask picture of each placement; None if it has none, or it is not in the project, or gone."""
        return [self._mask(row.get("mask") or "") for row in _parts(one)]

    def sources(self, one: Result) -> list[Path]:
        """The files that a result was made of, each of which a replay needs."""
        rows = [one.row, *one.row.get("placements", [])]
        return [Path(row[role]) for row in rows for role in row.get("sha256", {}) if role in row]

    def mask(self, one: Result, index: int | None = None) -> bytes:
        """All masks of a result as one PNG, or the one of placement `index`."""
        from io import BytesIO

        import numpy as np

        masks = self.masks(one)
        files = [file for file in (masks if index is None else masks[index : index + 1]) if file]
        if not files:
            raise FileNotFoundError(f"{one.file.name}: no mask picture of it is in the project")
        levels = [np.asarray(Image.open(file).convert("L")) for file in files]
        out = BytesIO()
        Image.fromarray(np.maximum.reduce(levels)).save(out, "PNG")
        return out.getvalue()

    def before(self, one: Result) -> tuple[Path, str]:
        """The background's file, and the key of its content."""
        return self._allowed(one.row["background"]), one.row["sha256"]["background"]

    def recipe(self, one: Result) -> dict[str, Any]:
        """What is embedded in the file, enough to make it again."""
        from ldm.batch.results_log import recipe_in

        return recipe_in(one.file)

    def _allowed(self, path: str) -> Path:
        return self.workspace.inside(str(Path(path).absolute()))

    def _mask(self, path: str) -> Path | None:
        """A mask of a recipe if it is a picture in the project: boxes and polygons are files, too."""
        try:
            file = self._allowed(path)
        except ValueError:
            return None
        return file if file.suffix.lower() in PICTURE_SUFFIXES and file.is_file() else None

    def _of(self, folder: Path) -> list[Result]:
        log = folder / "results.jsonl"
        if not log.is_file():
            return []
        asked = read_json(folder / ASKED) if (folder / ASKED).is_file() else {}
        rows = {row["file"]: row for row in _rows(log, log.stat().st_mtime_ns)}
        files = {folder / name: row for name, row in rows.items() if ID.fullmatch(f"{folder.name}~{name}")}
        return [Result(file, row, asked) for file, row in files.items() if file.is_file()]


@lru_cache(maxsize=512)
def _rows(log: Path, changed: int) -> tuple[dict[str, Any], ...]:
    """The lines of a results log; `changed`: its time in nanoseconds."""
    from ldm.batch.results_log import rows

    return tuple(rows(log))


def _objects(one: Result) -> list[str]:
    """The names of what was inserted."""
    if "placements" in one.asked:
        return [str(p.get("object") or p.get("reference") or "") for p in one.asked["placements"]]
    return [shown_path(Path(row.get("object") or row.get("reference") or "")) for row in _parts(one)]


def _parts(one: Result) -> Sequence[Mapping[str, Any]]:
    """The line of each placement; without a scene that of the result."""
    return one.row.get("placements") or [one.row]
