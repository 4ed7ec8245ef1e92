"""The reference of an object folder: the object of the best photo, of a chosen one or of another picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from ldm.data.boxes import Box, pixel_box
from ldm.data.failure import check_file
from ldm.data.files import atomic_file, file_digest, list_files, overwritten
from ldm.data.picture import Picture, read_frame, read_picture, read_rgb
from ldm.data.picture_write import write_picture
from ldm.prepare.photo_files import FolderRecord, annotated, changed, known_beside, photos_of
from ldm.prepare.proposal import propose
from ldm.prepare.segmenter import Segmenter

JPEG = (".jpg", ".jpeg")
JPEG_QUALITY = 95


def update_reference(
    root: Path, record: FolderRecord, best: str, segmenter: Segmenter, chosen: Path | str | None = None
) -> None:
    """Write test.* and test_mask.png: of what a person chose, now or before, else of the photo named `best`.

    `chosen`: a photo's name, or a picture file, see `check_reference`. A reference that a person made is kept
    unless one is chosen.
    """
    photos = photos_of(root)
    there = record.reference in photos if record.reference else bool(_files(root))
    if chosen is not None:
        _choose(root, photos, record, segmenter, chosen)
    elif theirs := _theirs(root, record):
        record.reference, record.chosen = "", True
        if any(path.stem == "test" and path.name not in record.files for path in theirs):
            _record(root, record, ())  # a folder has one reference
    elif not (record.chosen and there):
        record.reference, record.chosen = best, False
    if record.reference in photos:
        _, box, silhouette = annotated(root, photos[record.reference])
        _record(root, record, _write(root, photos[record.reference], box, silhouette))


def check_reference(root: Path, record: FolderRecord, chosen: Path | str, photos: Sequence[str]) -> None:
    """ValueError if a chosen reference would replace a person's file, or the file that is chosen.

    Also if it is neither the name of one of the `photos` nor a picture file.
    """
    if str(chosen) not in photos:
        check_file(Path(chosen), "a photo or picture file", f"the photos are {', '.join(photos)}")
        read_frame(Path(chosen))
    theirs = _theirs(root, record)
    if lost := theirs[0] if theirs else overwritten(_files(root), [Path(chosen)]):
        raise ValueError(
            f"the reference {chosen} would replace {lost}; move that file to another folder first, "
            "or choose no reference to keep it"
        )


def _choose(
    root: Path, photos: dict[str, Path], record: FolderRecord, segmenter: Segmenter, chosen: Path | str
) -> None:
    """Record the photo; write the reference if it is another picture."""
    file, record.chosen = Path(chosen), True
    named = str(chosen) in photos
    same = [name for name, path in photos.items() if not named and file_digest(path) == file_digest(file)]
    if named or same:
        record.reference = str(chosen) if named else same[0]
        return
    known, record.reference = known_beside(file), ""
    proposal = propose(read_rgb(file), known.box, segmenter, known.silhouette)
    _record(root, record, _write(root, file, proposal.box, proposal.silhouette))


def _files(root: Path) -> list[Path]:
    return [path for path in list_files(root) if path.stem in ("test", "test_mask")]


def _theirs(root: Path, record: FolderRecord) -> list[Path]:
    """Those of the reference's files that this program did not write, or that a person changed."""
    return [path for path in _files(root) if changed(path, record.files.get(path.name, ""))]


def _record(root: Path, record: FolderRecord, files: Sequence[Path]) -> None:
    """Record the reference's files; those recorded before are removed."""
    for name, digest in record.files.items():
        old = root / name
        if old not in files and not changed(old, digest):
            old.unlink(missing_ok=True)
    record.files = {file.name: file_digest(file) for file in files}


def _write(root: Path, image: Path, box: Box, silhouette: np.ndarray) -> tuple[Path, Path]:
    """Write a photo's object as test.* and its silhouette as test_mask.png, both cropped to the box.

    The object of a JPEG is written as JPEG, all else as PNG.
    """
    picture = read_picture(image, convert=True)
    x0, y0, x1, y1 = pixel_box(box, picture.size)
    crop = replace(picture, pixels=np.ascontiguousarray(picture.pixels[y0:y1, x0:x1]), exif=None)
    opaque, suffix = crop.pixels.shape[2] == crop.n_colours, image.suffix.lower()
    if suffix in JPEG and opaque and crop.pixels.dtype == np.uint8:
        file = root / f"test{suffix}"
        _write_jpeg(file, crop)
    else:
        file = root / "test.png"
        write_picture(file, crop)
    mask = root / "test_mask.png"
    write_picture(mask, Picture(np.ascontiguousarray(silhouette[y0:y1, x0:x1, None])))
    return file, mask


def _write_jpeg(path: Path, picture: Picture) -> None:
    pixels = picture.pixels[..., 0] if picture.pixels.shape[2] == 1 else picture.pixels
    options = {"icc_profile": picture.icc_profile} if picture.icc_profile else {}
    with atomic_file(path) as file:
        Image.fromarray(pixels).save(file, "JPEG", quality=JPEG_QUALITY, subsampling=0, **options)
