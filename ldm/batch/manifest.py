"""Long lists of work: a manifest (CSV or JSONL) or a test bench of the paper's => items, checked as a list.

Pictures are not opened here: one that is broken costs its own result, not a thousand others.
"""

from __future__ import annotations

import csv
import json
import re
import shlex
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

from ldm.batch.work_item import MaskedBackground, WorkItem, pair, pair_name
from ldm.data.boxes import parse_box
from ldm.data.failure import check_file
from ldm.data.files import list_files, one_per_stem, path_of, pictures_in
from ldm.data.text import check_names, read_text, whole_number

COLUMNS = ("background", "mask", "box", "object", "reference", "pick", "seed", "name")
FILES = ("background", "mask", "object", "reference")


def read_manifest(path: Path, like: WorkItem, transparent: bool = False) -> list[WorkItem]:
    """One item a line: background, mask or box, and, if given, object, reference, seed, name.

    Paths are relative to the manifest. What a line does not say is as in `like`; an object in a line brings
    its own reference. Raises one-line errors that name the line.
    """
    lines = read_lines(path, COLUMNS)
    return [_item(values, where, path.parent, like, transparent) for where, values in lines]


def read_lines(path: Path, columns: Sequence[str]) -> list[tuple[str, dict[str, Any]]]:
    """Of each line of a manifest where it is, and what it says under these columns; empty values left out."""
    check_file(path, "a manifest", "expected a .csv or .jsonl file")
    readers = {".csv": _csv_lines, ".jsonl": _json_lines}
    if path.suffix.lower() not in readers:
        raise ValueError(f"{path}: expected a manifest of kind .csv or .jsonl")
    lines = list(readers[path.suffix.lower()](path, columns))
    if not lines:
        expected = f"one {columns[0]} a line, columns {', '.join(columns)}"
        raise ValueError(f"{path}: lists nothing; write {expected}")
    for where, values in lines:
        if broken := [key for key, value in values.items() if isinstance(value, str) and "\n" in value]:
            raise ValueError(f"{where}: {broken[0]} holds a line break; close the quote before it")
    return lines


def bench_backgrounds(folder: Path, ids: Path | None = None) -> list[MaskedBackground]:
    """`image/NNNN_img.png` with `mask/NNNN_mask.png`; those of a list file, in its order.

    Each of its lines begins with an id, 1 or 0001 for the pictures 0001; what follows does not count. The
    list is the folder's one .txt file if none is given; without any, all pictures count.
    """
    for needed in (folder / "image", folder / "mask"):
        if not needed.is_dir():
            raise FileNotFoundError(f"{needed}: no such folder; expected a test bench with image/ and mask/")
    lists = [ids] if ids else list_files(folder, (".txt",))
    if not lists:
        return pair([folder / "image"], [folder / "mask"])
    if len(lists) > 1:
        there = ", ".join(file.name for file in lists)
        raise ValueError(
            f"{folder}: {len(lists)} list files, {there}; choose one, like "
            f"--list {shlex.quote(str(lists[0]))}, or leave only one there"
        )
    [file] = lists
    check_file(file, "a list", "expected a file with one id a line")
    images, masks = _by_id(folder / "image"), _by_id(folder / "mask")
    wanted = _ids(file, images)
    for files, kind in ((images, "image"), (masks, "mask")):
        if missing := [name for name in wanted if _among(files, name) is None]:
            raise ValueError(
                f"{file}: no {kind} for {', '.join(missing[:3])} ({len(missing)} of {len(wanted)} ids); "
                f"add {kind}/{missing[0]}_{'img' if kind == 'image' else 'mask'}.png or take the line out"
            )
    if not wanted:
        raise ValueError(f"{file}: lists nothing; write one id a line, like 0001")
    return [
        MaskedBackground(found, _among(masks, name)) for name in wanted if (found := _among(images, name))
    ]


def _ids(file: Path, pictures: Collection[str]) -> list[str]:
    """The first word of each line; ValueError if more words are names of pictures: one id a line is read."""
    ids = []
    for number, line in enumerate(read_text(file).splitlines(), start=1):
        first, *more = line.replace(",", " ").replace(";", " ").split() or [""]
        if several := [word for word in more if word in pictures]:
            raise ValueError(
                f"{file}: line {number} has the ids {first} and {several[0]}; write one id a line"
            )
        ids += [first] if first else []
    return ids


def _among(files: Mapping[str, Path], name: str) -> Path | None:
    """The file of an id: the one of this name, else the one file whose name is the same number."""
    if name in files or not name.isdecimal():
        return files.get(name)
    same = [file for known, file in files.items() if known.isdecimal() and int(known) == int(name)]
    return same[0] if len(same) == 1 else None


def _by_id(folder: Path) -> dict[str, Path]:
    return one_per_stem(pictures_in(folder), pair_name)


def _csv_lines(path: Path, columns: Sequence[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    text = read_text(path)
    head, _, rest = text.lstrip("\n").partition("\n")
    if named := re.fullmatch("sep=(.)", head.strip()):  # a spreadsheet's own line
        text = "\n" + rest
    signs = (",", ";", "\t")  # the latter as in some languages
    delimiter = named[1] if named else next((sign for sign in signs if sign in head), ",")
    names = list[str]()
    for number, row in _rows(path, text, delimiter):
        values, where = [value.strip() for value in row], f"{path}: line {number}"
        if not any(values):
            continue
        if not names:
            names = [value.lower() for value in values]
            while not names[-1]:  # an empty column
                names.pop()
            check_names(dict.fromkeys(names), columns, where)
            if twice := [name for name in names if names.count(name) > 1]:
                raise ValueError(f"{where}: the column {twice[0]} stands there twice; leave one out")
            continue
        if any(values[len(names) :]):
            sign = "tab" if delimiter == "\t" else delimiter
            raise ValueError(f"{where}: more values than columns; put quotes around what holds a {sign}")
        yield where, {key: value for key, value in zip(names, values, strict=False) if value}


def _rows(path: Path, text: str, delimiter: str) -> list[tuple[int, list[str]]]:
    """Number and cells of each line of a table; blanks behind a delimiter do not count."""
    reader = csv.reader(StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True)
    try:
        return [(reader.line_num, row) for row in reader]
    except csv.Error as error:
        raise ValueError(
            f"{path}: line {reader.line_num}: not readable as a table ({error}); close the quote before it"
        ) from error


def _json_lines(path: Path, columns: Sequence[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        where = f"{path}: line {number}"
        if not line.strip():
            continue
        try:
            values = json.loads(line.strip().removesuffix(","), object_pairs_hook=_each_once)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{where}: not readable as JSON ({error})") from error
        if not isinstance(values, dict):
            raise ValueError(f'{where}: expected {{"{columns[0]}": ..., ...}}')
        check_names(values, columns, where)
        yield where, {key: value for key, value in values.items() if value not in (None, "", [])}


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object as a dict; ValueError if a key stands in it twice."""
    values = dict(pairs)
    if len(values) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"{next(key for key in keys if keys.count(key) > 1)!r} stands there twice")
    return values


def _item(values: Mapping[str, Any], where: str, root: Path, like: WorkItem, transparent: bool) -> WorkItem:
    if "background" not in values:
        raise ValueError(f"{where}: no background; give its path in the column background")
    if ("mask" in values) + ("box" in values) + transparent != 1:
        raise ValueError(f"{where}: expected one of mask and box" + (", or neither" if transparent else ""))
    paths = {key: path_of(str(values[key]), root) for key in FILES if key in values}
    box = parse_box(values["box"], where) if "box" in values else ()
    first = whole_number(values.get("seed", like.seeds[0]), f"{where}: seed")
    name = str(values.get("name", ""))
    if name != Path(name).name:
        raise ValueError(f"{where}: name {name!r}; expected a name without folders")
    source = replace(like.source, reference=paths.get("reference", like.source.reference))
    if "object" in values:
        source = replace(like.source, object=paths["object"], reference=paths.get("reference"), pick="")
    source = replace(source, pick=str(values.get("pick", source.pick)))
    seeds = tuple(first + i for i in range(len(like.seeds)))
    masked = MaskedBackground(paths["background"], paths.get("mask"), box)
    try:
        return replace(like, masked=masked, source=source, seeds=seeds, name=name)
    except ValueError as error:  # of the seeds
        raise ValueError(f"{where}: {error}") from error
