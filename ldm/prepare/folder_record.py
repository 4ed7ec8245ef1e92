"""What was proposed for an object folder, as hashes in its `.prepare.json`; other files are a person's."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

from ldm.data.files import atomic_file, file_digest
from ldm.data.insertset import PREPARED
from ldm.prepare.proposal import Source

VERSION = 1


@dataclass
class PhotoRecord:
    """Of one photo: sha256 of the photo, its proposed box file and mask, and of the box the mask is for."""

    photo: str
    box: str = ""
    mask: str = ""
    mask_for: str = ""
    source: Source = "proposed"
    segmenter: str = ""
    warnings: list[str] = field(default_factory=list)


@dataclass
class FolderRecord:
    """`photos` by name (the file's stem in data/), those that were removed too.

    `reference`: the photo that it shows, "" if another picture; `chosen`: a person chose it; `files`: sha256
    by file name of the reference and its silhouette.
    """

    photos: dict[str, PhotoRecord] = field(default_factory=dict)
    reference: str = ""
    chosen: bool = False
    files: dict[str, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)


def read_record(root: Path) -> FolderRecord:
    """The folder's record, empty if there is none; ValueError if it is not readable."""
    path = root / PREPARED
    if not path.is_file():
        return FolderRecord()
    try:
        stored = json.loads(path.read_text("utf-8"))
        if stored.pop("version") != VERSION:
            raise ValueError("another version")
        photos = {name: PhotoRecord(**entry) for name, entry in stored.pop("photos").items()}
        return FolderRecord(photos, **stored)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(
            f"{path}: not readable ({error}); remove it, then boxes and masks in the folder are kept"
        ) from error


def write_record(root: Path, record: FolderRecord) -> None:
    with atomic_file(root / PREPARED) as file:
        file.write(json.dumps({"version": VERSION, **asdict(record)}, indent=1).encode())


def changed(path: Path, recorded: str) -> bool:
    """Whether the file is there and is not the one that was recorded."""
    return path.is_file() and file_digest(path) != recorded
