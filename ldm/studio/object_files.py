"""What the studio shows of objects: the object files that it can insert, and the photos of a folder."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ldm.config.loader import ROOT
from ldm.data.files import file_digest
from ldm.studio.workspace import Workspace, shown_path

if TYPE_CHECKING:
    from ldm.prepare.object_folder import PreparedObject, PreparedPhoto

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


def photo_entry(name: str, photo: PreparedPhoto, names: Mapping[str, str]) -> dict[str, Any]:
    """What the page shows of one photo of the object `name`; `names`: sha256 => name at its upload."""
    from ldm.data.picture import read_size

    (width, height), digest = read_size(photo.image, convert=True), file_digest(photo.image)
    address = f"/api/objects/{name}/photos/{photo.name}"
    return {
        "id": photo.name,
        "name": names.get(digest, photo.image.name),
        "width": width,
        "height": height,
        "sha256": digest,
        "box": list(photo.box),
        "mask_source": "corrected" if photo.corrected else photo.source,
        "warnings": list(photo.warnings),
        "image": f"{address}/image?v={digest[:8]}",
        "mask": f"{address}/mask?v={photo.mask.stat().st_mtime_ns}",
    }


def read_prepared(root: Path) -> PreparedObject:
    """An object folder with its boxes and silhouettes; it is read again only if a file has changed."""
    return _read_folder(root, tuple(_stamps(root)))


def _stamps(root: Path) -> Iterator[tuple[str, int]]:
    """Names and times of an object folder's files: as long as they stay, so does what was read."""
    parts = [path for part in ("data", "bbox", "mask") for path in (root / part).glob("*")]
    for path in sorted([root / ".prepare.json", *parts]):
        if path.is_file():
            yield str(path), path.stat().st_mtime_ns


@lru_cache(maxsize=64)  # it decodes every photo
def _read_folder(root: Path, stamps: tuple[tuple[str, int], ...]) -> PreparedObject:
    from ldm.prepare.object_folder import read_object_folder

    return read_object_folder(root)
