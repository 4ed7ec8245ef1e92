"""A sheet of what learning an object changed: the base before it, and the learnt object, in the same places.

If the base is shown the object (the plain cut-out), that comes first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from ldm.batch.contact_sheet import MOST_ROWS, SHARP, close_up, contact_sheet, hatched, rgb8
from ldm.batch.results_log import COMPARISON, SHEET
from ldm.batch.runner import RunOptions, prepare
from ldm.batch.work_item import WorkItem
from ldm.data.picture import Picture, read_picture
from ldm.data.picture_write import write_picture
from ldm.insertion.crop_paste import shrunk_mask
from ldm.insertion.region import InsertableObject, InsertRequest, region_in
from ldm.insertion.roi import crop
from ldm.insertion.session import Session

CAPTIONS = ("mask", "cut-out, no model", "before learning", "learnt")


def check_comparison(items: Sequence[WorkItem]) -> None:
    """ValueError if --compare cannot show what learning changed."""
    kinds = {item.source.kind() for item in items}
    if wrong := kinds & {"", "baked"}:
        raise ValueError(
            "--compare shows the base before learning and the learnt object; give --object FILE, not "
            + ("a reference alone" if "" in wrong else "a baked one")
        )


def write_comparison(
    items: Sequence[WorkItem], session: Session, options: RunOptions, folder: Path
) -> Path | None:
    """Write COMPARISON: a row for each of the first items whose result is in `folder`; None if there is none.

    Every item has an object file. The base before learning gets the same reference and the first seed.
    """
    rows = []
    for item in items[:MOST_ROWS]:
        result = folder / next(iter(item.files().values()))
        if result.is_file():
            background, request = prepare(item, options)
            first = replace(request, seeds=request.seeds[:1])
            before = session.zero_shot(item.source)
            [[untuned]] = session.insert(background, [first], [before])
            roi = request.rois[0]
            empty = hatched(close_up(background, roi), shrunk_mask(crop(request.mask, roi), SHARP))
            pictures = (close_up(picture, roi) for picture in (untuned.picture, read_picture(result)))
            rows.append([empty, *_shown(before, background, first), *pictures])
    if not rows:
        return None
    captions = CAPTIONS if len(rows[0]) == len(CAPTIONS) else (CAPTIONS[0], *CAPTIONS[2:])
    write_picture(folder / COMPARISON, Picture(contact_sheet(rows, captions)), SHEET)
    return folder / COMPARISON


def _shown(before: InsertableObject, background: Picture, request: InsertRequest) -> list[np.ndarray]:
    """The region with the object that the base is shown, uint8 [h,w,3], if it is shown one."""
    region = region_in(background, request, 0, [])
    shown = before.fill(region).image
    if shown is None:
        return []
    image = region.known.clone()
    image[:, region.mask] = shown[:, region.mask]
    return [rgb8(image)]
