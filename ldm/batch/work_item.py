"""A work item: background, mask, object and seeds; and work items from the paths of a command line."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ldm import __version__
from ldm.data.files import PICTURE_SUFFIXES, file_digest, fitting_name, list_files, text_digest
from ldm.data.picture import Picture, read_picture
from ldm.insertion.mask_input import (
    BOX_FILE,
    POLYGON_FILE,
    InsertMasks,
    MaskOptions,
    Polygon,
    read_insert_mask,
    read_paste_mask,
    warn_of_unseen,
)
from ldm.insertion.mask_shapes import read_roi_file
from ldm.insertion.object_source import ObjectSource
from ldm.insertion.roi import Roi

ROLE = re.compile(
    r"[_-]?(img|image|mask|background|bg)$", re.IGNORECASE
)  # 0001_img.png goes with 0001_mask.png

MASK_OPTIONS = MaskOptions()


@dataclass(frozen=True)
class Case:
    """One background file and where the object goes: a mask, box or polygon file, a box, or polygons.

    With none of them it is the transparent part of the background, if `channel`, or that of the mask options,
    is "background". `paste_mask`, a file like `mask`: the part of the mask that is pasted.
    """

    background: Path
    mask: Path | None = None
    box: tuple[float, ...] = ()
    paste_mask: Path | None = None
    polygons: tuple[Polygon, ...] = ()
    channel: str = ""

    @property
    def name(self) -> str:
        """The name of its results: that of the background; for `background.png` that of its folder."""
        return ROLE.sub("", self.background.stem) or self.background.parent.name

    def read(self, options: MaskOptions = MASK_OPTIONS) -> tuple[Picture, InsertMasks]:
        """The background and its masks; raises one-line errors for whatever does not fit."""
        picture = read_picture(self.background)
        return picture, self.masks_on(picture, options)

    def masks_on(self, picture: Picture, options: MaskOptions = MASK_OPTIONS) -> InsertMasks:
        """The masks on a background that was read as `picture`."""
        options = replace(options, channel=self.channel or options.channel)
        hole = read_insert_mask(self.background, picture, self.mask, self.box, options, self.polygons)
        paste = self.paste_mask
        mask = hole if paste is None else read_paste_mask(paste, self.background, picture, hole, options)
        warn_of_unseen(self.background, picture, mask)
        return InsertMasks(hole, mask)


def pair(
    backgrounds: Sequence[Path],
    masks: Sequence[Path],
    box: Sequence[float] = (),
    transparent: bool = False,
    paste_masks: Sequence[Path] = (),
) -> list[Case]:
    """Backgrounds and masks, files or folders => cases.

    One box or mask file may serve all backgrounds; else masks go by name (0001_img.png with 0001_mask.png,
    a.jpg with a.png), or, where names do not match, in the order given. `transparent`: no mask is needed.
    """
    images = _files(backgrounds, PICTURE_SUFFIXES)
    if transparent + bool(masks) + bool(box) > 1:
        raise ValueError("the region is given twice; give one of --mask, --box and --mask_channel background")
    if not (transparent or masks or box):
        raise ValueError("no mask is given; give --mask (image, box file or folder) or --box x0 y0 x1 y1")
    marked = _matched(backgrounds, masks, "mask") if masks else [None for _ in images]
    pasted = _matched(backgrounds, paste_masks, "paste mask") if paste_masks else [None for _ in images]
    rows = zip(images, marked, pasted, strict=True)
    return [Case(image, mask, tuple(box), paste) for image, mask, paste in rows]


def _matched(backgrounds: Sequence[Path], masks: Sequence[Path], kind: str) -> list[Path]:
    """The mask file of each background."""
    images = _files(backgrounds, PICTURE_SUFFIXES)
    found = _files(masks, (*PICTURE_SUFFIXES, BOX_FILE, POLYGON_FILE))
    if len(found) == 1:
        return found * len(images)
    by_name = {ROLE.sub("", file.stem): file for file in found}
    names = [ROLE.sub("", image.stem) for image in images]
    if all(name in by_name for name in names) and len(by_name) == len(found):
        return [by_name[name] for name in names]
    if len(found) == len(images) and not any(path.is_dir() for path in (*backgrounds, *masks)):
        return found
    lonely = [image.name for image, name in zip(images, names, strict=True) if name not in by_name]
    raise ValueError(
        f"no {kind} for {', '.join(lonely[:3]) or 'these backgrounds'}; name it like its background"
    )


def _files(paths: Sequence[Path], suffixes: Sequence[str]) -> list[Path]:
    """Folders => the files in them, in natural order; files stay."""
    out: list[Path] = []
    for path in paths:
        if not path.exists():
            raise FileNotFoundError(f"{path} does not exist; give a picture or a folder of pictures")
        inside = list_files(path, suffixes) if path.is_dir() else [path]
        if not inside:
            raise ValueError(f"{path} holds no picture; expected {', '.join(suffixes)}")
        out += inside
    return out


def read_roi(path: Path) -> Roi:
    """An ROI file as the region to inpaint, instead of a planned one."""
    return roi_of(read_roi_file(path), str(path))


def roi_of(numbers: Sequence[float], where: str) -> Roi:
    """x0 y0 x1 y1 in pixels, rounded, as a region; ValueError that says where if it is empty."""
    if not all(map(math.isfinite, numbers)):
        raise ValueError(f"{where}: expected four numbers x0 y0 x1 y1 in pixels")
    roi = Roi(*(round(value) for value in numbers))
    if min(roi.size) <= 0:
        raise ValueError(f"{where}: an empty region; give x0 y0 x1 y1 with x0 < x1 and y0 < y1")
    return roi


@dataclass(frozen=True)
class WorkItem:
    """A background with its mask, the object to insert, and a seed for each result.

    `best`: of all seeds only the best result is kept. `roi`: the square to inpaint, else it is planned.
    `name`: of the results, else that of the background.
    """

    case: Case
    source: ObjectSource
    seeds: tuple[int, ...]
    roi: Roi | None = None
    name: str = ""
    best: bool = False

    def __post_init__(self) -> None:
        if wrong := [seed for seed in self.seeds if not -(2**63) <= seed < 2**63]:
            raise ValueError(f"seed {wrong[0]}: expected a whole number of 64 bits")

    @property
    def stem(self) -> str:
        return self.name or self.case.name

    def files(self) -> dict[int, str]:
        """Seed => name of the result file; if only the best is kept, the first seed stands for it."""
        if self.best or len(self.seeds) == 1:
            return {self.seeds[0]: fitting_name(self.stem, ".png")}
        return {seed: fitting_name(self.stem, f"_{seed}.png") for seed in self.seeds}

    def sources(self) -> dict[str, Path]:
        """Role => file, of all files that determine the results."""
        found = {
            "background": self.case.background,
            "mask": self.case.mask,
            "paste_mask": self.case.paste_mask,
            "object": self.source.object,
            "reference": self.source.reference,
            "reference_mask": self.source.reference_mask,
            "pictures": self.source.pictures,
        }
        return {role: path for role, path in found.items() if path is not None}

    def digests(self) -> dict[str, str]:
        """Role => sha256 of that file; FileNotFoundError in one line."""
        return {role: file_digest(path) for role, path in self.sources().items()}


def key_of(
    item: WorkItem, seed: int, digests: Mapping[str, str], base: str, settings: Mapping[str, Any]
) -> str:
    """32 hex digits of all that determines a result: file contents, not names."""
    roi = None if item.roi is None else (item.roi.x0, item.roi.y0, item.roi.x1, item.roi.y1)
    facts = {
        "version": __version__,
        "base": base,
        "settings": settings,
        "digests": digests,
        "box": item.case.box,
        "roi": roi,
        "object_scale": item.source.object_scale,
        "pick": item.source.pick,
        "seed": seed,
        "best_of": len(item.seeds) if item.best else 0,
    }
    return text_digest(facts)[:32]


def check_files(items: Sequence[WorkItem]) -> None:
    """ValueError if two results would have one name."""
    seen: dict[str, Path] = {}
    for item in items:
        for file in item.files().values():
            if file in seen:
                raise ValueError(
                    f"two results would be called {file}, of {seen[file]} and {item.case.background}; "
                    "rename one, or give names in a manifest"
                )
            seen[file] = item.case.background
