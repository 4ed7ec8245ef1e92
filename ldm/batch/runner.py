"""Make the results of work items: results that exist already are kept, missing ones are made and checked.

Memory holds one background and its results at a time, however many items there are.
"""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ldm import __version__
from ldm.batch.contact_sheet import MOST_ROWS, Report, contact_sheet, sheet_row, write_plan
from ldm.batch.results_log import (
    PIXELS,
    SHEET,
    ItemResult,
    ResultsLog,
    RunSummary,
    check_unedited,
    finished_recipe,
    pixel_digest,
)
from ldm.batch.work_item import WorkItem, key_of, roi_in
from ldm.data.failure import if_it_fits, of_machine, reason
from ldm.data.files import fitting_name
from ldm.data.picture import Picture, read_picture
from ldm.data.picture_write import write_picture
from ldm.insertion.crop_paste import difference_outside
from ldm.insertion.mask_input import MaskOptions
from ldm.insertion.region import InsertRequest
from ldm.insertion.roi import CropContext, cautions, covered, plan_rois, squared

if TYPE_CHECKING:
    from ldm.insertion.region import Result
    from ldm.insertion.session import Session


SEAM = ("seam_before", "seam", "colour_offset_before", "colour_offset")  # of a region; a result has the worst


Choose = Callable[[WorkItem, InsertRequest, "list[Result]"], "list[Result]"]


@dataclass(frozen=True)
class RunOptions:
    """How a run works. `settings`: the plain values that determine pixels; `facts`: the rest of a recipe.

    `choose` orders the results of an item, the best first, and writes scores into their records.
    `batch_size`: most results that are made in one batch. `max_seam`: largest accepted seam ratio;
    0: no limit. `contact_sheet`: write one of the first results.
    `cache_bytes`: size of the cache of a scene's placements.
    """

    crop_context: CropContext
    mask_options: MaskOptions
    settings: Mapping[str, Any]
    facts: Mapping[str, Any] = field(default_factory=dict)
    choose: Choose | None = None
    batch_size: int = 8
    max_seam: float = 0.0
    contact_sheet: bool = True
    cache_bytes: float = 1e9


def run_items(
    items: Sequence[WorkItem],
    session: Session,
    options: RunOptions,
    log: ResultsLog,
    report: Report,
    progress: Callable[[Sequence[WorkItem]], Iterable[WorkItem]] = iter,
) -> RunSummary:
    """Make all items, report each result, and write a contact sheet of the first ones.

    An item that cannot be read is skipped with a warning.
    """
    summary, rows = RunSummary(options.max_seam), list[list[np.ndarray]]()
    for item in progress(items):
        result = make_item(item, session, options, log)
        summary.add(result, log)
        if result.error:
            warnings.warn(f"skipped {item.stem}: {result.error}", stacklevel=2)
            continue
        for line in result.lines(log):
            report(line)
        if options.contact_sheet and len(rows) < MOST_ROWS:
            background, request = prepare(item, options)
            results = (read_picture(log.folder / name) for name in result.files.values())
            rows.append(sheet_row(background, request.mask, request.rois[0], results))
    if rows:
        sheet = log.folder / "sheet.png"
        captions = ["background", "mask", *_captions(items), "composite"]
        write_picture(sheet, Picture(contact_sheet(rows, captions)), SHEET)
        report(f"{sheet}: contact sheet")
    return summary


def _captions(items: Sequence[WorkItem]) -> list[str]:
    """Column titles of the contact sheet: the seeds if all items have the same ones."""
    first = items[0]
    alike = not first.best and all(item.seeds == first.seeds for item in items)
    return [f"seed {seed}" if alike else "result" for seed in first.files()]


def plan_items(
    items: Sequence[WorkItem], options: RunOptions, folder: Path, report: Report, strict: bool = False
) -> RunSummary:
    """Report and draw the plan of every item; an unreadable one is skipped or, if `strict`, an error."""
    summary = RunSummary()
    for item in items:
        try:
            background, request = prepare(item, options)
        except (ValueError, OSError) as error:
            if strict or of_machine(error):
                raise
            summary.failed.append(item)
            warnings.warn(f"skipped {item.stem}: {reason(error)}", stacklevel=2)
            continue
        file = folder / fitting_name(item.stem, "_plan.png")
        write_plan(file, background, request.mask, request.rois, options.crop_context.model_side, report)
        summary.made += 1
    return summary


def prepare(item: WorkItem, options: RunOptions) -> tuple[Picture, InsertRequest]:
    """The background of an item and its request; one-line errors if something does not fit."""
    background, mask = item.masked.read(options.mask_options)
    if item.roi is None:
        return background, plan_request(item, mask, options.crop_context)
    given = roi_in(item.roi, background.frame)
    roi = squared(given, background.size)
    if not covered(mask, roi):
        raise ValueError(f"the given ROI cuts off a part of the mask of {item.masked.background}; enlarge it")
    if roi != given:
        height, width = given.size
        warnings.warn(
            f"the given ROI is {width} x {height} px; the square around it is used: "
            f"{roi.x0} {roi.y0} {roi.x1} {roi.y1}",
            stacklevel=2,
        )
    return background, InsertRequest(mask, [roi], item.seeds, item.source)


def plan_request(item: WorkItem, mask: np.ndarray, context: CropContext) -> InsertRequest:
    """The request of an item, with regions planned from its mask [H,W]."""
    return InsertRequest(mask, plan_rois(mask, context), item.seeds, item.source)


def warn_of_crops(name: str, request: InsertRequest, context: CropContext) -> None:
    """Give a plan's warnings: what the model cannot see well in these regions."""
    for caution in cautions(request.mask, request.rois, context.model_side):
        warnings.warn(f"{name}: {caution}", stacklevel=3)  # the line that called ldm.insert


def make_item(item: WorkItem, session: Session, options: RunOptions, log: ResultsLog) -> ItemResult:
    """Make the missing results of an item; that of one that cannot be read holds its error."""
    start, files = time.perf_counter(), item.files()
    try:
        digests = item.digests()
        keys = {seed: key_of(item, seed, digests, session.fingerprint, options.settings) for seed in files}
        seen = partial(item.masked.read, options.mask_options)
        missing = [seed for seed in files if not is_done(log.folder / files[seed], keys[seed], log, seen)]
        if not missing:
            return ItemResult(item, files)
        background, request = prepare(item, options)
        item.source.check()
        session.load_object(item.source)
        warn_of_crops(item.stem, request, options.crop_context)
    except (ValueError, OSError) as error:
        if of_machine(error):
            raise
        return ItemResult(item, files, error=reason(error))
    wanted = item.seeds if item.best else missing
    made: Iterable[Result] = _in_batches(session, background, request, wanted, options.batch_size)
    if item.best:
        assert options.choose is not None, "best_of needs options.choose"
        made = [options.choose(item, request, list(made))[0]]
    facts = _facts(item, digests, session.fingerprint, options)
    for seed, result in zip(missing, made, strict=True):
        picture = result.picture
        record = {"key": keys[seed], **facts, **result.record, PIXELS: pixel_digest(picture)}
        write_picture(log.folder / files[seed], picture, {"recipe": json.dumps(record)})
        del picture  # the check reads it from the file
        check_and_log(log.folder / files[seed], record, background, request.mask, log)
    return ItemResult(item, files, missing, seconds=time.perf_counter() - start)


def _in_batches(
    session: Session, background: Picture, request: InsertRequest, wanted: Sequence[int], most: int
) -> Iterator[Result]:
    """The results of the wanted seeds, made in batches of at most `most`, fewer if memory does not suffice.

    The batches are those of all seeds of the request: in another batch sums of floats may round differently,
    and a run that was stopped would end with other pixels.
    """
    start = 0
    while start < len(request.seeds):
        seeds = list(request.seeds[start : start + most])
        needed = [seed for seed in seeds if seed in wanted]
        batch = partial(session.insert, background, [replace(request, seeds=seeds)])
        made = if_it_fits(batch, len(seeds), "results", "--batch_size") if needed else [[]]
        if made is None:
            most = len(seeds) // 2
            continue
        for result in made[0]:
            result.record["batch"] = seeds
            if result.record["seed"] in needed:
                yield result
        start += len(seeds)


def is_done(file: Path, key: str, log: ResultsLog, seen: Callable[[], tuple[Picture, np.ndarray]]) -> bool:
    """Whether the folder holds this result. If only its line in the log is missing, that is written again.

    `seen`: the background and the mask [H,W]. ValueError if another result is there that was edited.
    """
    record = finished_recipe(file)
    if record.get("key") != key:
        check_unedited(file)
        return False
    if not log.has(file.name, key):
        check_and_log(file, record, *seen(), log)
    return True


def check_and_log(
    file: Path, record: Mapping[str, Any], background: Picture, mask: np.ndarray, log: ResultsLog
) -> None:
    """Check that a written result changed no pixel outside the mask, and add it to the log."""
    outside = difference_outside(read_picture(file).pixels, background.pixels, mask)
    assert outside == 0, f"{file}: pixels outside the mask changed by {outside}"
    worst = {name: max(region[name] for region in record["regions"]) for name in SEAM}
    kept = {key: value for key, value in record.items() if key != "settings"}
    log.add({"file": file.name, **kept, "outside": outside, **worst})


def _facts(item: WorkItem, digests: Mapping[str, str], base: str, options: RunOptions) -> dict[str, Any]:
    """The part of a recipe that all results of an item share."""
    return {
        "version": __version__,
        "base_fingerprint": base,
        **{role: str(path) for role, path in item.sources().items()},
        "box": list(item.masked.box),
        "roi": None if item.roi is None else list(item.roi),
        "name": item.stem,
        "object_scale": item.source.object_scale,
        "pick": item.source.pick,
        "best_of": len(item.seeds) if item.best else 0,
        "sha256": dict(digests),
        **options.facts,
    }
