"""Read an object folder: the pictures and boxes of one object, all of them checked before use.

In: an object folder, with the layout of `LAYOUT`; the paper's data set InsertSet has one for each object.
Out: an `InsertSet`, or one error that lists all faults of the folder.
"""

from __future__ import annotations

import shlex
import warnings
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ldm.data.boxes import BOX_FORMAT, NO_BOX, Box, Frame, read_boxes
from ldm.data.failure import of_machine, reason
from ldm.data.files import (
    PICTURE_SUFFIXES,
    file_digest,
    list_files,
    natural_key,
    other_pictures,
    text_digest,
)
from ldm.data.mask_levels import read_silhouette
from ldm.data.picture import read_frame

LAYOUT = (
    "data/1.jpg ... with bbox/1.txt ... (few-shot pictures and their boxes), test.jpg (the reference) and, "
    "optionally, reg_data/*.jpg with reg_bbox/*.txt (same-category pictures) and mask/1.png ... (the "
    "object's silhouettes)"
)

PREPARED = ".prepare.json"  # in a folder that `prepare.sh` made: its boxes count in pictures as shown
KINDS = (("data", "bbox", "mask"), ("reg_data", "reg_bbox", "reg_mask"))  # folders that belong together


@dataclass(frozen=True)
class Sample:
    """A picture and the object's boxes in it: at least one, not empty, inside the upright picture.

    `mask`: the silhouette, a picture of the same size that is white where the object is, if there is one.
    """

    image: Path
    boxes: tuple[Box, ...]
    mask: Path | None = None


@dataclass(frozen=True)
class InsertSet:
    """An object folder as read: few-shot pictures (at least one), same-category ones, the reference."""

    root: Path
    few_shot: tuple[Sample, ...]
    same_category: tuple[Sample, ...]
    reference: Path

    def digests(self) -> dict[str, str]:
        """Name of each picture => hash of the picture, its boxes and its silhouette."""
        alone = (self.reference, silhouette_beside(self.reference))
        found = {file.name: file_digest(file) for file in alone if file.is_file()}
        for sample in (*self.few_shot, *self.same_category):
            mask = None if sample.mask is None else file_digest(sample.mask)
            found[f"{sample.image.parent.name}/{sample.image.name}"] = text_digest(
                [file_digest(sample.image), sample.boxes, mask]
            )
        return found


def load_insertset(root: Path) -> InsertSet:
    """Read and check an object folder; ValueError lists every fault with its remedy, one in each line.

    Same-category pictures, which are many and downloaded, are checked less strictly: one without a box is
    left out, a box slightly outside is clipped, a fifth number is ignored; one warning counts these.
    """
    root = Path(root)
    if not root.is_dir():
        raise FileNotFoundError(f"{root}: no such folder; expected an object folder with {LAYOUT}")
    if not (root / "data").is_dir() and (photos := list_files(root)):
        raise ValueError(
            f"{root}: a plain folder of {len(photos)} pictures, no object folder; make one with: "
            + shlex.join(["bash", "prepare.sh", str(root), "--out", f"{root}_object"])
        )
    faults: list[str] = []
    few_shot = _read_samples(root, *KINDS[0], faults)
    slips: Counter[str] = Counter()
    same_category = _read_samples(root, *KINDS[1], faults, slips)
    reference = _find_reference(root, faults)
    _find_folders(root, faults)
    if faults or reference is None:
        count = "1 fault" if len(faults) == 1 else f"{len(faults)} faults"
        raise ValueError("\n  ".join([f"{root}: {count} in this object folder", *faults]))
    if slips:
        counts = "; ".join(f"{count} {slip}" for slip, count in slips.items())
        warnings.warn(f"{root}: among the same-category pictures: {counts}", stacklevel=2)
    return InsertSet(root, few_shot, same_category, reference)


def check_outside(folder: Path, given: str) -> None:
    """ValueError if an output folder is an object folder or one of its parts; `given`: flag and value."""
    whole = folder.resolve()
    parts = [name for names in KINDS for name in names]
    for root in (whole, whole.parent) if whole.name in parts else (whole,):
        if (root / KINDS[0][0]).is_dir() and (root / KINDS[0][1]).is_dir():
            raise ValueError(
                f"{given}: {root} is an object folder, whose pictures are those to learn from; "
                "give another name"
            )


def silhouette_beside(reference: Path) -> Path:
    """The file of a reference's silhouette beside it, NAME_mask.* as `picture_named` finds it."""
    return picture_named(reference.parent, f"{reference.stem}_mask")


def picture_named(folder: Path, stem: str) -> Path:
    """The picture file of this stem in a folder, whatever its suffix; STEM.png if there is none."""
    png = folder / f"{stem}.png"
    others = () if png.is_file() else (path for path in list_files(folder) if path.stem == stem)
    return next(iter(others), png)


def turned_others(picture: Path, text_of: Callable[[Path], Path | None]) -> dict[Path, Frame]:
    """The box files of the other pictures in a folder, found by `text_of`, with their pictures' frames.

    Of boxes in a picture that EXIF turns, only all of them together show whether they count in the picture as
    shown or as stored. A picture that is not readable is left out.
    """
    found = {}
    for other in list_files(picture.parent):
        text = None if other == picture else text_of(other)
        if text is not None:
            with suppress(ValueError, FileNotFoundError):
                found[text] = read_frame(other, whole=False)
    return found


def parts_in_folder(picture: Path) -> tuple[Path | None, Path | None]:
    """The box file and the mask of a picture that lies in an object folder; (None, None) if it does not."""
    for images, boxes, masks in KINDS:
        box = picture.parent.parent / boxes / f"{picture.stem}.txt"
        if picture.parent.name == images and box.is_file():
            found = _by_stem(picture.parent.parent / masks, PICTURE_SUFFIXES, [])
            return box, found.get(picture.stem)
    return None, None


def sample_in_folder(picture: Path) -> Sample | None:
    """A picture in an object folder, with its boxes and mask there; None if it is not in such a folder.

    ValueError if its box or mask is not right.
    """
    text, mask = parts_in_folder(picture)
    if text is None:
        return None
    root, faults = picture.parent.parent, list[str]()
    frame = _read_frame(picture, root, faults)
    if mask is not None:
        _check_mask(mask, frame, root, faults)
    turned = frame is not None and frame.orientation > 1
    others = turned_others(picture, lambda other: parts_in_folder(other)[0]) if turned else {}
    boxes = read_boxes({text: frame}, root, faults, others=others)[text]
    if faults:
        raise ValueError(f"{root}: {faults[0]}")
    return Sample(picture, boxes, mask)


def _read_samples(
    root: Path, images: str, boxes: str, masks: str, faults: list[str], slips: Counter[str] | None = None
) -> tuple[Sample, ...]:
    """The samples of `root/images`, `root/boxes` and `root/masks` in natural order; adds to `faults`.

    With `slips`, small faults are counted there instead.
    """
    pictures = _pictures(root / images, faults)
    texts = _by_stem(root / boxes, (".txt",), faults)
    if images == "data" and "test" not in texts:
        pictures.pop("test_mask", None)
        pictures.pop("test", None)  # a misplaced reference, as in the paper's rabbit folder
    if images == "data" and not pictures:
        faults.append(f"data: no few-shot picture; put at least one ({', '.join(PICTURE_SUFFIXES)}) there")
    for stem in sorted(texts.keys() - pictures.keys(), key=natural_key):
        faults.append(f"{boxes}/{texts[stem].name}: no picture {images}/{stem}.*; add it or remove this file")
    silhouettes = _pictures(root / masks, faults)
    for stem in sorted(silhouettes.keys() - pictures.keys(), key=natural_key):
        faults.append(f"{masks}/{silhouettes[stem].name}: no picture {images}/{stem}.*; remove this file")
    frames = {}
    for stem, picture in pictures.items():
        frame, mask = _read_frame(picture, root, faults), silhouettes.get(stem)
        if mask is not None:
            _check_mask(mask, frame, root, faults)
        if stem in texts:
            frames[stem] = frame
        elif slips is not None:
            slips[NO_BOX] += 1
        else:
            faults.append(f"{images}/{picture.name}: no box file; {BOX_FORMAT}, to {boxes}/{stem}.txt")
    found = read_boxes({texts[stem]: frame for stem, frame in frames.items()}, root, faults, slips)
    boxed = [(stem, found[texts[stem]]) for stem in frames if found[texts[stem]]]
    return tuple(Sample(pictures[stem], own, silhouettes.get(stem)) for stem, own in boxed)


def _pictures(folder: Path, faults: list[str]) -> dict[str, Path]:
    """A folder's pictures by stem, in natural order, `other_pictures` too; two of one stem are a fault."""
    found = {path.stem: path for path in other_pictures(folder)} | _by_stem(folder, PICTURE_SUFFIXES, faults)
    return dict(sorted(found.items(), key=lambda item: natural_key(item[0])))


def _by_stem(folder: Path, suffixes: tuple[str, ...], faults: list[str]) -> dict[str, Path]:
    """The folder's files with these suffixes, by stem, in natural order; two of one stem are a fault."""
    files: dict[str, Path] = {}
    for path in list_files(folder, suffixes):
        if path.stem in files:
            faults.append(
                f"{folder.name}/{path.name}: same stem as {files[path.stem].name}; rename or remove one"
            )
        files.setdefault(path.stem, path)
    return files


def _find_reference(root: Path, faults: list[str]) -> Path | None:
    """test.* of the folder, else the one in data/ if it has no box; it must be readable."""
    found = [path for path in list_files(root) if path.stem == "test"]
    found = found or [path for path in other_pictures(root) if path.stem == "test"]
    faults.extend(f"{path.name}: a second reference; keep one of test.*" for path in found[1:])
    if not found and not (root / "bbox" / "test.txt").is_file():
        found = [path for path in list_files(root / "data") if path.stem == "test"]
    if not found:
        faults.append("test.jpg: no reference; add one picture of the object, cropped to it, under this name")
        return None
    frame, mask = _read_frame(found[0], root, faults), silhouette_beside(found[0])
    if mask.is_file():
        _check_mask(mask, frame, root, faults)
    return found[0] if frame else None


def _find_folders(root: Path, faults: list[str]) -> None:
    """Add a fault for each folder that has the name of a picture or of a box file."""
    inside = [path for names in KINDS for name in names for path in (root / name).glob("*")]
    for path in sorted([*root.glob("test.*"), *root.glob("test_mask.*"), *inside]):
        if path.is_dir() and path.suffix.lower() in (*PICTURE_SUFFIXES, ".txt"):
            name = path.relative_to(root).as_posix()
            faults.append(f"{name}: a folder; expected a file of this name, so move or remove it")


def _read_frame(path: Path, root: Path, faults: list[str]) -> Frame | None:
    """Decode a picture completely and return its frame, an upright one in a prepared folder.

    None, and a fault, if that fails.
    """
    try:
        frame = read_frame(path)
        return Frame(*frame.shown) if (root / PREPARED).is_file() else frame
    except (ValueError, OSError) as error:
        if of_machine(error):
            raise
        faults.append(_inside(path, root, error))
        return None


def _check_mask(path: Path, frame: Frame | None, root: Path, faults: list[str]) -> None:
    """Add a fault unless a silhouette is readable and, upright, of its picture's size."""
    own = _read_frame(path, root, faults)
    if own is None or frame is None:
        return
    name = path.relative_to(root).as_posix()
    if own.shown != frame.shown:
        is_, needed = (f"{width} x {height}" for width, height in (own.shown, frame.shown))
        turned = ", as viewers show it (EXIF turns it)" if frame.orientation > 4 else ""
        faults.append(f"{name}: {is_} pixels, its picture is {needed}{turned}; make them the same size")
    try:
        read_silhouette(path)
    except ValueError as error:
        faults.append(_inside(path, root, error))


def _inside(path: Path, root: Path, error: Exception) -> str:
    """An error that begins with `path` as a fault of the folder `root`."""
    return path.relative_to(root).as_posix() + reason(error).removeprefix(str(path))
