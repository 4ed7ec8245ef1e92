"""Text from users: files, numbers, names, and YAML.

An unknown name gets the nearest known one suggested. YAML is read as people mean it: whole numbers are
decimal, a date or 1:30 is text, and a key stands only once.
"""

from __future__ import annotations

import codecs
import difflib
import json
import math
import re
from collections.abc import Iterable, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

import yaml

from ldm.data.failure import check_file
from ldm.data.files import PICTURE, START, foreign_kind

Numbers = tuple[float, ...]
REMOVED = {  # name => what an error says
    "paste_mask": "older versions had it; leave it out, the whole mask is pasted",
    "paste_margin": "older versions had it; leave it out, the whole mask is pasted",
}
COUNTS = (4, 5)  # numbers of a box, of a line of YOLO
MAY_BE_THOUSANDS = re.compile(r"[+-]?[1-9]\d{0,2},\d{3}")
WHOLE = 1.01  # shares may be rounded
INT, FLOAT, TIMESTAMP = (f"tag:yaml.org,2002:{kind}" for kind in ("int", "float", "timestamp"))
# YAML 1.1 makes 8 of 010 and 90 of 1:30, and text of 1e-4
WHOLE_NUMBER = re.compile(r"[-+]?(0|[1-9][0-9_]*)$")
DECIMAL_NUMBER = re.compile(
    r"[-+]?([0-9][0-9_]*\.[0-9_]*|\.[0-9][0-9_]*)([eE][-+]?[0-9]+)?$|[-+]?[0-9][0-9_]*[eE][-+]?[0-9]+$"
    r"|[-+]?\.(inf|Inf|INF)$|\.(nan|NaN|NAN)$"
)


def read_text(path: Path, kind: str = "file") -> str:
    """A text file in UTF-8, UTF-16 or UTF-32, with or without byte order mark; `kind` names it in errors.

    Raises FileNotFoundError, or ValueError in one line that shows the first line of another encoding.
    """
    check_file(path, f"a {kind}")
    data = path.read_bytes()
    if data and (known := foreign_kind(path) or ("a picture" if PICTURE.match(data[:START]) else "")):
        raise ValueError(f"{path} is {known.partition('; ')[0]}; expected a {kind}, which is text")
    try:
        return data.decode(_encoding(data)).replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError as error:
        if b"\0" in data:
            raise ValueError(
                f"{path} is binary, no text; give a {kind} as text (spreadsheets: CSV UTF-8)"
            ) from error
        number = data[: error.start].count(b"\n") + 1
        line = data.splitlines()[number - 1][:80].decode("cp1252", "replace")
        raise ValueError(
            f"{path}: not readable as UTF-8 text: line {number}, {line!r} in Windows' old encoding; "
            "save it as UTF-8 (spreadsheets: CSV UTF-8)"
        ) from error


def _encoding(data: bytes) -> str:
    """What a byte order mark says; UTF-16 if every second byte of plain text is zero; else UTF-8."""
    if data.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
        return "utf-32"
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    low, high = data[::2], data[1::2]
    if low and high and not (any(low) and any(high)):
        return "utf-16-be" if any(high) else "utf-16-le"
    return "utf-8-sig"


def numbers_of(value: Any) -> Numbers:
    """Finite numbers from text or a list; ValueError that names the word which is none.

    In text there are blanks, commas or semicolons between them; commas are decimal points where only that
    gives four or five numbers, as in `10,5 20 30,5 40`. `10px` is 10; `10%` is 0.1, and then all are shares.
    """
    if isinstance(value, list | tuple) and not all(isinstance(word, str) for word in value):
        return tuple(map(_number, value))
    if not isinstance(value, str | list | tuple):
        return (_number(value),)
    text = value if isinstance(value, str) else " ".join(value)
    text = re.sub(r"(?<=[\d.])\s*(px\b|%)", lambda unit: unit[1].strip("px"), text.strip().strip("[]()"))
    words = [word.strip(",") for word in re.split(r"[\s;]+", text) if word.strip(",")]
    plain = [part for word in words for part in word.split(",") if part]
    if len(words) in COUNTS and len(plain) > len(words) and all(word.count(",") <= 1 for word in words):
        plain = [word.replace(",", ".") for word in words]
        with_comma = [word for word in words if "," in word]
        if all(MAY_BE_THOUSANDS.fullmatch(word) for word in with_comma):
            both = with_comma[0].replace(",", "."), with_comma[0].replace(",", "")
            raise ValueError(f"{with_comma[0]!r} may be {both[0]} or {both[1]}; write it without comma")
    return _shares(plain) if any(word.endswith("%") for word in plain) else tuple(map(_number, plain))


def _shares(words: list[str]) -> Numbers:
    shares = tuple(_number(word.removesuffix("%")) / 100 for word in words)
    if not all(word.endswith("%") for word in words):
        raise ValueError("only some are per cent; give all as per cent, or all in pixels")
    if not all(1 - WHOLE <= share <= WHOLE for share in shares):
        raise ValueError("per cent of the picture lie between 0% and 100%")
    return shares


def _number(word: Any) -> float:
    """A finite number, or a ValueError that names the word."""
    try:
        value = math.nan if isinstance(word, bool) else float(word)
    except (ValueError, TypeError, OverflowError):
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(f"{repr(word)[:40]} is not a number")
    return value


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
    """The nearest known name as a question, else all of them; `where` is put before each as `where.name`.

    Of a name that older versions had: what replaces it.
    """
    names = list(known)
    if gone := REMOVED.get(key.removeprefix("--")):
        return gone
    near = difflib.get_close_matches(key, names, n=1, cutoff=0.5)
    dot = f"{where}." if where else ""
    return f"did you mean {dot}{near[0]}?" if near else f"there are {', '.join(dot + k for k in names)}"


def check_names(given: Mapping[str, Any], known: Iterable[str], where: str) -> None:
    """ValueError that begins with `where`, if a given name is unknown."""
    names = list(known)
    for name in given:
        if name not in names:
            raise ValueError(f"{where}: unknown {name!r}; {suggestion(str(name), names)}")


def parse_yaml(text: str) -> Any:
    """The values of a YAML text; 010 stays text. ValueError in one line if it is not readable."""
    try:
        return json.loads(json.dumps(yaml.load(text, Loader=_Loader), default=str))
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    except (yaml.YAMLError, ValueError, TypeError) as error:
        raise ValueError(" ".join(str(error).split())) from error


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers = {  # noqa: RUF012 (as in its base class)
        first: [(tag, pattern) for tag, pattern in found if tag not in (INT, FLOAT, TIMESTAMP)]
        for first, found in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def compose_mapping_node(self, anchor: Any) -> Any:
        node, seen = super().compose_mapping_node(anchor), set[str]()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                raise yaml.constructor.ConstructorError(
                    "while constructing a mapping", node.start_mark,
                    f"found the key {key.value!r} twice", key.start_mark,
                )  # fmt: skip
            seen.add(str(key.value))
        return node


for _tag, _pattern in ((INT, WHOLE_NUMBER), (FLOAT, DECIMAL_NUMBER)):
    _Loader.add_implicit_resolver(_tag, _pattern, list("-+.0123456789"))
