"""A scene carried out: group by group, lowest order first, what is known from an earlier run not again.

Every placement of a group sees the picture as the groups below left it, so their order does not matter. What
it makes is kept by the content of all that determines it, the pixels of its regions included: when a
placement changes, it and those that see it are made again, and nothing else.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ldm import __version__
from ldm.data.digest import file_digest, text_digest
from ldm.data.picture import Picture, read_picture
from ldm.data.save import write_picture
from ldm.insertion.cases import Case
from ldm.insertion.item import Item
from ldm.insertion.journal import Journal, recipe_in
from ldm.insertion.layout import Placed
from ldm.insertion.roi import visible
from ldm.insertion.scene import Scene
from ldm.insertion.subject import Subject
from ldm.insertion.work import Inserter, Options, Outcome, enter

Told = Callable[[Placed, bool], None]  # a placement, and whether it was made now


def carry_out(
    background: Picture,
    groups: Sequence[Sequence[Placed]],
    inserter: Inserter,
    options: Options,
    cache: Path,
    told: Told = lambda placed, made: None,
) -> tuple[Picture, list[dict[str, Any]]]:
    """The finished scene, and a record for each placement in the order in which they were made.

    Pixels outside all masks are those of `background`, bit for bit. `cache` is a folder.
    """
    canvas, records = background, []
    for group in groups:
        patches = []
        for placed in group:
            file = cache / f"{_key(placed, canvas, inserter, options)}.png"
            record = recipe_in(file)
            if not record:
                _make(placed, canvas, inserter, options, file)
            told(placed, not record)
            patches.append(read_picture(file).pixels)
            here = {"placement": placed.placement.item.name, "order": placed.placement.order}
            records.append(recipe_in(file) | here)
        canvas = _laid(canvas, group, patches)
    return canvas, records


def deliver(
    scene: Scene,
    before: Picture,
    after: Picture,
    placed: Sequence[Placed],
    records: Sequence[Mapping[str, Any]],
    inserter: Inserter,
    options: Options,
    journal: Journal,
) -> Outcome:
    """Write the finished scene, proven and entered, unless it is there already."""
    facts = {"background": file_digest(scene.background), "parts": [record["key"] for record in records]}
    name, key = f"{scene.file.stem}.png", text_digest(facts)[:32]
    item = Item(Case(scene.background), Subject(), (0,), name=scene.file.stem)
    if recipe_in(journal.folder / name).get("key") == key and journal.has(name, key):
        return Outcome(item, {0: name})
    seconds = round(sum(record["seconds"] for record in records), 3)
    record = {
        "key": key,
        "version": __version__,
        "base_fingerprint": inserter.fingerprint,
        "scene": str(scene.file),
        "background": str(scene.background),
        "placements": list(records),
        "regions": [region for record in records for region in record["regions"]],
        "seconds": seconds,
        **options.facts,
    }
    mask = np.logical_or.reduce([p.mask(before.size) for p in placed])
    write_picture(journal.folder / name, after, {"recipe": json.dumps(record)})
    enter(journal.folder / name, record, before, mask, journal)
    return Outcome(item, {0: name}, (0,), seconds=seconds)


def _make(placed: Placed, canvas: Picture, inserter: Inserter, options: Options, file: Path) -> None:
    """Fill one mask, and keep what is in its box together with its record."""
    item, mask = placed.placement.item, placed.mask(canvas.size)
    inserter.take_on(item.subject)
    results = inserter.insert(item.subject, canvas, mask, placed.rois, item.seeds)
    if item.best:
        assert options.choose is not None, "the best of several is chosen by someone"
        results = options.choose(item, mask, placed.rois, results)
    sources = {role: str(path) for role, path in item.sources().items() if role != "background"}
    facts = {
        "key": file.stem,
        "box": list(item.case.box),
        "strength": item.subject.strength,
        "pick": item.subject.pick,
    }
    record = facts | sources | results[0].record
    file.parent.mkdir(parents=True, exist_ok=True)
    patch = Picture(np.ascontiguousarray(results[0].picture.pixels[placed.box.slices]))
    write_picture(file, patch, {"recipe": json.dumps(record)})


def _laid(canvas: Picture, group: Sequence[Placed], patches: Sequence[np.ndarray]) -> Picture:
    pixels = canvas.pixels.copy()
    for placed, patch in zip(group, patches, strict=True):
        pixels[placed.box.slices][placed.inside] = patch[placed.inside]
    return replace(canvas, pixels=pixels)


def _key(placed: Placed, canvas: Picture, inserter: Inserter, options: Options) -> str:
    """32 hex digits of all that determines a placement's pixels, what it sees of the canvas included."""
    item, seen = placed.placement.item, hashlib.sha256()
    for roi in placed.rois:
        part = canvas.pixels[visible(roi, canvas.size).slices]
        seen.update(f"{part.shape} {part.dtype}".encode() + np.ascontiguousarray(part).tobytes())
    digests = {role: text for role, text in item.digests().items() if role not in ("background", "mask")}
    facts = {
        "version": __version__,
        "base": inserter.fingerprint,
        "settings": options.settings,
        "digests": digests,
        "strength": item.subject.strength,
        "pick": item.subject.pick,
        "seeds": item.seeds,
        "size": canvas.size,
        "rois": [(roi.x0, roi.y0, roi.x1, roi.y1) for roi in placed.rois],
        "box": (placed.box.x0, placed.box.y0, placed.box.x1, placed.box.y1),
        "mask": hashlib.sha256(np.packbits(placed.inside).tobytes()).hexdigest(),
        "seen": seen.hexdigest(),
    }
    return text_digest(facts)[:32]
