"""The studio's folder, and what a request may name in it: no name of a request leads out of the project.

objects/NAME       object folders                 runs/NAME     training runs
backgrounds/ID     a picture and its masks        results/JOB   results of one job
cache/             proxies of pictures            studio.db     jobs
"""

from __future__ import annotations

import json
import re
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ldm.config.loader import ROOT
from ldm.data.files import write_file

NAME = re.compile(r"[A-Za-z0-9][\w-]{0,63}", re.ASCII)  # of objects, ids, masks: safe in paths and shells
FILE_NAME = re.compile(r"[^\w.-]+", re.ASCII)  # what is replaced in the name of an uploaded file
LONGEST = 80  # characters of a stored file's stem
PARTS = ("objects", "backgrounds", "runs", "results", "cache")


@dataclass(frozen=True)
class Workspace:
    """The studio's `folder`, and the settings file `config` of the base that it serves."""

    folder: Path
    config: Path

    def make(self) -> None:
        """Make the folders that are missing."""
        for part in PARTS:
            (self.folder / part).mkdir(parents=True, exist_ok=True)

    def part(self, kind: str, name: str = "") -> Path:
        """A folder of the studio: `kind` is one of PARTS; `name`: a name in it, from a request."""
        assert kind in PARTS, f"no part of the studio's folder: {kind}"
        return self.folder / kind / checked_name(name) if name else self.folder / kind

    @property
    def roots(self) -> tuple[Path, ...]:
        """Folders whose files a request may name: the project's and the studio's."""
        return ROOT, self.folder

    def inside(self, given: str) -> Path:
        """A path of a request, relative to the project or absolute; ValueError if it leads elsewhere.

        Links are followed first, and hidden files are refused.
        """
        path = (ROOT / given).resolve()
        root = next((root.resolve() for root in self.roots if path.is_relative_to(root.resolve())), None)
        if root is None or any(part.startswith(".") for part in path.relative_to(root).parts):
            raise ValueError(f"{given}: not in the project's folder; copy it there first")
        return path


def shown_path(path: Path) -> str:
    """A path as command lines and recipes have it: relative in the project's own folder, else absolute."""
    absolute = path.absolute()
    if Path.cwd() == ROOT and absolute.is_relative_to(ROOT):
        return str(absolute.relative_to(ROOT))
    return str(absolute)


def checked_name(name: str) -> str:
    """The name itself; ValueError if it could be anything but the name of a file or folder."""
    if not NAME.fullmatch(name):
        raise ValueError(f"{name[:80]!r}: expected a name of letters, digits, - and _, at most 64")
    return name


def new_id() -> str:
    """An id that sorts by time, like 20260131-120000-1f9a02."""
    return f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(3)}"


def without_name(line: str) -> str:
    """A warning without its work item in front: a job has one background, and its page shows it."""
    return re.sub(r"^[\w.-]+: ", "", line)


def stored_name(given: str, suffixes: tuple[str, ...]) -> str:
    """The name under which an uploaded file is stored: its own, without what paths or shells would misread.

    ValueError if it has none of the `suffixes`.
    """
    plain = Path(given.replace("\\", "/")).name
    suffix = Path(plain).suffix.lower()
    if suffix not in suffixes:
        raise ValueError(f"{plain[:80]!r}: expected a picture, {', '.join(suffixes)}")
    stem = FILE_NAME.sub("_", Path(plain).stem).strip("._-")[:LONGEST]
    return f"{stem or 'picture'}{suffix}"


def read_json(file: Path) -> dict[str, Any]:
    """A file that `write_json` wrote; FileNotFoundError, or ValueError if it is damaged, in one line."""
    if not file.is_file():
        raise FileNotFoundError(f"{file.parent.name}: no such entry; it may have been removed")
    try:
        return json.loads(file.read_text("utf-8"))
    except ValueError as error:
        raise ValueError(f"{file} is damaged ({error}); restore or remove it") from error


def write_json(file: Path, values: Mapping[str, Any]) -> None:
    """Write atomically."""
    write_file(file, json.dumps(values, indent=1))
