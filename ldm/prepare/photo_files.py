"""Photos and what lies beside them: boxes, masks, transparency; in any folder, and in an object folder.

What was proposed for an object folder is recorded as hashes in its `.prepare.json`; other files are a
person's.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from itertools import chain, count
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ldm.data.boxes import Box, Frame, read_boxes
from ldm.data.files import (
    PICTURE_SUFFIXES,
    file_digest,
    list_files,
    one_per_stem,
    other_pictures,
    write_file,
)
from ldm.data.insertset import KINDS, PREPARED, picture_named, silhouette_beside, turned_others
from ldm.data.mask_levels import read_silhouette
from ldm.data.picture import read_alpha, read_frame, read_rgb
from ldm.data.picture_decode import opened, pages
from ldm.prepare.proposal import Source


def find_photos(folder: Path) -> list[Path]:
    """The photos of a folder, or of its data/: its pictures without the masks beside them.

    ValueError if there are none, FileNotFoundError if there is no folder.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder; expected one with 3-6 photos of one object")
    inner = folder / "data"
    place = inner if inner.is_dir() else folder
    files = list_files(place) + other_pictures(place)  # whose reading names what is not read
    masks = {f"{file.stem}_mask" for file in files}
    photos = [file for file in files if file.stem not in masks]
    if not photos:
        raise ValueError(f"{folder}: no photos; expected 3-6 pictures of one object")
    return photos


class Known(NamedTuple):
    """What is known of a photo: box, silhouette uint8 [H,W], and what it comes from."""

    box: Box | None
    silhouette: np.ndarray | None
    source: Source


def known_beside(photo: Path) -> Known:
    """The box of NAME.txt, the silhouette of NAME_mask.* or of the photo's own transparency.

    They may also be bbox/NAME.txt and mask/NAME.*, in the photo's folder or beside its data/. ValueError if
    they would belong to two photos of one name.
    """
    masks = [silhouette_beside(photo), *(mask_file(parent, photo.stem) for parent in _parents(photo))]
    mask = next((path for path in masks if path.is_file()), None)
    text = _text_beside(photo)
    if mask is not None or text is not None:
        same = (file for file in list_files(photo.parent) if file.stem == photo.stem)
        one_per_stem(same, lambda file: file.stem)
    box = None if text is None else _read_box(text, photo)
    if mask is not None:
        return Known(box, read_silhouette(mask), "mask")
    alpha = read_alpha(photo)
    return Known(box, alpha, "alpha" if alpha is not None else "proposed" if box is None else "box")


def _parents(photo: Path) -> list[Path]:
    return [photo.parent, *([photo.parent.parent] if photo.parent.name == "data" else [])]


def _text_beside(photo: Path) -> Path | None:
    texts = [photo.with_suffix(".txt"), *(box_file(parent, photo.stem) for parent in _parents(photo))]
    return next((path for path in texts if path.is_file()), None)


def box_file(root: Path, name: str) -> Path:
    return root / "bbox" / f"{name}.txt"


def mask_file(root: Path, name: str) -> Path:
    return picture_named(root / "mask", name)


def photos_of(root: Path) -> dict[str, Path]:
    """The photos of an object folder by name, in natural order."""
    return {path.stem: path for path in list_files(root / "data")}


def photo_of(root: Path, name: str) -> Path:
    """A photo of an object folder; FileNotFoundError if it has none of this name."""
    photos = photos_of(root)
    if name not in photos:
        raise FileNotFoundError(f"{root}: no photo {name!r}; it has {', '.join(photos) or 'none'}")
    return photos[name]


def page_warnings(photo: Path) -> list[str]:
    """A warning if only the first page, or frame, of a photo is read."""
    with opened(photo) as file:
        count = pages(file)
    return [f"animated or of several pages: the first of {count} is taken"] if count > 1 else []


def stored_suffix(photo: Path) -> str:
    """The suffix under which a copy of a photo is found: its own if that is usual, else its format's."""
    suffix = photo.suffix.lower()
    if suffix in PICTURE_SUFFIXES:
        return suffix
    with opened(photo) as file:
        kind = "JPEG" if file.format == "MPO" else file.format or ""
    return f".{kind.lower()}"


def category_names(root: Path) -> dict[str, str]:
    """sha256 of each same-category picture of an object folder => its name."""
    folder = root / "reg_data"
    return {file_digest(path): path.stem for path in list_files(folder) + other_pictures(folder)}


def free_category_name(root: Path, stem: str) -> str:
    """A name that no same-category picture, box or mask of an object folder has: STEM, STEM_2 ..."""
    taken = {path.stem for part in KINDS[1] for path in (root / part).glob("*")}
    return next(name for name in chain([stem], (f"{stem}_{n}" for n in count(2))) if name not in taken)


def check_boxes(root: Path) -> None:
    """ValueError if a box of an object folder is not inside its photo as shown, where it is to count."""
    for name, image in photos_of(root).items():
        if box_file(root, name).is_file():
            stored_box(root, image)


def stored_box(root: Path, image: Path) -> Box:
    """The first box of a photo's file, in displayed pixels."""
    return _read_box(box_file(root, image.stem), image, shown=True)


def annotated(root: Path, image: Path) -> tuple[np.ndarray, Box, np.ndarray]:
    """A photo of an object folder, uint8 [H,W,3], with its box and silhouette uint8 [H,W]."""
    return read_rgb(image), stored_box(root, image), read_silhouette(mask_file(root, image.stem))


def _read_box(text: Path, image: Path, shown: bool = False) -> Box:
    """`shown`: it is known to count in the photo as viewers show it, whatever EXIF says."""
    faults: list[str] = []
    frame = read_frame(image)
    frame = Frame(*frame.shown) if shown else frame
    others = turned_others(image, _text_beside) if frame.orientation > 1 else {}
    boxes = read_boxes({text: frame}, text.parent, faults, others=others)[text]
    if faults:
        raise ValueError(f"{text.parent}/{faults[0]}")
    return boxes[0]


VERSION = 1  # of the record


@dataclass
class PhotoRecord:
    """Of one photo: sha256 of the photo, its proposed box file and mask, and of the box the mask is for."""

    photo: str
    box: str = ""
    mask: str = ""
    mask_for: str = ""
    source: Source = "proposed"
    segmenter: str = ""
    warnings: list[str] = field(default_factory=list)


@dataclass
class FolderRecord:
    """`photos` by name (the file's stem in data/), those that were removed too.

    `reference`: the photo that it shows, "" if another picture; `chosen`: a person chose it; `files`: sha256
    by file name of the reference and its silhouette.
    """

    photos: dict[str, PhotoRecord] = field(default_factory=dict)
    reference: str = ""
    chosen: bool = False
    files: dict[str, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)


def read_record(root: Path) -> FolderRecord:
    """The folder's record, empty if there is none; ValueError if it is not readable."""
    path = root / PREPARED
    if not path.is_file():
        return FolderRecord()
    try:
        stored = json.loads(path.read_text("utf-8"))
        if stored.pop("version") != VERSION:
            raise ValueError("another version")
        photos = {name: PhotoRecord(**entry) for name, entry in stored.pop("photos").items()}
        return FolderRecord(photos, **stored)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(
            f"{path}: not readable ({error}); remove it, then boxes and masks in the folder are kept"
        ) from error


def write_record(root: Path, record: FolderRecord) -> None:
    write_file(root / PREPARED, json.dumps({"version": VERSION, **asdict(record)}, indent=1))


def changed(path: Path, recorded: str) -> bool:
    """Whether the file is there and is not the one that was recorded."""
    return path.is_file() and file_digest(path) != recorded
