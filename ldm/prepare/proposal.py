"""Where the object is in its photos: a box and a silhouette each, proposed or taken from what is known.

Photos are uint8 [H,W,3], upright as a viewer shows them; boxes are x0 y0 x1 y1 in their pixels.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from ldm.compositing.cut_out import FRAME, MIN_SHARE
from ldm.data.boxes import Box, pixel_box
from ldm.data.picture import OPAQUE
from ldm.insertion.roi import box_of
from ldm.prepare.photo_checks import check_box, check_photo, wider
from ldm.prepare.segmenter import Segmenter, load_segmenter

Source = Literal["mask", "alpha", "box", "proposed"]  # what is known: silhouette, transparency, box, nothing

BORDER = 0.03  # of the longer side: a proposed box that ends nearer to the border reaches it


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
    """One photo's proposal; a given box is kept, as is a given silhouette uint8 [H,W].

    ValueError if the box is outside the photo, or the silhouette is empty or of another size.
    """
    if silhouette is not None:
        return _known(image, box, silhouette)
    segmenter = segmenter or load_segmenter()
    if box is None:
        return _located(image, segmenter)
    proposal = _in_box(image, box, segmenter, "box")
    cut = check_box(box, segmenter(image, wider(box, image.shape[:2])))
    return replace(proposal, warnings=cut + check_photo(image, box, proposal.silhouette))


def box_around(silhouette: np.ndarray) -> Box | None:
    """The box around a silhouette uint8 [H,W]; None if it is empty."""
    inside = silhouette > OPAQUE
    return box_of(inside) if inside.any() else None


def _known(image: np.ndarray, box: Box | None, silhouette: np.ndarray) -> Proposal:
    height, width = image.shape[:2]
    if silhouette.shape != (height, width):
        given = f"{silhouette.shape[1]} x {silhouette.shape[0]}"
        raise ValueError(f"a silhouette of {given} px for a photo of {width} x {height}; make them equal")
    around = box_around(silhouette)
    if around is None:
        raise ValueError("an empty silhouette: it has to be white, 255, where the object is")
    return Proposal(box or around, silhouette, "mask", check_photo(image, box or around, silhouette))


def _in_box(image: np.ndarray, box: Box, segmenter: Segmenter, source: Source) -> Proposal:
    """The silhouette in a box; the whole box if next to nothing is found in it."""
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


def _to_border(box: Box, size: tuple[int, int]) -> Box:
    """Sides that nearly touch the border of a photo of size (H, W) end there: it may cut the object."""
    near, (height, width) = BORDER * max(size), size
    x0, y0, x1, y1 = box
    reaching = (
        0.0 if x0 < near else x0,
        0.0 if y0 < near else y0,
        float(width) if x1 > width - near else x1,
        float(height) if y1 > height - near else y1,
    )
    return box if reaching == (0, 0, width, height) else reaching  # some ground has to be left


def _located(image: np.ndarray, segmenter: Segmenter) -> Proposal:
    """The silhouette of what stands out in a photo, and its box; in nearly all of it if nothing does."""
    found, (height, width) = segmenter.locate(image), image.shape[:2]
    box = (FRAME * width, FRAME * height, (1 - FRAME) * width, (1 - FRAME) * height)
    if found is not None:
        box = _to_border(found, (height, width))
    proposal = _in_box(image, box, segmenter, "proposed")
    tight = box_around(proposal.silhouette) or box
    warnings: tuple[str, ...] = ("no object found: draw its box",)
    if found is not None:
        warnings = check_photo(image, tight, proposal.silhouette)
    return replace(proposal, box=tight, warnings=warnings)
