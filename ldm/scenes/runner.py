"""A scene carried out: placement by placement, lowest order first; what an earlier run made is read from a cache."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from ldm import __version__
from ldm.batch.results_log import ResultsLog, recipe_in
from ldm.batch.runner import Inserter, Options, Outcome, enter
from ldm.batch.work_item import Case, WorkItem
from ldm.data.files import file_digest, sweep, text_digest
from ldm.data.picture import Picture, read_picture
from ldm.data.picture_write import write_picture
from ldm.insertion.object_source import ObjectSource
from ldm.insertion.region_fill import ReadyObject
from ldm.insertion.roi import crop, visible
from ldm.scenes.layout import Part, Placed, joint
from ldm.scenes.regional_context import in_regions
from ldm.scenes.scene_file import Scene


class PlacementCache:
    """The placements of a folder; the ones that this run used are never removed by it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        sweep(folder)
        self._used: set[Path] = set()

    def record(self, key: str) -> dict[str, Any]:
        """What a placement's record says; {} if it is not kept."""
        return recipe_in(self._file(key))

    def pixels(self, key: str) -> np.ndarray:
        """What is kept under the key, [h,w,C]."""
        file = self._file(key)
        os.utime(file)
        self._used.add(file)
        return read_picture(file).pixels

    def add(self, key: str, pixels: np.ndarray, record: Mapping[str, Any]) -> None:
        """Keep what lies in a mask's box."""
        self.folder.mkdir(parents=True, exist_ok=True)
        write_picture(self._file(key), Picture(pixels), {"recipe": json.dumps(record)})

    def prune(self, limit: float) -> list[Path]:
        """Remove what was not used for longest until `limit` bytes are left, or what this run used."""
        files = sorted(self.folder.glob("*.png"), key=lambda file: file.stat().st_mtime)
        excess = sum(file.stat().st_size for file in files) - limit
        removed = []
        for file in files:
            if excess <= 0:
                break
            if file not in self._used:
                excess -= file.stat().st_size
                file.unlink()
                removed.append(file)
        return removed

    def _file(self, key: str) -> Path:
        return self.folder / f"{key}.png"


SUBJECT = (
    "object",
    "reference",
    "reference_mask",
    "pictures",
)  # whose files' contents count; of masks, the pixels do
OnPlacement = Callable[[Placed, bool], None]  # a placement, and whether it was made now


def run_placements(
    background: Picture,
    groups: Sequence[Sequence[Placed]],
    inserter: Inserter,
    options: Options,
    kept: PlacementCache,
    told: OnPlacement = lambda placed, made: None,
    together: Mapping[str, Sequence[str]] = MappingProxyType({}),
) -> tuple[Picture, list[dict[str, Any]]]:
    """The finished scene, and a record for each placement in the order in which they were made.

    What a group lacks is made in batches, whatever the objects; `together` gives, by key, the batches of an
    earlier run. Pixels outside all masks are those of `background`, bit for bit.
    """
    canvas, records = replace(background, pixels=background.pixels.copy()), []
    for group in groups:
        keyed = {_key(placed, canvas, inserter, options): placed for placed in group}
        missing = {key: placed for key, placed in keyed.items() if not kept.record(key)}
        for batch in _batches(missing, together, options.at_once):
            _make(batch, canvas, inserter, options, kept)
        _lay(canvas, keyed, kept)
        for key, placed in keyed.items():
            told(placed, key in missing)
            records.append(kept.record(key) | _whereabouts(placed))
    return canvas, records


def _batches(
    missing: Mapping[str, Placed], together: Mapping[str, Sequence[str]], most: int
) -> list[dict[str, Placed]]:
    """Those of an earlier run as they were; then others, so many that they make at most `most` results."""
    batches = dict.fromkeys(tuple(together[key]) for key in missing if key in together)
    out = [{mate: missing[mate] for mate in mates if mate in missing} for mates in batches]
    room = 0
    for key in (key for key in missing if key not in together):
        count = len(missing[key].placement.item.seeds)
        if count > room:
            out.append({})
            room = most
        out[-1][key] = missing[key]
        room -= count
    return out


def _make(
    batch: Mapping[str, Placed], canvas: Picture, inserter: Inserter, options: Options, kept: PlacementCache
) -> None:
    """Fill masks side by side, and keep what is in the box of each together with its record."""
    requests = [placed.request(canvas.size) for placed in batch.values()]
    objects = [
        _object(placed, canvas.size, inserter, options.context.model_side) for placed in batch.values()
    ]
    made = inserter.insert(canvas, requests, objects)
    for (key, placed), request, results in zip(batch.items(), requests, made, strict=True):
        item = placed.placement.item
        if item.best:
            assert options.choose is not None, "the best of several is chosen by someone"
            results = options.choose(item, request, results)
        facts = {
            "key": key,
            "batch": list(batch),
            **_told_of(item),
            "together": [_told_of(member) for member in placed.placement.members],
        }
        kept.add(key, results[0].part(placed.mask.box), facts | results[0].record)


def _object(placed: Placed, size: tuple[int, int], inserter: Inserter, side: int) -> ReadyObject:
    """What is inserted; objects that share a region of the model's `side` px as one, each in its own mask."""
    members = placed.placement.members
    if not members:
        return inserter.ready(placed.placement.item.source)
    [roi] = placed.rois
    regions = torch.stack([torch.from_numpy(crop(part.whole(size), roi)).float() for part in placed.holes])
    if max(roi.size) > side:  # no layer looks at it any finer
        regions = F.interpolate(regions[None], size=(side, side), mode="area")[0]
    return in_regions([inserter.ready(member.source) for member in members], regions)


def _whereabouts(placed: Placed) -> dict[str, Any]:
    """Which placement it is, and the files that it comes from."""
    item, members = placed.placement.item, placed.placement.members
    numbered = {f"_{number}": member for number, member in enumerate(members, start=1)} or {"": item}
    files = {
        role + end: path
        for end, one in numbered.items()
        for role, path in one.sources().items()
        if role != "background"
    }
    sources = {role: str(path) for role, path in files.items()}
    digests = {role: file_digest(path) for role, path in files.items()}
    return {"placement": item.name, "order": placed.placement.order, **sources, "sha256": digests}


def _told_of(item: WorkItem) -> dict[str, Any]:
    """Of an object that is placed, what its files do not say."""
    return {"box": list(item.case.box), "object_scale": item.source.object_scale, "pick": item.source.pick}


def _lay(canvas: Picture, keyed: Mapping[str, Placed], kept: PlacementCache) -> None:
    """In place: a large picture does not fit into memory often."""
    for key, placed in keyed.items():
        mask = placed.mask
        canvas.pixels[mask.box.slices][mask.inside] = kept.pixels(key)[mask.inside]


def _key(placed: Placed, canvas: Picture, inserter: Inserter, options: Options) -> str:
    """32 hex digits of all that determines a placement's pixels, what it sees of the canvas included."""
    item, seen = placed.placement.item, hashlib.sha256()
    for roi in placed.rois:
        part = canvas.pixels[visible(roi, canvas.size).slices]
        seen.update(f"{part.shape} {part.dtype}".encode() + np.ascontiguousarray(part).tobytes())
    members = zip(placed.placement.members, placed.holes, strict=True)
    facts = {
        "version": __version__,
        "base": inserter.fingerprint,
        "settings": options.settings,
        "subject": _subject(item),
        "together": [(_subject(member), _digest(hole)) for member, hole in members],
        "seeds": item.seeds,
        "size": canvas.size,
        "rois": [(roi.x0, roi.y0, roi.x1, roi.y1) for roi in placed.rois],
        "mask": _digest(placed.mask),
        "hole": _digest(placed.hole),
        "seen": seen.hexdigest(),
    }
    return text_digest(facts)[:32]


def _subject(item: WorkItem) -> tuple[Any, ...]:
    """What goes in, by content."""
    digests = {role: text for role, text in item.digests().items() if role in SUBJECT}
    return digests, item.source.object_scale, item.source.pick


def _digest(part: Part) -> str:
    """64 hex digits of a mask: its place, size and pixels."""
    text = f"{part.box} ".encode() + np.packbits(part.inside).tobytes()
    return hashlib.sha256(text).hexdigest()


def run_scene(
    scene: Scene,
    background: Picture,
    groups: Sequence[Sequence[Placed]],
    inserter: Inserter,
    options: Options,
    log: ResultsLog,
    kept: PlacementCache,
    told: OnPlacement = lambda placed, made: None,
) -> Outcome:
    """Carry out a scene and write it, unless that very picture is there already."""
    after, records = run_placements(background, groups, inserter, options, kept, told)
    facts = {"background": file_digest(scene.background), "parts": [record["key"] for record in records]}
    name, key = f"{scene.file.stem}.png", text_digest(facts)[:32]
    item = WorkItem(Case(scene.background), ObjectSource(), (0,), name=scene.file.stem)
    if recipe_in(log.folder / name).get("key") == key and log.has(name, key):
        return Outcome(item, {0: name})
    seconds = round(sum(record["seconds"] for record in records), 3)
    record = {
        "key": key,
        "version": __version__,
        "base_fingerprint": inserter.fingerprint,
        "scene": str(scene.file),
        "content": scene.values,
        "background": str(scene.background),
        "sha256": {"background": facts["background"]},
        "placements": records,
        "regions": [region for record in records for region in record["regions"]],
        "seconds": seconds,
        **options.facts,
    }
    write_picture(log.folder / name, after, {"recipe": json.dumps(record)})
    del after  # the proof reads it from the file: two large pictures fit into memory, three do not
    mask = joint([placed for group in groups for placed in group], background.size)
    enter(log.folder / name, record, background, mask, log)
    return Outcome(item, {0: name}, (0,), seconds=seconds)
