"""Work through items, one after the other: what is there already is kept, what is missing is made and proven.

Memory holds one background and its results at a time, however many items there are.
"""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from ldm import __version__
from ldm.batch.results_log import ResultsLog, recipe_in
from ldm.batch.work_item import WorkItem, key_of
from ldm.data.picture import Picture, read_picture
from ldm.data.picture_write import write_picture
from ldm.insertion.crop_plan import Context, regions_of
from ldm.insertion.mask_input import InsertMasks, MaskOptions
from ldm.insertion.object_source import ObjectSource
from ldm.insertion.region import InsertRequest
from ldm.insertion.result_checks import check_result
from ldm.insertion.roi import covered, squared, visible

if TYPE_CHECKING:
    from ldm.insertion.region import Result
    from ldm.insertion.region_fill import ReadyObject


MISTAKES = (ValueError, FileNotFoundError, PermissionError)


class Inserter(Protocol):
    """What a `Session` is to this module."""

    fingerprint: str

    def take_on(self, source: ObjectSource) -> Any: ...

    def ready(self, source: ObjectSource) -> ReadyObject: ...

    def insert(
        self,
        background: Picture,
        requests: Sequence[InsertRequest],
        objects: Sequence[ReadyObject] | None = None,
    ) -> list[list[Result]]: ...


Choose = Callable[[WorkItem, InsertRequest, "list[Result]"], "list[Result]"]


@dataclass(frozen=True)
class Options:
    """How to work. `settings` are the plain values that determine pixels, `facts` what recipes say besides.

    `choose` orders an item's results, the best first, and notes scores in their records. `at_once`: so many
    results of a scene are one batch at most.
    """

    context: Context
    tools: MaskOptions
    settings: Mapping[str, Any]
    facts: Mapping[str, Any] = field(default_factory=dict)
    choose: Choose | None = None
    at_once: int = 8


@dataclass(frozen=True, eq=False)
class Outcome:
    """What became of an item: its result files by seed, which of them are new, or its error.

    `view` is there if all are new: to be looked at, not to be kept.
    """

    item: WorkItem
    files: Mapping[int, str]
    made: Sequence[int] = ()
    error: str = ""
    seconds: float = 0.0
    view: View | None = None


@dataclass(frozen=True, eq=False)
class View:
    """What an item's results were made from, and how they look, one at a time: memory holds few of them."""

    background: Picture
    request: InsertRequest
    results: Iterable[Picture]


def work(
    items: Iterable[WorkItem], inserter: Inserter, options: Options, log: ResultsLog
) -> Iterator[Outcome]:
    """Finish every item; one that cannot be read is reported in its outcome and passed over."""
    for item in items:
        yield _finish(item, inserter, options, log)


def view(outcome: Outcome, options: Options, folder: Path) -> View:
    """How the results look, read from their files if they are not all new."""
    if outcome.view is not None:
        return outcome.view
    pictures = (read_picture(folder / name) for name in outcome.files.values())
    return View(*prepare(outcome.item, options), pictures)


def prepare(item: WorkItem, options: Options) -> tuple[Picture, InsertRequest]:
    """The background and what is to be made of it; one-line errors for whatever does not fit."""
    background, marking = item.case.read(options.tools)
    if item.roi is None:
        return background, planned(item, marking, options.context)
    roi = squared(item.roi, background.size)
    if not covered(marking.hole, roi):
        raise ValueError(f"the given ROI cuts off a part of the mask of {item.case.background}; enlarge it")
    if roi != item.roi:
        height, width = item.roi.size
        warnings.warn(
            f"the given ROI is {width} x {height} px; used is the square around it, "
            f"{roi.x0} {roi.y0} {roi.x1} {roi.y1}",
            stacklevel=2,
        )
    return background, InsertRequest(marking.mask, marking.hole, [roi], item.seeds, item.source)


def planned(item: WorkItem, marking: InsertMasks, context: Context) -> InsertRequest:
    """What is to be made for an item: squares planned from its mask, but for those with nothing to paste."""
    rois = regions_of(marking.hole, context)
    if marking.mask is not marking.hole:
        size = marking.mask.shape[0], marking.mask.shape[1]
        rois = [roi for roi in rois if marking.mask[visible(roi, size).slices].any()]
    return InsertRequest(marking.mask, marking.hole, rois, item.seeds, item.source)


def _finish(item: WorkItem, inserter: Inserter, options: Options, log: ResultsLog) -> Outcome:
    start, files = time.perf_counter(), item.files()
    try:
        digests = item.digests()
        keys = {seed: key_of(item, seed, digests, inserter.fingerprint, options.settings) for seed in files}
        missing = [seed for seed in files if not _is_there(files[seed], keys[seed], item, options, log)]
        if not missing:
            return Outcome(item, files)
        background, request = prepare(item, options)
        item.source.check()
        inserter.take_on(item.source)
    except MISTAKES as error:
        return Outcome(item, files, error=str(error))
    seeds = list(item.seeds) if item.best else missing
    [results] = inserter.insert(background, [replace(request, seeds=seeds)])
    if item.best:
        assert options.choose is not None, "the best of several is chosen by someone"
        results = options.choose(item, request, results)[:1]
    facts = _facts(item, digests, seeds, inserter.fingerprint, options)
    for seed, result in zip(missing, results, strict=True):
        record = {"key": keys[seed], **facts, **result.record}
        write_picture(log.folder / files[seed], result.picture, {"recipe": json.dumps(record)})
        enter(log.folder / files[seed], record, background, request.mask, log)
    seen = View(background, request, (result.picture for result in results))
    whole = len(missing) == len(files)
    return Outcome(item, files, missing, "", time.perf_counter() - start, seen if whole else None)


def _is_there(name: str, key: str, item: WorkItem, options: Options, log: ResultsLog) -> bool:
    """Whether this very result lies in the folder; a line that was lost by a kill is written again."""
    file = log.folder / name
    record = recipe_in(file)
    if record.get("key") != key:
        return False
    if not log.has(name, key):
        background, request = prepare(item, options)
        enter(file, record, background, request.mask, log)
    return True


def enter(
    file: Path, record: Mapping[str, Any], background: Picture, mask: np.ndarray, log: ResultsLog
) -> None:
    """Prove a written result and enter it."""
    proof = check_result(file, background, mask, record["regions"])
    assert proof["outside"] == 0, f"{file}: pixels outside the mask changed by {proof['outside']}"
    log.add({"file": file.name} | {k: v for k, v in record.items() if k != "settings"} | proof)


def _facts(
    item: WorkItem, digests: Mapping[str, str], seeds: Sequence[int], base: str, options: Options
) -> dict[str, Any]:
    """What a recipe says but for the result's own record."""
    roi = item.roi
    return {
        "version": __version__,
        "base_fingerprint": base,
        **{role: str(path) for role, path in item.sources().items()},
        "box": list(item.case.box),
        "roi": None if roi is None else [roi.x0, roi.y0, roi.x1, roi.y1],
        "name": item.stem,
        "object_scale": item.source.object_scale,
        "pick": item.source.pick,
        "batch": list(seeds),
        "best_of": len(item.seeds) if item.best else 0,
        "sha256": dict(digests),
        **options.facts,
    }


SEAMS_SHOW = 1  # exit code if a seam is above the limit; 2 is a mistake before anything was made
SKIPPED = 10  # exit code of no skipped item; each one adds 1
MOST = 100  # skipped items that an exit code tells apart
NAMED = 5  # files that a line names


@dataclass
class RunSummary:
    """Counts outcomes. `max_seam`: the largest seam ratio that is fine; 0: any."""

    max_seam: float = 0
    made: int = 0
    kept: int = 0
    skipped: int = 0
    seams: dict[str, float] = field(default_factory=dict)

    def add(self, outcome: Outcome, log: ResultsLog) -> None:
        """Count one item; results that were there already have a seam too."""
        self.made += len(outcome.made)
        if outcome.error:
            self.skipped += 1
            return
        self.kept += len(outcome.files) - len(outcome.made)
        for file in outcome.files.values():
            if 0 < self.max_seam < log.seam(file):
                self.seams[file] = log.seam(file)

    @property
    def exit_code(self) -> int:
        """0: all is fine; 1: a seam is above the limit; 10 + n: n items were skipped, at most 100 counted."""
        if self.skipped:
            return SKIPPED + min(self.skipped, MOST)
        return SEAMS_SHOW if self.seams else 0

    def complaints(self) -> list[str]:
        """One line for each thing that is not fine."""
        lines = [f"error: {self.skipped} skipped, {self.made + self.kept} done"] if self.skipped else []
        if self.seams:
            worst = sorted(self.seams.items(), key=lambda entry: -entry[1])
            named = ", ".join(f"{file} ({seam:.2f})" for file, seam in worst[:NAMED])
            more = f" and {len(worst) - NAMED} more" if len(worst) > NAMED else ""
            lines.append(f"error: the seam of {named}{more} is above {self.max_seam:g}")
        return lines
