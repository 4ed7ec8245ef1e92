"""Which background gets which mask: command-line paths => checked cases, before any model is loaded."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ldm.data.image import SUFFIXES
from ldm.data.insertset import natural_key
from ldm.data.picture import Picture, read_picture
from ldm.insertion.marking import BOX_FILE, POLYGON_FILE, MaskTools, read_marking
from ldm.insertion.region_mask import read_roi_file
from ldm.insertion.roi import Roi

ROLE = re.compile(
    r"[_-]?(img|image|mask|background|bg)$", re.IGNORECASE
)  # 0001_img.png goes with 0001_mask.png

TOOLS = MaskTools()


@dataclass(frozen=True)
class Case:
    """One background file and where the object goes: a mask, box or polygon file, or a box x0 y0 x1 y1.

    With neither it is the background's transparent part, if the tools' channel says so.
    """

    background: Path
    mask: Path | None = None
    box: tuple[float, ...] = ()

    @property
    def name(self) -> str:
        """What its results are called; `background.png` goes by its folder."""
        return ROLE.sub("", self.background.stem) or self.background.parent.name

    def read(self, tools: MaskTools = TOOLS) -> tuple[Picture, np.ndarray]:
        """The background and its mask, bool [H,W]; raises one-line errors for whatever does not fit."""
        picture = read_picture(self.background)
        return picture, read_marking(self.background, picture, self.mask, self.box, tools)


def pair(
    backgrounds: Sequence[Path], masks: Sequence[Path], box: Sequence[float] = (), transparent: bool = False
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
    if box:
        return [Case(image, box=tuple(box)) for image in images]
    if transparent:
        return [Case(image) for image in images]
    if not masks:
        raise ValueError(
            "no region is marked; give --mask (picture, box file or folder) or --box x0 y0 x1 y1"
        )
    found = _files(masks, (*SUFFIXES, BOX_FILE, POLYGON_FILE))
    if len(found) == 1:
        return [Case(image, found[0]) for image in images]
    by_name = {ROLE.sub("", file.stem): file for file in found}
    names = [ROLE.sub("", image.stem) for image in images]
    if all(name in by_name for name in names) and len(by_name) == len(found):
        return [Case(image, by_name[name]) for image, name in zip(images, names, strict=True)]
    if len(found) == len(images) and not any(path.is_dir() for path in (*backgrounds, *masks)):
        return [Case(*both) for both in zip(images, found, strict=True)]
    lonely = [image.name for image, name in zip(images, names, strict=True) if name not in by_name]
    raise ValueError(
        f"no mask for {', '.join(lonely[:3]) or 'these backgrounds'}; name it like its background"
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
    return Roi(*(round(value) for value in read_roi_file(path)))
