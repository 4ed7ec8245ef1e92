"""Write an object folder from photos, and bring it up to date after a person's corrections.

In: photos, and masks, transparency or box files where they exist (`known_beside`). Out: the folder as in
`LAYOUT` of `ldm/data/insertset.py`: photos byte for byte, boxes and silhouettes in the pixels that a viewer
shows. A box or mask file that differs from what was proposed was corrected by a person and is kept.
"""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image

from ldm.data.boxes import CORNERS, Box, Frame, Given, clipped_box
from ldm.data.files import atomic_file, check_folder, file_digest, locked_folder, write_file
from ldm.data.insertset import PREPARED
from ldm.data.mask_levels import read_silhouette
from ldm.data.picture import read_frame, read_rgb
from ldm.prepare.photo_checks import best_view, compare_views, view_of
from ldm.prepare.photo_files import (
    FolderRecord,
    Known,
    PhotoRecord,
    annotated,
    box_file,
    category_names,
    changed,
    check_boxes,
    free_category_name,
    known_beside,
    mask_file,
    page_warnings,
    photo_of,
    photos_of,
    read_record,
    stored_box,
    stored_suffix,
    write_record,
)
from ldm.prepare.proposal import Proposal, Source, propose
from ldm.prepare.reference import check_reference, update_reference
from ldm.prepare.segmenter import Segmenter, load_segmenter

Progress = Callable[[Sequence[str]], Iterable[str]]  # as tqdm


@dataclass(frozen=True)
class PreparedPhoto:
    """A photo of the folder: its box in displayed pixels, its silhouette's file, and what they come from."""

    name: str
    image: Path
    box: Box
    mask: Path
    source: Source
    corrected: bool
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class PreparedObject:
    """An object folder; `reference`: the name of the photo that test.* shows, "" if it is another picture."""

    root: Path
    photos: tuple[PreparedPhoto, ...]
    reference: str
    warnings: tuple[str, ...]


def write_object_folder(
    root: Path,
    photos: Sequence[Path] = (),
    reference: Path | str | None = None,
    category: Sequence[Path] = (),
    segmenter: Segmenter | None = None,
    progress: Progress = iter,
) -> PreparedObject:
    """Add photos to an object folder, new or not, and bring boxes, silhouettes and reference up to date.

    `reference`: the name of a photo in the folder, or a picture file (a photo, or another picture).
    `category`: same-category pictures. A photo that was removed is not added again. Raises as the readers do,
    and ValueError if another process is writing the folder or `reference` would replace a person's file.
    """
    check_folder(root, f"--out {root}")
    segmenter = segmenter or load_segmenter()
    with locked_folder(root, "wait for it"):
        record = read_record(root)
        if not (root / PREPARED).is_file():
            check_boxes(root)
        added, new = _named(root, photos, record)
        if reference is not None:
            check_reference(root, record, reference, [*photos_of(root), *new])
        for name, photo in new.items():
            _copy(photo, root / "data" / f"{name}{stored_suffix(photo)}")
        _update(root, added | new, record, segmenter, progress)
        _add_category(root, category, segmenter, progress)
        return _finish(root, record, segmenter, reference)


def read_object_folder(root: Path) -> PreparedObject:
    """A folder that `write_object_folder` wrote, as it is now; FileNotFoundError if it is none."""
    if not (root / PREPARED).is_file():
        raise FileNotFoundError(
            f"{root}: not prepared; run: bash prepare.sh PHOTOS --out {shlex.quote(str(root))}"
        )
    record = read_record(root)
    photos = []
    for name, image in photos_of(root).items():
        entry = record.photos.get(name) or PhotoRecord("")
        box, mask = box_file(root, name), mask_file(root, name)
        if not (box.is_file() and mask.is_file()):
            raise FileNotFoundError(f"{root}: no box or no mask of {image.name}; run prepare.sh again")
        corrected = changed(box, entry.box) or changed(mask, entry.mask)
        own = (name, image, stored_box(root, image), mask, entry.source, corrected, tuple(entry.warnings))
        photos.append(PreparedPhoto(*own))
    return PreparedObject(root, tuple(photos), record.reference, tuple(record.warnings))


def correct_photo(
    root: Path, name: str, box: Box | None = None, silhouette: np.ndarray | None = None
) -> PreparedObject:
    """Store a person's box, or silhouette uint8 [H,W], or both; the other is made from the one that is given.

    ValueError if one does not fit the photo, FileNotFoundError if there is no such photo.
    """
    segmenter = load_segmenter()
    with locked_folder(root, "wait for it"):
        record, image = read_record(root), photo_of(root, name)
        pixels, boxes, mask = read_rgb(image), box_file(root, name), mask_file(root, name)
        if box is not None:
            box = clipped_box(Given(box, Frame(*pixels.shape[1::-1]), f"{image.name}: box"), CORNERS)
        proposal = propose(pixels, box, segmenter, silhouette)
        entry = record.photos.setdefault(name, PhotoRecord(file_digest(image)))
        entry.box, entry.mask = (file_digest(file) if file.is_file() else "" for file in (boxes, mask))
        _write_proposal(root, name, proposal, entry, segmenter)  # which replaces what is recorded
        entry.box = entry.box if box is None else ""  # no file's hash: it is a person's
        entry.mask = entry.mask if silhouette is None else ""
        write_record(root, record)
        return _finish(root, record, segmenter)


def remove_photo(root: Path, name: str) -> PreparedObject:
    """Remove a photo, its box, silhouette and record; it may be added again."""
    with locked_folder(root, "wait for it"):
        record = read_record(root)
        for file in (photo_of(root, name), box_file(root, name), mask_file(root, name)):
            file.unlink(missing_ok=True)
        record.photos.pop(name, None)
        if record.reference == name:
            record.reference, record.chosen = "", False
        return _finish(root, record, load_segmenter())


def _named(
    root: Path, photos: Sequence[Path], record: FolderRecord
) -> tuple[dict[str, Path], dict[str, Path]]:
    """Photos by their names in the folder: those that it has without a box, and new ones, which are recorded.

    A run that failed has copied the former. Raises if a new one is not readable.
    """
    there = {file_digest(path): name for name, path in photos_of(root).items()}
    seen = {entry.photo for entry in record.photos.values()} | there.keys()
    number = max([int(name) for name in {*there.values(), *record.photos} if name.isdecimal()], default=0)
    added, new = dict[str, Path](), dict[str, Path]()
    for photo in photos:
        digest = file_digest(photo)
        if digest in seen:
            name = there.get(digest)
            if name and not (box_file(root, name).is_file() or mask_file(root, name).is_file()):
                added[name] = photo
            continue
        read_frame(photo)  # raises if it is not readable
        seen.add(digest)
        number += 1
        new[str(number)] = photo
        record.photos[str(number)] = PhotoRecord(digest)
    return added, new


def _update(
    root: Path, added: dict[str, Path], record: FolderRecord, segmenter: Segmenter, progress: Progress
) -> None:
    """Write the boxes and silhouettes that are missing, or were made for another box or segmenter."""
    images = photos_of(root)
    for name in progress(list(images)):
        image, entry = images[name], record.photos.setdefault(name, PhotoRecord(file_digest(images[name])))
        if name not in added and _is_current(root, name, entry, segmenter):
            continue
        known = known_beside(added[name]) if name in added else _corrected(root, image, entry)
        proposal = _proposed(added.get(name, image), known, segmenter)
        _write_proposal(root, name, replace(proposal, source=known.source), entry, segmenter)
        write_record(root, record)  # after each: what is not recorded counts as a person's


def _proposed(photo: Path, known: Known, segmenter: Segmenter) -> Proposal:
    """`propose`, whose errors name the photo."""
    pixels = read_rgb(photo)
    try:
        return propose(pixels, known.box, segmenter, known.silhouette)
    except ValueError as error:
        raise ValueError(f"{photo}: {error}") from error


def _is_current(root: Path, name: str, entry: PhotoRecord, segmenter: Segmenter) -> bool:
    """Whether box and silhouette are there and made for each other, by this segmenter or a person."""
    box, mask = box_file(root, name), mask_file(root, name)
    if not (box.is_file() and mask.is_file()):
        return False
    if changed(mask, entry.mask):
        return changed(box, entry.box)
    made = entry.segmenter in ("", segmenter.name)
    return made and (entry.mask_for == file_digest(box))


def _corrected(root: Path, image: Path, entry: PhotoRecord) -> Known:
    """The box and the silhouette that are a person's, as far as there are any."""
    box, mask = box_file(root, image.stem), mask_file(root, image.stem)
    silhouette = read_silhouette(mask) if changed(mask, entry.mask) else None
    given = changed(box, entry.box) or (entry.source == "box" and box.is_file() and silhouette is None)
    source: Source = "mask" if silhouette is not None else "box" if given else "proposed"
    return Known(stored_box(root, image) if given else None, silhouette, source)


def _write_proposal(
    root: Path, name: str, proposal: Proposal, entry: PhotoRecord, segmenter: Segmenter
) -> None:
    """Write and record what is not a person's."""
    box, mask = box_file(root, name), mask_file(root, name)
    if not changed(box, entry.box):
        write_file(box, " ".join(f"{value:g}" for value in proposal.box) + "\n")
        entry.box = file_digest(box)
    if not changed(mask, entry.mask):
        with atomic_file(mask) as file:
            Image.fromarray(proposal.silhouette).save(file, "PNG")
        entry.mask = file_digest(mask)
    entry.mask_for, entry.source = file_digest(box), proposal.source
    entry.segmenter = segmenter.name if proposal.source in ("box", "proposed") else ""
    entry.warnings = [*page_warnings(photo_of(root, name)), *proposal.warnings]


def _add_category(root: Path, category: Sequence[Path], segmenter: Segmenter, progress: Progress) -> None:
    """Copy pictures to reg_data/, each under a free name, with a known or proposed box."""
    photos = {str(path): path for path in category}
    there = category_names(root)
    for name in progress(list(photos)):
        photo, digest = photos[name], file_digest(photos[name])
        own = there.get(digest) or free_category_name(root, photo.stem)
        text = root / "reg_bbox" / f"{own}.txt"
        if text.is_file():
            continue
        known = known_beside(photo)
        box = known.box or _proposed(photo, known, segmenter).box
        if digest not in there:
            _copy(photo, root / "reg_data" / f"{own}{stored_suffix(photo)}")
            there[digest] = own
        write_file(text, " ".join(f"{value:g}" for value in box) + "\n")


def _finish(
    root: Path, record: FolderRecord, segmenter: Segmenter, reference: Path | str | None = None
) -> PreparedObject:
    """Write the reference, what is doubtful about all photos together, and the record."""
    photos = photos_of(root)
    views = {name: view_of(*annotated(root, image)) for name, image in photos.items()}
    best = best_view(views) if views else ""
    record.warnings = compare_views(views)
    update_reference(root, record, best, segmenter, reference)
    write_record(root, record)
    return read_object_folder(root)


def _copy(source: Path, target: Path) -> None:
    with source.open("rb") as original, atomic_file(target) as file:
        shutil.copyfileobj(original, file)
