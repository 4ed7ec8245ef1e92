"""A scene file, one background and several placements, is read and checked as a whole.

    background: street.jpg
    placements:
      - {object: bee.safetensors, mask: left.png, seed: 3}
      - {object: cup.safetensors, box: [690, 745, 1010, 1130], object_scale: 0.8, order: 1}
      - {object: cup.safetensors, polygon: [[10, 20], [90, 20], [50, 80]], order: 2}
      - together: [{object: bee.safetensors, mask: a.png}, {object: cup.safetensors, mask: b.png}]
        seed: 4

A placement has `mask`, `box`, `polygon` (one, or a list of them) or `mask_channel: background` (the
transparent part of the background), and `object` or `reference` or both. It may have `seed`, `object_scale`,
`order` (higher goes on top, 0 by default), `n` (the best result of so many seeds is kept) and `mask_channel`
(which channel of the mask image is read). Objects placed `together` share one region and one pass, each in
its own mask; they have one `seed` and one `order`. Paths are relative to the scene file.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ldm.batch.work_item import MaskedBackground, WorkItem
from ldm.data.boxes import parse_box
from ldm.data.failure import check_file
from ldm.data.files import path_of
from ldm.data.polygons import parse_polygons
from ldm.data.text import check_names, parse_yaml, read_text, whole_number
from ldm.insertion.mask_input import CHANNELS
from ldm.insertion.object_source import ObjectSource

KEYS = ("background", "placements")
REGIONS = ("mask", "box", "polygon")
MEMBER = ("object", "pick", "reference", *REGIONS, "mask_channel", "object_scale")
PLACEMENT = (*MEMBER, "seed", "order", "n")
TOGETHER = ("together", "seed", "order")
FILES = ("object", "reference", "mask")
NUMBERS: dict[str, type] = {"seed": int, "object_scale": float, "order": int, "n": int}


@dataclass(frozen=True)
class Placement:
    """One object in a scene, as a work item; `order`: higher goes on top.

    With `members`, several objects share one region and one pass; `item` then holds their name and seed.
    """

    item: WorkItem
    order: int = 0
    members: tuple[WorkItem, ...] = ()

    @property
    def items(self) -> tuple[WorkItem, ...]:
        """One for each object."""
        return self.members or (self.item,)


@dataclass(frozen=True)
class Scene:
    """A scene file, its background, its placements in the order of the file, and its `values` as read."""

    file: Path
    background: Path
    placements: tuple[Placement, ...]
    values: Mapping[str, Any]

    @property
    def items(self) -> list[WorkItem]:
        """One work item for each object."""
        return [item for placement in self.placements for item in placement.items]


def read_scene(file: Path, seed: int = 321, object_scale: float = 1.0) -> Scene:
    """Read a scene file; `seed` and `object_scale` are the defaults of placements.

    Raises FileNotFoundError or ValueError in one line that names the placement.
    """
    return scene_of(_read_yaml(file), file, seed, object_scale)


def scene_of(values: Mapping[str, Any], file: Path, seed: int = 321, object_scale: float = 1.0) -> Scene:
    """The scene of these `values`, as if they were read from `file`."""
    check_names(values, KEYS, str(file))
    if not isinstance(values.get("background"), str):
        raise ValueError(f"{file}: no background; write `background: picture.jpg`")
    entries = values.get("placements")
    if not isinstance(entries, list) or not entries:
        raise ValueError(f"{file}: no placements; write a list of {{{', '.join(PLACEMENT)}}}")
    background = path_of(values["background"], file.parent)
    check_file(background, "a background", f"{file} names it")
    placements = []
    for number, entry in enumerate(entries, start=1):
        where = f"{file}: placement {number}"
        if not isinstance(entry, Mapping):
            raise ValueError(f"{where}: {entry!r}; expected {{{', '.join(PLACEMENT)}}}")
        defaults = {"seed": seed, "object_scale": object_scale, "order": 0, "n": 1}
        like = WorkItem(MaskedBackground(background), ObjectSource(), (seed,), name=f"{file.stem}_{number}")
        read = _together if "together" in entry else _placement
        placements.append(read(entry, defaults, like, file.parent, where))
    return Scene(file, background, tuple(placements), values)


def _read_yaml(file: Path) -> Mapping[str, Any]:
    text = read_text(file, "scene file")
    try:
        values = parse_yaml(text)
    except ValueError as error:
        raise ValueError(f"{file}: not readable as YAML: {error}") from error
    if not isinstance(values, Mapping):
        raise ValueError(f"{file}: expected `background:` and `placements:`")
    return values


def _together(
    entry: Mapping[str, Any], defaults: Mapping[str, Any], like: WorkItem, root: Path, where: str
) -> Placement:
    check_names(entry, TOGETHER, where)
    entries = entry["together"]
    if not isinstance(entries, list) or len(entries) < 2 or not all(isinstance(e, Mapping) for e in entries):
        raise ValueError(f"{where}: together: expected a list of two or more {{{', '.join(MEMBER)}}}")
    shared = {**defaults, **{key: value for key, value in entry.items() if key != "together"}}
    members = []
    for number, one in enumerate(entries, start=1):
        here = f"{where}, object {number}"
        check_names(one, MEMBER, here)
        members.append(_placement(one, shared, replace(like, name=f"{like.name}_{number}"), root, here))
    first = members[0]
    return Placement(replace(like, seeds=first.item.seeds), first.order, tuple(m.item for m in members))


def _placement(
    entry: Mapping[str, Any], defaults: Mapping[str, Any], like: WorkItem, root: Path, where: str
) -> Placement:
    check_names(entry, (*PLACEMENT, "together"), where)
    values = {**defaults, **entry}
    numbers = {key: _number(values[key], kind, f"{where}: {key}") for key, kind in NUMBERS.items()}
    paths = {key: path_of(str(values[key]), root) for key in FILES if values.get(key)}
    if not paths.keys() & {"object", "reference"}:
        raise ValueError(f"{where}: expected an object, a reference or both")
    if numbers["n"] < 1:
        raise ValueError(f"{where}: n={numbers['n']}; expected at least 1")
    object_, reference, pick = paths.get("object"), paths.get("reference"), str(values.get("pick") or "")
    source = ObjectSource(object_, reference, numbers["object_scale"], pick=pick)
    seeds = tuple(numbers["seed"] + i for i in range(numbers["n"]))
    masked = _with_region(replace(like.masked, mask=paths.get("mask")), values, where)
    try:
        if "mask" in paths:
            check_file(paths["mask"], "a mask")
        source.check()
        item = replace(like, masked=masked, source=source, seeds=seeds, best=len(seeds) > 1)
    except (ValueError, FileNotFoundError) as error:
        raise type(error)(f"{where}: {error}") from error
    return Placement(item, numbers["order"])


def _with_region(masked: MaskedBackground, values: Mapping[str, Any], where: str) -> MaskedBackground:
    """The background with the region of these values; ValueError unless there is exactly one."""
    channel = str(values.get("mask_channel") or "")
    regions = [key for key in REGIONS if values.get(key) not in (None, "")]
    if channel and channel not in CHANNELS:
        raise ValueError(f"{where}: mask_channel={channel!r}; expected one of {', '.join(CHANNELS)}")
    if len(regions) + (channel == "background") != 1:
        raise ValueError(f"{where}: expected one of {', '.join(REGIONS)} and mask_channel: background")
    if channel and regions in (["box"], ["polygon"]):
        raise ValueError(f"{where}: mask_channel={channel!r} does not go with {regions[0]}; leave it out")
    box = parse_box(values["box"], where) if "box" in regions else ()
    polygons = parse_polygons(values["polygon"], f"{where}: polygon") if "polygon" in regions else ()
    return replace(masked, box=box, polygons=tuple(polygons), channel=channel)


def _number(value: Any, kind: type, where: str) -> Any:
    if kind is int:
        return whole_number(value, where)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{where}={value!r}; expected a number")
    return float(value)
