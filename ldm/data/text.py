"""Text from users: files in UTF-8, and names, of which an unknown one gets the nearest suggested."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any


def read_text(path: Path, kind: str = "file") -> str:
    """A text file in UTF-8, with or without byte order mark; `kind` names it in errors.

    Raises FileNotFoundError, or ValueError in one line if it is no UTF-8.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such {kind}")
    try:
        return path.read_text("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not readable as UTF-8 text ({error.reason}); save it as UTF-8") from error


def suggestion(key: str, known: Iterable[str], where: str = "") -> str:
    """The nearest known name as a question, else all of them; `where` is put before each as `where.name`."""
    names = list(known)
    near = difflib.get_close_matches(key, names, n=1, cutoff=0.5)
    dot = f"{where}." if where else ""
    return f"did you mean {dot}{near[0]}?" if near else f"there are {', '.join(dot + k for k in names)}"


def check_names(given: Mapping[str, Any], known: Iterable[str], where: str) -> None:
    """ValueError that begins with `where`, if a given name is unknown."""
    names = list(known)
    for name in given:
        if name not in names:
            raise ValueError(f"{where}: unknown {name!r}; {suggestion(str(name), names)}")
