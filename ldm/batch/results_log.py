"""results.jsonl of a folder: one line for each result, appended after its image is safe on disk.

A line has file, key (a hash of all that determines the result), seed, regions, checks, scores and timings.
The image holds its key too: after a run that was killed between the two writes it is known what exists.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from ldm.data.exif import BROKEN
from ldm.data.failure import naming_failure, of_machine, one_line
from ldm.data.files import check_reports, overwritten, sweep
from ldm.data.picture import Picture, read_picture
from ldm.data.picture_write import embedded_text

if TYPE_CHECKING:
    from ldm.batch.work_item import WorkItem

FILE = "results.jsonl"
COMPARISON = "comparison.png"
PIXELS = "pixels"  # of a recipe: the hash of its result's pixels
CUT_OUT_NETWORK = "base.segmenter_file"  # likewise, of the network that cuts out objects
SHEET = {"software": "implicit-insertion"}  # text in pictures without a recipe
UNREADABLE = (*BROKEN, Image.DecompressionBombError)
PNG_END = b"IEND\xaeB`\x82"


class ResultsLog:
    """The log of a folder. Memory holds only key and seam of each result, so thousands are fine."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.path = folder, folder / FILE
        self._keys: dict[str, str] = {}
        self._seams: dict[str, float] = {}
        folder.mkdir(parents=True, exist_ok=True)
        sweep(folder)
        if self.path.is_file():
            cut_partial_line(self.path)
            for row in rows(self.path):
                self._note(row)

    def has(self, file: str, key: str) -> bool:
        """Whether the last line of this file has this key."""
        return self._keys.get(file) == key

    def seam(self, file: str) -> float:
        """The seam ratio in the last line of a file."""
        return self._seams[file]

    def add(self, row: Mapping[str, Any]) -> None:
        """Append a line; it is on disk when this returns."""
        append(self.path, row)
        self._note(row)

    def _note(self, row: Mapping[str, Any]) -> None:
        self._keys[row["file"]], self._seams[row["file"]] = row["key"], float(row["seam"])


def append(path: Path, row: Mapping[str, Any]) -> None:
    """Append a line to a results log; it is on disk when this returns."""
    with naming_failure(path), path.open("ab") as file:
        file.write((json.dumps(row) + "\n").encode())
        file.flush()
        os.fsync(file.fileno())


def rows(path: Path, needed: Sequence[str] = ("file", "key", "seam")) -> Iterator[dict[str, Any]]:
    """The lines of a results log, but a last one that was not written completely.

    ValueError if a line is not readable, or lacks what is `needed`.
    """
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            if not line.endswith("\n"):
                return
            try:
                row = json.loads(line)
                [row[key] for key in needed], float(row.get("seam", 1))
            except (ValueError, KeyError, TypeError) as error:
                why = f"has no {error}" if isinstance(error, KeyError) else error
                raise ValueError(
                    f"{path}: line {number} is no result of this program ({why}); "
                    "move the file to another folder, or remove the line"
                ) from error
            yield row


def recipe_in(file: Path) -> dict[str, Any]:
    """The recipe in the metadata of a result; {} if there is no such file, or no recipe to be read."""
    try:
        found = json.loads(embedded_text(file).get("recipe", "{}"))
    except UNREADABLE as error:
        if of_machine(error):
            raise
        return {}
    return found if isinstance(found, dict) and "key" in found else {}


def finished_recipe(file: Path) -> dict[str, Any]:
    """The recipe of a result, as `recipe_in`; {} also if its PNG file is cut off behind the recipe."""
    recipe = recipe_in(file)
    if not recipe:
        return {}
    with file.open("rb") as content:
        content.seek(-len(PNG_END), os.SEEK_END)
        return recipe if content.read() == PNG_END else {}


def pixel_digest(picture: Picture) -> str:
    """sha256 of a picture's pixels, 64 hex digits."""
    return hashlib.sha256(np.ascontiguousarray(picture.pixels).data).hexdigest()


def check_unedited(file: Path) -> None:
    """ValueError if a result, which is to be replaced, has other pixels than its recipe says."""
    recipe = finished_recipe(file)
    if PIXELS in recipe and recipe[PIXELS] != pixel_digest(read_picture(file)):
        raise ValueError(
            f"{file} was edited since this program wrote it, and would be overwritten; "
            "move it, or give another --outdir"
        )


def check_log(folder: Path, inputs: Iterable[Path]) -> None:
    """ValueError if a folder's results log would be one of the inputs, or is a file of another program."""
    if lost := overwritten([folder / FILE], inputs):
        raise ValueError(f"{lost}: the results log of this run has the same name; give another --outdir")
    check_reports(folder, {FILE: '{"file":'}, "another --outdir")


def check_outputs(pictures: Iterable[Path], inputs: Iterable[Path], remedy: str = "another --outdir") -> None:
    """ValueError if a picture to be written would replace an input, or one not written by this program."""
    pictures = list(pictures)
    if lost := overwritten(pictures, inputs):
        raise ValueError(f"{lost} would be overwritten by a result; give {remedy}")
    for picture in pictures:
        if picture.exists() and not (picture.is_file() and _is_written_here(picture)):
            raise ValueError(
                f"{picture} was not written by this program and would be overwritten by a result; "
                f"move it, or give {remedy}"
            )


def _is_written_here(picture: Path) -> bool:
    try:
        text = embedded_text(picture)
        return SHEET.items() <= text.items() or "row" in text or bool(recipe_in(picture))
    except UNREADABLE:
        return False


def cut_partial_line(path: Path) -> None:
    """Remove a last line that was not written completely."""
    with path.open("rb+") as file:
        content = file.read()
        file.truncate(content.rfind(b"\n") + 1)


@dataclass(frozen=True, eq=False)
class ItemResult:
    """The result files of an item by seed, the seeds that were made in this run, or the item's error."""

    item: WorkItem
    files: Mapping[int, str]
    made: Sequence[int] = ()
    error: str = ""
    seconds: float = 0.0

    def lines(self, log: ResultsLog) -> Iterator[str]:
        """One line for each result file."""
        for seed, file in self.files.items():
            done = f"{self.seconds / len(self.made):.1f} s" if seed in self.made else "exists already"
            yield one_line(f"{log.folder / file}: {done}, seam {log.seam(file):.2f}")


SEAMS_SHOW = 1  # exit code if a seam is above the limit; 2 is a mistake before anything was made
SKIPPED = 10  # exit code of no skipped item; each one adds 1
MOST = 100  # more skipped items give the same exit code
NAMED = 5  # files that a line names


@dataclass
class RunSummary:
    """Counts the results of a run: new ones, those of earlier runs; and the items that were skipped.

    `max_seam`: the largest accepted seam ratio; 0: no limit. `seams`: the files above it.
    """

    max_seam: float = 0
    made: int = 0
    existing: int = 0
    failed: list[WorkItem] = field(default_factory=list)
    seams: dict[str, float] = field(default_factory=dict)

    def add(self, result: ItemResult, log: ResultsLog) -> None:
        """Count the results of one item; the seams of existing ones are checked too."""
        if result.error:
            self.failed.append(result.item)
            return
        self.made += len(result.made)
        self.existing += len(result.files) - len(result.made)
        for file in result.files.values():
            if 0 < self.max_seam < log.seam(file):
                self.seams[file] = log.seam(file)

    @property
    def exit_code(self) -> int:
        """0: no problem; 1: a seam is above the limit; 10 + n: n items were skipped, at most 100."""
        if self.failed:
            return SKIPPED + min(len(self.failed), MOST)
        return SEAMS_SHOW if self.seams else 0

    def problems(self) -> list[str]:
        """One line for each kind of problem."""
        out = []
        if self.failed:
            out.append(f"error: {len(self.failed)} skipped, {self.made + self.existing} done")
        if self.seams:
            worst = sorted(self.seams.items(), key=lambda entry: -entry[1])
            named = ", ".join(f"{file} ({seam:.2f})" for file, seam in worst[:NAMED])
            more = f" and {len(worst) - NAMED} more" if len(worst) > NAMED else ""
            out.append(f"error: the seam of {named}{more} is above {self.max_seam:g}")
        return out
