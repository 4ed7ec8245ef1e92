"""Where the object is in its photos: a box and a silhouette each, proposed or taken from what is known.

Photos are uint8 [H,W,3], upright as a viewer shows them; boxes are x0 y0 x1 y1 in their pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ldm.compositing.cut_out import FRAME, MIN_SHARE, tidied
from ldm.data.boxes import Box
from ldm.data.picture import OBJECT_LEVEL
from ldm.data.training_masks import pixel_box
from ldm.prepare.segmenter import GrabCut, Segmenter

Source = Literal["mask", "alpha", "box", "proposed"]  # what is known: silhouette, transparency, box, nothing


@dataclass(frozen=True, eq=False)
class Proposal:
    """Box, silhouette uint8 [H,W] (255: object), what they come from, and what is doubtful."""

    box: Box
    silhouette: np.ndarray
    source: Source = "proposed"
    warnings: tuple[str, ...] = ()


def propose(
    image: np.ndarray,
    box: Box | None = None,
    segmenter: Segmenter | None = None,
    silhouette: np.ndarray | None = None,
) -> Proposal:
    """One photo's proposal. A given box is kept, as is a given silhouette uint8 [H,W]; without either, the
    photo's borders are taken as ground.

    ValueError if the box is outside the photo, or the silhouette empty or of another size.
    """
    if silhouette is not None:
        return _known(image, box, silhouette)
    if box is None:
        return propose_together([image], segmenter)[0]
    return _in_box(image, box, segmenter or GrabCut(), "box")


def propose_together(images: Sequence[np.ndarray], segmenter: Segmenter | None = None) -> list[Proposal]:
    """Proposals for photos of one object: it is what they have in common; their borders are ground."""
    segmenter = segmenter or GrabCut()
    return [_in_box(image, _found(image, segmenter), segmenter, "proposed") for image in images]


def box_of(silhouette: np.ndarray) -> Box | None:
    """The box around a silhouette uint8 [H,W]; None if it is empty."""
    inside = silhouette > OBJECT_LEVEL
    rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
    if not len(rows):
        return None
    return float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)


def _known(image: np.ndarray, box: Box | None, silhouette: np.ndarray) -> Proposal:
    height, width = image.shape[:2]
    if silhouette.shape != (height, width):
        given = f"{silhouette.shape[1]} x {silhouette.shape[0]}"
        raise ValueError(f"a silhouette of {given} px for a photo of {width} x {height}; make them equal")
    around = box_of(silhouette)
    if around is None:
        raise ValueError("an empty silhouette: it has to be white, 255, where the object is")
    return Proposal(box or around, silhouette, "mask")


def _in_box(image: np.ndarray, box: Box, segmenter: Segmenter, source: Source) -> Proposal:
    x0, y0, x1, y1 = pixel_box(box, image.shape[:2])
    if x1 <= x0 or y1 <= y0:
        height, width = image.shape[:2]
        raise ValueError(f"the box {box} is outside the photo, which is {width} x {height} px")
    alpha = segmenter(image, box)
    silhouette = (alpha * 255).round().astype(np.uint8)
    if (alpha[y0:y1, x0:x1] > 0.5).mean() < MIN_SHARE:
        silhouette[:] = 0
        silhouette[y0:y1, x0:x1] = 255
    return Proposal(box, silhouette, source)


def _found(image: np.ndarray, segmenter: Segmenter) -> Box:
    """The box of what is not like the photo's borders; nearly the whole photo if nothing is found."""
    height, width = image.shape[:2]
    inner = FRAME * width, FRAME * height, (1 - FRAME) * width, (1 - FRAME) * height
    found = tidied(segmenter(image, inner) > 0.5)
    return box_of(found.astype(np.uint8) * 255) or inner
