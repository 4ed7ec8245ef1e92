"""Which background gets which mask: command-line paths => checked cases, before any model is loaded."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ldm.data.image import SUFFIXES
from ldm.data.insertset import natural_key
from ldm.data.picture import Picture, read_picture
from ldm.insertion.marking import (
    BOX_FILE,
    POLYGON_FILE,
    Marking,
    MaskTools,
    Polygon,
    read_marking,
    read_paste_mask,
    warn_of_unseen,
)
from ldm.insertion.region_mask import read_roi_file
from ldm.insertion.roi import Roi

ROLE = re.compile(
    r"[_-]?(img|image|mask|background|bg)$", re.IGNORECASE
)  # 0001_img.png goes with 0001_mask.png

TOOLS = MaskTools()


@dataclass(frozen=True)
class Case:
    """One background file and where the object goes: a mask, box or polygon file, a box, or polygons.

    With none of them it is the background's transparent part, if the channel says so: the case's own, else
    that of the tools. `paste_mask`, a file like `mask`: only that part of what is generated is pasted.
    """

    background: Path
    mask: Path | None = None
    box: tuple[float, ...] = ()
    paste_mask: Path | None = None
    polygons: tuple[Polygon, ...] = ()
    channel: str = ""

    @property
    def name(self) -> str:
        """What its results are called; `background.png` goes by its folder."""
        return ROLE.sub("", self.background.stem) or self.background.parent.name

    def read(self, tools: MaskTools = TOOLS) -> tuple[Picture, Marking]:
        """The background and what is marked on it; raises one-line errors for whatever does not fit."""
        picture = read_picture(self.background)
        return picture, self.mark(picture, tools)

    def mark(self, picture: Picture, tools: MaskTools = TOOLS) -> Marking:
        """What is marked on a background that was read as `picture`."""
        tools = replace(tools, channel=self.channel or tools.channel)
        hole = read_marking(self.background, picture, self.mask, self.box, tools, self.polygons)
        paste = self.paste_mask
        mask = hole if paste is None else read_paste_mask(paste, self.background, picture, hole, tools)
        warn_of_unseen(self.background, picture, mask)
        return Marking(hole, mask)


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
    images = _files(backgrounds, SUFFIXES)
    if transparent + bool(masks) + bool(box) > 1:
        raise ValueError(
            "the region is marked twice; give one of --mask, --box and --mask_channel background"
        )
    if not (transparent or masks or box):
        raise ValueError(
            "no region is marked; give --mask (picture, box file or folder) or --box x0 y0 x1 y1"
        )
    marked = _matched(backgrounds, masks, "mask") if masks else [None for _ in images]
    pasted = _matched(backgrounds, paste_masks, "paste mask") if paste_masks else [None for _ in images]
    rows = zip(images, marked, pasted, strict=True)
    return [Case(image, mask, tuple(box), paste) for image, mask, paste in rows]


def _matched(backgrounds: Sequence[Path], masks: Sequence[Path], kind: str) -> list[Path]:
    """The mask file of each background."""
    images, found = _files(backgrounds, SUFFIXES), _files(masks, (*SUFFIXES, BOX_FILE, POLYGON_FILE))
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
        inside = [f for f in path.iterdir() if f.suffix.lower() in suffixes] if path.is_dir() else [path]
        if not inside:
            raise ValueError(f"{path} holds no picture; expected {', '.join(suffixes)}")
        out += sorted(inside, key=lambda file: natural_key(file.name))
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
