"""Make a scene: group by group, lowest order first."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F

from ldm import __version__
from ldm.batch.contact_sheet import Report
from ldm.batch.results_log import PIXELS, ItemResult, ResultsLog, pixel_digest
from ldm.batch.runner import RunOptions, check_and_log, is_done, warn_of_crops
from ldm.batch.work_item import MaskedBackground, WorkItem, key_of
from ldm.data.failure import if_it_fits
from ldm.data.files import file_digest, text_digest
from ldm.data.picture import Picture
from ldm.data.picture_write import write_picture
from ldm.insertion.object_source import ObjectSource
from ldm.insertion.roi import crop
from ldm.scenes.layout import PlacedObject, SceneLayout

if TYPE_CHECKING:
    from ldm.insertion.region import InsertableObject, Result
    from ldm.insertion.session import Session

Batches = Mapping[str, Sequence[str]]  # name of a placement => names of those made in one batch with it


def run_placements(
    layout: SceneLayout,
    session: Session,
    options: RunOptions,
    report: Report = lambda line: None,
    batches: Batches = MappingProxyType({}),
) -> tuple[Picture, list[dict[str, Any]]]:
    """The finished image, and a record for each placement in the order in which they were made.

    Placements of a group do not see each other. They are made in batches; `batches` are those of an earlier
    run, to repeat it. Pixels outside all masks are those of the background, bit for bit.
    """
    canvas = replace(layout.background, pixels=layout.background.pixels.copy())
    records = []
    for group in layout.groups:
        made = []
        for batch in _batches(group, batches, options.batch_size):
            made += _make(batch, canvas, session, options)
        for placed, result in made:
            for box, pixels in result.patches:
                inside = placed.mask[box.slices]
                canvas.pixels[box.slices][..., : canvas.n_colours][inside] = pixels[inside]
            report(f"{placed.name}: made")
            records.append(result.record | _files_of(placed))
    return canvas, records


def _batches(group: Sequence[PlacedObject], earlier: Batches, most: int) -> list[list[PlacedObject]]:
    """The batches of an earlier run, or of at most `most` placements."""
    if not earlier:
        return [list(group[i : i + most]) for i in range(0, len(group), most)]
    named = {placed.name: placed for placed in group}
    mates = dict.fromkeys(tuple(earlier[name]) for name in named)
    return [[named[name] for name in batch] for batch in mates]


def _make(
    batch: Sequence[PlacedObject], canvas: Picture, session: Session, options: RunOptions
) -> list[tuple[PlacedObject, Result]]:
    """Insert placements as one batch, in halves if memory does not suffice."""
    requests = [placed.request for placed in batch]
    for placed, request in zip(batch, requests, strict=True):
        warn_of_crops(placed.name, request, options.crop_context)
    objects = [_object(placed, session, options.crop_context.model_side) for placed in batch]
    made = if_it_fits(lambda: session.insert(canvas, requests, objects), len(batch), "placements")
    if made is None:
        half = len(batch) // 2
        return [one for part in (batch[:half], batch[half:]) for one in _make(part, canvas, session, options)]
    for [result] in made:
        result.record["batch"] = [placed.name for placed in batch]
    return [(placed, result) for placed, [result] in zip(batch, made, strict=True)]


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


def run_scene(
    layout: SceneLayout, session: Session, options: RunOptions, log: ResultsLog, report: Report
) -> ItemResult:
    """Make a scene and write it as <folder>/<scene>.png, unless this very image exists."""
    scene, file = layout.scene, log.folder / f"{layout.scene.file.stem}.png"
    item = WorkItem(MaskedBackground(scene.background), ObjectSource(), (0,), name=scene.file.stem)
    base, settings = session.fingerprint, options.settings
    parts = [key_of(one, one.seeds[0], one.digests(), base, settings) for one in scene.items]
    key = text_digest([scene.values, parts])[:32]
    if is_done(file, key, log, lambda: (layout.background, layout.mask)):
        return ItemResult(item, {0: file.name})
    after, records = run_placements(layout, session, options, report)
    seconds = round(sum(record["seconds"] for record in records), 3)
    record = {
        "key": key,
        "version": __version__,
        "base_fingerprint": session.fingerprint,
        "scene": str(scene.file),
        "content": scene.values,
        "background": str(scene.background),
        "sha256": {"background": file_digest(scene.background)},
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
