"""The object files that the studio can insert: those of its own runs and of the project's usual folders."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

from ldm.config.loader import ROOT
from ldm.studio.workspace import Workspace, shown_path

FOLDERS = ("logs/*/*.safetensors", "outputs/*.safetensors", "outputs/*/*.safetensors")  # in the project


def object_files(workspace: Workspace) -> list[dict[str, Any]]:
    """All of them, newest first: file, created, steps, score, and `root`, the folder it was learnt from."""
    files = {path.resolve() for path in workspace.part("runs").glob("*/*.safetensors")}
    files |= {path.resolve() for pattern in FOLDERS for path in ROOT.glob(pattern)}
    entries = [entry for file in files if (entry := _facts(file, file.stat().st_mtime_ns))]
    return sorted(entries, key=lambda entry: entry["created"], reverse=True)


def learnt_from(workspace: Workspace, root: Path) -> list[dict[str, Any]]:
    """The object files that were learnt from an object folder, newest first."""
    own = str(root.resolve())
    return [entry for entry in object_files(workspace) if entry["root"] == own]


@lru_cache(maxsize=256)
def _facts(file: Path, changed: int) -> dict[str, Any] | None:
    """What an object file says about itself; None if it is none. `changed`: its time in nanoseconds."""
    from ldm.objects.object_file import read_object_metadata
    from ldm.validation.score import best, read_scores

    try:
        metadata = read_object_metadata(file)
    except (ValueError, FileNotFoundError):
        return None
    root = metadata.recipe.get("data", {}).get("root", "")
    scores = read_scores(file.parent, metadata.step)
    return {
        "file": shown_path(file),
        "created": changed / 1e9,
        "steps": metadata.step,
        "score": round(best(scores).score, 4) if scores else None,
        "root": str((ROOT / root).resolve()) if root else "",
    }
