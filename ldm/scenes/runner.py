"""Make a scene: group by group, lowest order first. Placements that an earlier run made come from a cache."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F

from ldm import __version__
from ldm.batch.contact_sheet import Report
from ldm.batch.results_log import (
    PIXELS,
    ItemResult,
    ResultsLog,
    finished_recipe,
    pixel_digest,
    recipe_in,
)
from ldm.batch.runner import RunOptions, check_and_log, is_done, warn_of_crops
from ldm.batch.work_item import MaskedBackground, WorkItem
from ldm.data.failure import if_it_fits
from ldm.data.files import file_digest, sweep, text_digest
from ldm.data.picture import Picture, read_picture
from ldm.data.picture_write import write_picture
from ldm.insertion.object_source import ObjectSource
from ldm.insertion.roi import box_of, crop, visible
from ldm.scenes.layout import PlacedObject, SceneLayout

if TYPE_CHECKING:
    from ldm.insertion.region import InsertableObject, Result
    from ldm.insertion.session import Session


class PlacementCache:
    """A folder of finished placements by key; `prune` keeps those that this run used."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        sweep(folder)
        self._used: set[Path] = set()

    def record(self, key: str) -> dict[str, Any]:
        """The record of a placement; {} if it is not in the cache."""
        return finished_recipe(self._file(key))

    def pixels(self, key: str) -> np.ndarray:
        """The pixels [h,w,C] of a placement."""
        file = self._file(key)
        os.utime(file)
        self._used.add(file)
        return read_picture(file).pixels

    def add(self, key: str, pixels: np.ndarray, record: Mapping[str, Any]) -> None:
        """Store the pixels in a mask's bounding box, and the record."""
        write_picture(self._file(key), Picture(pixels), {"recipe": json.dumps(record)})

    def prune(self, limit: float) -> list[Path]:
        """Remove the least recently used placements until at most `limit` bytes are left."""
        files = sorted(self.folder.glob("*.png"), key=lambda file: file.stat().st_mtime)
        excess = sum(file.stat().st_size for file in files) - limit
        removed = []
        for file in files:
            if excess <= 0:
                break
            if file not in self._used and recipe_in(file):  # else it is no file of the cache
                excess -= file.stat().st_size
                file.unlink()
                removed.append(file)
        return removed

    def _file(self, key: str) -> Path:
        return self.folder / f"{key}.png"


# roles of an item whose file contents are part of its key; of a mask its pixels are
OBJECT_ROLES = ("object", "reference", "reference_box", "reference_mask", "pictures")
Batches = Mapping[str, Sequence[str]]  # key of a placement => keys of those made in one batch with it


def run_placements(
    layout: SceneLayout,
    session: Session,
    options: RunOptions,
    cache: PlacementCache,
    report: Report = lambda line: None,
    batches: Batches = MappingProxyType({}),
) -> tuple[Picture, list[dict[str, Any]]]:
    """The finished image, and a record for each placement in the order in which they were made.

    Missing placements of a group are made in batches; `batches` are those of an earlier run, to repeat it.
    Pixels outside all masks are those of the background, bit for bit.
    """
    canvas = replace(layout.background, pixels=layout.background.pixels.copy())
    records = []
    for group in layout.groups:
        keyed = {_key(placed, canvas, session, options): placed for placed in group}
        missing = {key: placed for key, placed in keyed.items() if not cache.record(key)}
        for batch in _batches(missing, batches, options.batch_size):
            _make(batch, canvas, session, options, cache)
        _paste(canvas, keyed, cache)
        for key, placed in keyed.items():
            report(f"{placed.name}: {'made' if key in missing else 'unchanged, from the cache'}")
            records.append(cache.record(key) | _files_of(placed))
    return canvas, records


def _batches(
    missing: Mapping[str, PlacedObject], earlier: Batches, most: int
) -> list[dict[str, PlacedObject]]:
    """First the batches of an earlier run, then the other placements, at most `most` results a batch."""
    batches = dict.fromkeys(tuple(earlier[key]) for key in missing if key in earlier)
    out = [{mate: missing[mate] for mate in mates if mate in missing} for mates in batches]
    room = 0
    for key in (key for key in missing if key not in earlier):
        count = len(missing[key].placement.item.seeds)
        if count > room:
            out.append({})
            room = most
        out[-1][key] = missing[key]
        room -= count
    return out


def _make(
    batch: Mapping[str, PlacedObject],
    canvas: Picture,
    session: Session,
    options: RunOptions,
    cache: PlacementCache,
) -> None:
    """Insert placements as one batch, in halves if memory does not suffice, and cache the results."""
    requests = [placed.request for placed in batch.values()]
    for placed, request in zip(batch.values(), requests, strict=True):
        warn_of_crops(placed.name, request, options.crop_context)
    objects = [_object(placed, session, options.crop_context.model_side) for placed in batch.values()]
    made = if_it_fits(lambda: session.insert(canvas, requests, objects), len(batch), "placements")
    if made is None:
        half = len(batch) // 2
        for keys in (list(batch)[:half], list(batch)[half:]):
            _make({key: batch[key] for key in keys}, canvas, session, options, cache)
        return
    for (key, placed), request, results in zip(batch.items(), requests, made, strict=True):
        item = placed.placement.item
        if item.best:
            assert options.choose is not None, "best_of needs options.choose"
            results = options.choose(item, request, results)
        facts = {
            "key": key,
            "batch": list(batch),
            **_placed_as(item),
            "together": [_placed_as(member) for member in placed.placement.members],
        }
        cache.add(key, _part(results[0], placed.mask), facts | results[0].record)


def _part(result: Result, mask: np.ndarray) -> np.ndarray:
    """The result's pixels [h,w,C] in the box of its mask, without a copy of the whole picture."""
    box, background = box_of(mask), result.background
    pixels = background.pixels[box.slices].copy()
    for place, patch in result.patches:
        pixels[place.within(box).slices][..., : background.n_colours] = patch
    return pixels


def _object(placed: PlacedObject, session: Session, side: int) -> InsertableObject:
    """The object to insert; several members become one, each in its own mask of a region of `side` px."""
    from ldm.scenes.regional_context import in_regions  # a plan loads no model

    members = placed.placement.members
    if not members:
        return session.ready(placed.placement.item.source)
    [roi] = placed.rois
    regions = torch.stack([torch.from_numpy(crop(mask, roi)).float() for mask in placed.masks])
    if max(roi.size) > side:  # the model has no finer resolution
        regions = F.interpolate(regions[None], size=(side, side), mode="area")[0]
    return in_regions([session.ready(member.source) for member in members], regions)


def _files_of(placed: PlacedObject) -> dict[str, Any]:
    """Which placement it is, its files and their hashes."""
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


def _placed_as(item: WorkItem) -> dict[str, Any]:
    """The values of a placed object that are not in its files."""
    return {"box": list(item.masked.box), "object_scale": item.source.object_scale, "pick": item.source.pick}


def _paste(canvas: Picture, keyed: Mapping[str, PlacedObject], cache: PlacementCache) -> None:
    """Paste placements into the canvas in place, which saves the memory of a copy."""
    for key, placed in keyed.items():
        box = box_of(placed.mask)
        inside = placed.mask[box.slices]
        canvas.pixels[box.slices][inside] = cache.pixels(key)[inside]


def _key(placed: PlacedObject, canvas: Picture, session: Session, options: RunOptions) -> str:
    """32 hex digits of all that determines a placement's pixels, with the canvas's there and its profile."""
    item, seen = placed.placement.item, hashlib.sha256(canvas.icc_profile or b"")
    for roi in placed.rois:
        part = canvas.pixels[visible(roi, canvas.size).slices]
        seen.update(f"{part.shape} {part.dtype}".encode() + np.ascontiguousarray(part).tobytes())
    members = zip(placed.placement.members, placed.masks, strict=True)
    facts = {
        "version": __version__,
        "base": session.fingerprint,
        "settings": options.settings,
        "subject": _object_facts(item),
        "together": [(_object_facts(member), _digest(mask)) for member, mask in members],
        "seeds": item.seeds,
        "size": canvas.size,
        "rois": placed.rois,
        "mask": _digest(placed.mask),
        "seen": seen.hexdigest(),
    }
    return text_digest(facts)[:32]


def _object_facts(item: WorkItem) -> tuple[Any, ...]:
    """The object by the contents of its files, and its values."""
    digests = {role: text for role, text in item.digests().items() if role in OBJECT_ROLES}
    return digests, item.source.object_scale, item.source.pick


def _digest(mask: np.ndarray) -> str:
    """64 hex digits of a mask: its place, size and pixels."""
    box = box_of(mask)
    return hashlib.sha256(f"{box} ".encode() + np.packbits(mask[box.slices]).tobytes()).hexdigest()


def run_scene(
    layout: SceneLayout, session: Session, options: RunOptions, log: ResultsLog, report: Report
) -> ItemResult:
    """Make a scene and write it as <folder>/<scene>.png, unless this very image exists."""
    scene, cache = layout.scene, PlacementCache(log.folder / "placements")
    after, records = run_placements(layout, session, options, cache, report)
    cache.prune(options.cache_bytes)
    facts = {"background": file_digest(scene.background), "parts": [record["key"] for record in records]}
    file, key = log.folder / f"{scene.file.stem}.png", text_digest(facts)[:32]
    item = WorkItem(MaskedBackground(scene.background), ObjectSource(), (0,), name=scene.file.stem)
    if is_done(file, key, log, lambda: (layout.background, layout.mask)):
        return ItemResult(item, {0: file.name})
    seconds = round(sum(record["seconds"] for record in records), 3)
    record = {
        "key": key,
        "version": __version__,
        "base_fingerprint": session.fingerprint,
        "scene": str(scene.file),
        "content": scene.values,
        "background": str(scene.background),
        "sha256": {"background": facts["background"]},
        "placements": records,
        "regions": [region for record in records for region in record["regions"]],
        "seconds": seconds,
        **options.facts,
        PIXELS: pixel_digest(after),
    }
    write_picture(file, after, {"recipe": json.dumps(record)})
    del after  # the check reads it from the file: memory holds two large images, not three
    check_and_log(file, record, layout.background, layout.mask, log)
    return ItemResult(item, {0: file.name}, (0,), seconds=seconds)
