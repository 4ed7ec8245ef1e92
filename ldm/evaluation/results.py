"""Results that are scored: an image with what it was made from, and the rows of a folder of results."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from ldm.batch.contact_sheet import rgb8
from ldm.batch.results_log import FILE, append, cut_partial_line, rows
from ldm.batch.work_item import MaskedBackground
from ldm.data.files import pictures_in
from ldm.data.image import from_bytes, to_image
from ldm.data.insertset import InsertSet, Sample, load_insertset
from ldm.data.object_crops import object_crop
from ldm.data.picture import Picture, read_rgb
from ldm.data.picture_write import write_picture
from ldm.evaluation.benchmark import Benchmark, Site, SiteImages, read_alike
from ldm.insertion.mask_input import MaskOptions
from ldm.insertion.roi import Roi
from ldm.models.checkpoint import read_state
from ldm.objects.object_file import REFERENCE, unpacked

Row = Mapping[str, Any]
WRITTEN = ("file", "name", "method", "model", "references", "scores", "site", "facts")  # in every line
DIGITS = 5  # behind the point, in files


@dataclass(frozen=True)
class References:
    """What the object looks like: `whole`, an image or an object file that holds one, and `views` of it."""

    whole: Path
    views: tuple[Sample, ...] = ()

    def picture(self) -> np.ndarray:
        """The reference as it is, uint8 [H,W,3]."""
        if self.whole.suffix != ".safetensors":
            return read_rgb(self.whole)
        own = unpacked(read_state(self.whole)).get(REFERENCE)
        if own is None:
            raise ValueError(f"{self.whole}: holds no reference picture; give --references FOLDER")
        return rgb8(from_bytes(own[:3]))

    def images(self) -> list[Tensor]:
        """The object in every view, or in the reference if there are none: images [3,h,w] in [-1,1]."""
        if not self.views:
            return [to_image(self.picture())]
        return [to_image(object_crop(read_rgb(view.image), view.boxes[0])) for view in self.views]


@lru_cache(maxsize=256)  # a run has few objects and many results
def references_in(path: Path) -> References:
    """An object's pictures: an object folder, one picture, or an object file that holds one."""
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such object folder, picture or object file of a reference")
    return references_of(load_insertset(path)) if path.is_dir() else References(path)


def references_of(insertset: InsertSet) -> References:
    """The reference of an object's folder, with the few-shot pictures as views."""
    return References(insertset.reference, insertset.few_shot)


@dataclass(frozen=True)
class Insertion:
    """The result file of one site, and what made it; two runs are paired by `site.name`.

    `model` is the fingerprint of the base, `facts` are numbers that no image tells, like seconds.
    """

    site: Site
    references: References
    result: Path
    method: str = ""
    model: str = "unknown"
    mask_options: MaskOptions = field(default_factory=MaskOptions)
    facts: Mapping[str, float] = field(default_factory=dict, hash=False)

    @property
    def name(self) -> str:
        return self.site.name

    @property
    def object(self) -> str:
        return self.site.object

    def read(self) -> tuple[Picture, SiteImages]:
        """The result and its site's images; errors in one line for whatever does not fit."""
        images = self.site.read(self.mask_options)
        return read_alike(images.background, self.result), images


def row_of(insertion: Insertion, scores: Mapping[str, float], networks: Mapping[str, str]) -> Row:
    """An insertion's line in files; `networks`: those that its scores come from, with their fingerprints."""
    return {
        "name": insertion.name,
        "object": insertion.object,
        "method": insertion.method,
        "model": insertion.model,
        "result": str(insertion.result),
        "views": len(insertion.references.views) or 1,
        "scores": {name: round(value, DIGITS) for name, value in scores.items()},
        "networks": dict(networks),
    }


def real_pictures(insertions: Sequence[Insertion], folder: Path | None) -> tuple[list[Path], str]:
    """What results are held against as a set, and in words: a folder's, the truths, or the backgrounds."""
    if folder is not None:
        return pictures_in(folder), f"pictures of {folder}"
    truths = [insertion.site.truth for insertion in insertions if insertion.site.truth is not None]
    if len(truths) == len(insertions):
        return sorted(set(truths)), "truths"
    return sorted({insertion.site.masked.background for insertion in insertions}), "backgrounds"


class Results:
    """A folder of results: `<method>/<benchmark>/<site>.png`, and a row for each in results.jsonl.

    A row's line is appended after its image is on disk. Of a result that was made again the last line counts.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.file = Path(folder), Path(folder) / FILE
        there = rows(self.file, WRITTEN) if self.file.is_file() else ()
        # a row's result is where the folder is now
        self._rows: dict[str, Row] = {
            row["file"]: row | {"result": str(self.folder / row["file"])} for row in there
        }

    @property
    def rows(self) -> list[Row]:
        """All rows, in the order in which they were first made."""
        return list(self._rows.values())

    def path(self, method: str, benchmark: Benchmark, site: Site) -> Path:
        """Where a result is."""
        return self.folder / method / benchmark.name / f"{site.name}.png"

    def row(self, path: Path, recipe: Row) -> Row | None:
        """The row of a result that is there and was made by this recipe, else None."""
        found = self._rows.get(str(path.relative_to(self.folder)), {})
        return found if found.get("recipe") == recipe and path.is_file() else None

    def add(self, insertion: Insertion, picture: Picture, row: Row) -> None:
        """Write a result's image and append its row, which says where the images of its site are."""
        write_picture(insertion.result, picture, {"row": json.dumps(row)})
        file = str(insertion.result.relative_to(self.folder))
        whole = {"file": file, **row, "site": _site_as_row(insertion.site), "facts": dict(insertion.facts)}
        if self.file.is_file():
            cut_partial_line(self.file)
        append(self.file, whole)
        self._rows[file] = whole

    def insertion(self, row: Row, references: References | None = None) -> Insertion:
        """The result of one of the rows; `references` replaces the object's folder that the row names."""
        site = row["site"]
        truth, object_mask = (Path(site[key]) if site[key] else None for key in ("truth", "object_mask"))
        return Insertion(
            site=Site(
                name=row["name"],
                object=row["object"],
                masked=MaskedBackground(Path(site["background"]), Path(site["mask"])),
                rois=tuple(Roi(*roi) for roi in site["rois"]),
                truth=truth,
                object_mask=object_mask,
            ),
            references=references or references_in(Path(row["references"])),
            result=self.folder / row["file"],
            method=row["method"],
            model=row["model"],
            facts=row["facts"],
        )


def _site_as_row(site: Site) -> dict[str, Any]:
    """Files and squares of a site as plain values."""
    files = {"background": site.masked.background, "mask": site.masked.mask}
    files |= {"truth": site.truth, "object_mask": site.object_mask}
    texts = {key: None if path is None else str(path) for key, path in files.items()}
    return texts | {"rois": [list(roi) for roi in site.rois]}
