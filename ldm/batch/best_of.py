"""Choose the best of several seeds, by likeness to the reference and visibility of the seam."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from ldm.batch.contact_sheet import SHARP, close_up, contact_sheet, thumbnail
from ldm.batch.results_log import SHEET
from ldm.batch.work_item import WorkItem
from ldm.data.files import fitting_name
from ldm.data.picture import Picture
from ldm.data.picture_write import write_picture
from ldm.insertion.crop_paste import crop_region
from ldm.insertion.object_source import ObjectSource
from ldm.insertion.region import InsertRequest
from ldm.insertion.roi import Roi, box_of, visible

if TYPE_CHECKING:
    from ldm.insertion.region import Result


SEAM_WEIGHT = 0.1  # identity that a seam ratio of 2 costs; seeds of one object differ by about as much
SHOWN = 16  # candidates on a contact sheet

Likeness = Callable[[Tensor, Tensor], float]  # image, reference, both [3,h,w] in [-1,1]: 1 is the same object


class BestOfSeeds:
    """Sorts the results of an item, best first, and draws all of them as `<sheets>/<name>.png`.

    `reference` gives an object's image, [1,3,R,R] in [-1,1], or its cut-out [1,4,P,P].
    """

    def __init__(self, likeness: Likeness, reference: Callable[[ObjectSource], Tensor], sheets: Path) -> None:
        self.likeness, self.reference, self.sheets = likeness, reference, sheets

    def __call__(self, item: WorkItem, request: InsertRequest, results: list[Result]) -> list[Result]:
        """The results, best first; each record gets its `scores`, the first one those of all `candidates`."""
        reference = self.reference(item.source)[0, :3]  # colours; transparent pixels are mid-grey
        for result in results:
            identity = self._identity(result.picture, request, reference)
            result.record["scores"] = scores(identity, max(r["seam"] for r in result.record["regions"]))
        ranked = sorted(results, key=lambda result: -result.record["scores"]["score"])
        ranked[0].record["candidates"] = [{"seed": r.record["seed"], **r.record["scores"]} for r in ranked]
        self._draw(item, request.rois[0], ranked)
        return ranked

    def _identity(self, picture: Picture, request: InsertRequest, reference: Tensor) -> float:
        """Mean over the regions: an object goes into each."""
        boxes = [_object_box(request.mask, roi) for roi in request.rois]
        return float(np.mean([self.likeness(crop_region(picture, box, SHARP), reference) for box in boxes]))

    def _draw(self, item: WorkItem, roi: Roi, ranked: Sequence[Result]) -> None:
        captions = [_caption(result) for result in ranked[:SHOWN]]
        row = [thumbnail(close_up(result.picture, roi)) for result in ranked[:SHOWN]]
        file = self.sheets / fitting_name(item.stem, ".png")
        write_picture(file, Picture(contact_sheet([row], captions)), SHEET)


def scores(identity: float, seam: float) -> dict[str, float]:
    """score = identity - SEAM_WEIGHT * (seam - 1); a seam ratio of 1 or less costs nothing."""
    score = identity - SEAM_WEIGHT * max(seam - 1, 0)
    return {"identity": round(identity, 4), "seam": seam, "score": round(score, 4)}


def _object_box(mask: np.ndarray, roi: Roi) -> Roi:
    seen = visible(roi, (mask.shape[0], mask.shape[1]))
    return box_of(mask[seen.slices]).moved(seen.x0, seen.y0)


def _caption(result: Result) -> str:
    score = result.record["scores"]
    return f"seed {result.record['seed']}: {score['identity']:.3f}, seam {score['seam']:.2f}"
