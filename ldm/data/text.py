"""Text from users: files in UTF-8, and names, of which an unknown one gets the nearest suggested."""

from __future__ import annotations

import codecs
import difflib
from collections.abc import Iterable, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

from ldm.data.files import PICTURE, START, foreign_kind


def read_text(path: Path, kind: str = "file") -> str:
    """A text file in UTF-8 or UTF-16, with or without byte order mark; `kind` names it in errors.

    Raises FileNotFoundError, or ValueError in one line that shows the first line of another encoding.
    """
    if path.is_dir():
        raise ValueError(f"{path} is a folder; give a {kind}")
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such {kind}")
    data = path.read_bytes()
    if data and (known := foreign_kind(path) or ("a picture" if PICTURE.match(data[:START]) else "")):
        raise ValueError(f"{path} is {known.partition('; ')[0]}; expected a {kind}, which is text")
    try:
        return data.decode(_encoding(data)).replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError as error:
        number = data[: error.start].count(b"\n") + 1
        line = data.splitlines()[number - 1][:80].decode("cp1252", "replace")
        raise ValueError(
            f"{path}: not readable as UTF-8 text: line {number}, {line!r} in Windows' old encoding; "
            "save it as UTF-8 (spreadsheets: CSV UTF-8)"
        ) from error


def _encoding(data: bytes) -> str:
    """UTF-16 if a byte order mark says so, or if every second byte of plain text is zero; else UTF-8."""
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    low, high = data[::2], data[1::2]
    if low and high and not (any(low) and any(high)):
        return "utf-16-be" if any(high) else "utf-16-le"
    return "utf-8-sig"


def whole_number(value: Any, where: str) -> int:
    """A whole number as people and spreadsheets write it, 3, "3" or 3.0; errors begin with `where`."""
    try:
        number = Decimal(str(value))
        if number % 1:  # a decimal of more than 28 digits cannot be divided, either
            raise ValueError(f"{value} has a fraction")
        return int(number)
    except (ValueError, ArithmeticError) as error:
        raise ValueError(f"{where} {value!r}; expected a whole number") from error


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
