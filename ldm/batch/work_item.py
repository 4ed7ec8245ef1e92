"""A work item: background, mask, object and seeds; and work items from the paths of a command line."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unicodedata import normalize

import numpy as np

from ldm import __version__
from ldm.data.boxes import Box, Frame, box_in
from ldm.data.files import file_digest, fitting_name, one_per_stem, pictures_in, text_digest
from ldm.data.picture import Picture, read_picture, warn_of_colours
from ldm.data.polygons import Polygon
from ldm.insertion.mask_input import (
    BOX_FILE,
    POLYGON_FILE,
    MaskOptions,
    read_insert_mask,
    warn_of_unseen,
)
from ldm.insertion.object_source import ObjectSource
from ldm.insertion.roi import Roi

ROLE = re.compile(
    r"[_-]?(img|image|mask|background|bg)$", re.IGNORECASE
)  # 0001_img.png goes with 0001_mask.png

MASK_OPTIONS = MaskOptions()
LAST_SEED = 2**63 - 1


@dataclass(frozen=True)
class MaskedBackground:
    """One background file and where the object goes: a mask, box or polygon file, a box, or polygons.

    With none of them it is the transparent part of the background, if `channel`, or that of the mask options,
    is "background".
    """

    background: Path
    mask: Path | None = None
    box: tuple[float, ...] = ()
    polygons: tuple[Polygon, ...] = ()
    channel: str = ""

    @property
    def name(self) -> str:
        """The name of its results: that of the background; for `background.png` that of its folder."""
        return ROLE.sub("", self.background.stem) or self.background.parent.name

    def read(self, options: MaskOptions = MASK_OPTIONS) -> tuple[Picture, np.ndarray]:
        """The background and its mask, bool [H,W]; raises one-line errors for whatever does not fit."""
        picture = read_picture(self.background)
        return picture, self.mask_on(picture, options)

    def mask_on(self, picture: Picture, options: MaskOptions = MASK_OPTIONS) -> np.ndarray:
        """The mask, bool [H,W], on a background that was read as `picture`."""
        options = replace(options, channel=self.channel or options.channel)
        mask = read_insert_mask(self.background, picture, self.mask, self.box, options, self.polygons)
        warn_of_colours(self.background, picture)
        warn_of_unseen(self.background, picture, mask)
        return mask


def pair(
    backgrounds: Sequence[Path],
    masks: Sequence[Path],
    box: Sequence[float] = (),
    transparent: bool = False,
) -> list[MaskedBackground]:
    """Backgrounds and masks, files or folders, as pairs.

    One box, or one mask that is given as a file, may serve all backgrounds; else masks go by name
    (0001_img.png with 0001_mask.png, a.jpg with a.png), or in the order given, if this gives no background
    a mask with the name of another one.
    `transparent`: no mask is needed.
    """
    images = _files(backgrounds)
    if transparent + bool(masks) + bool(box) > 1:
        raise ValueError("the region is given twice; give one of --mask, --box and --mask_channel background")
    if not (transparent or masks or box):
        raise ValueError("no mask is given; give --mask (image, box file or folder) or --box x0 y0 x1 y1")
    found = _matched(backgrounds, masks) if masks else [None for _ in images]
    return [MaskedBackground(image, mask, tuple(box)) for image, mask in zip(images, found, strict=True)]


def _matched(backgrounds: Sequence[Path], masks: Sequence[Path]) -> list[Path]:
    """The mask file of each background."""
    images = _files(backgrounds)
    found = _files(masks, (BOX_FILE, POLYGON_FILE))
    if len(found) == 1 and not masks[0].is_dir():
        return found * len(images)
    folders = any(path.is_dir() for path in (*backgrounds, *masks))
    names = [pair_name(image) for image in images]
    by_name = {pair_name(file): file for file in found}
    if all(name in by_name for name in names) and (len(by_name) == len(found) or folders):
        by_name = one_per_stem(found, pair_name)
        return [by_name[name] for name in names]
    others = set(names)
    in_order = zip(names, map(pair_name, found), strict=False)
    crossed = any(mask != name and mask in others for name, mask in in_order)
    if len(found) == len(images) and not folders and not crossed:
        return found
    if len(images) == 1 and len(masks) > 1 and not folders:
        raise ValueError(
            f"{len(masks)} masks were given for 1 background, {images[0].name}; give one, of any name"
        )
    lonely = [image.name for image, name in zip(images, names, strict=True) if name not in by_name]
    raise ValueError(
        f"no mask for {', '.join(lonely[:3]) or 'these backgrounds'}; name it like its background"
    )


def pair_name(file: Path) -> str:
    """The name by which backgrounds and masks are paired: 0001_img.png => 0001."""
    return ROLE.sub("", normalize("NFC", file.stem))  # macOS may write accents as letters of their own


def _files(paths: Sequence[Path], also: Sequence[str] = ()) -> list[Path]:
    """Folders => the pictures in them, and files of suffixes `also`, in natural order; files stay."""
    if missing := [path for path in paths if not path.exists()]:
        raise FileNotFoundError(f"{missing[0]} does not exist; give a picture or a folder of pictures")
    return [file for path in paths for file in (pictures_in(path, also) if path.is_dir() else [path])]


def roi_in(numbers: Box, frame: Frame) -> Roi:
    """Four numbers as the region of a background, rounded; ValueError if they are none."""
    roi = Roi(*(round(value) for value in box_in(numbers, frame, "region", may_leave=True)))
    if min(roi.size) <= 0:
        raise ValueError(
            f"region {' '.join(f'{value:g}' for value in numbers)}: less than a pixel; enlarge it"
        )
    return roi


@dataclass(frozen=True)
class WorkItem:
    """A background with its mask, the object to insert, and a seed for each result.

    `best`: of all seeds only the best result is kept. `roi`: the numbers of the square to inpaint, else it is
    planned.
    `name`: of the results, else that of the background.
    """

    masked: MaskedBackground
    source: ObjectSource
    seeds: tuple[int, ...]
    roi: Box | None = None
    name: str = ""
    best: bool = False

    def __post_init__(self) -> None:
        if wrong := [seed for seed in self.seeds if not 0 <= seed <= LAST_SEED]:
            raise ValueError(
                f"seed {wrong[0]}: expected 0 to {LAST_SEED} (2^63 - 1); no seed stands for a random one"
            )

    @property
    def stem(self) -> str:
        return self.name or self.masked.name

    def files(self) -> dict[int, str]:
        """Seed => name of the result file; if only the best is kept, the first seed stands for it."""
        if self.best or len(self.seeds) == 1:
            return {self.seeds[0]: fitting_name(self.stem, ".png")}
        return {seed: fitting_name(self.stem, f"_{seed}.png") for seed in self.seeds}

    def sources(self) -> dict[str, Path]:
        """Role => file, of all files that determine the results."""
        found = {
            "background": self.masked.background,
            "mask": self.masked.mask,
            "object": self.source.object,
            "reference": self.source.reference,
            "pictures": self.source.pictures,
            **self.source.reference_parts(),
        }
        return {role: path for role, path in found.items() if path is not None}

    def digests(self) -> dict[str, str]:
        """Role => sha256 of that file; FileNotFoundError in one line."""
        return {role: file_digest(path) for role, path in self.sources().items()}


def key_of(
    item: WorkItem, seed: int, digests: Mapping[str, str], base: str, settings: Mapping[str, Any]
) -> str:
    """32 hex digits of all that determines a result: file contents, not names."""
    facts = {
        "version": __version__,
        "base": base,
        "settings": settings,
        "digests": digests,
        "box": item.masked.box,
        "roi": item.roi,
        "object_scale": item.source.object_scale,
        "pick": item.source.pick,
        "seed": seed,
        "best_of": len(item.seeds) if item.best else 0,
    }
    return text_digest(facts)[:32]
