"""Warnings about photos of an object, and which of them shows it best."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from ldm.compositing.cut_out import scaled_down
from ldm.data.boxes import Box, pixel_box
from ldm.data.picture import OPAQUE

MIN_PHOTOS = 3
SMALL = 128  # pixels: the longer side of an object below this shows too little detail
LOOK = 256  # pixels: the longer side at which an object is judged
BLURRED = 0.08  # a lower sharpness is blurred; photos have 0.11 to 1.2, blurred copies at most 0.06
AT_BORDER = 0.05  # of the object's side: so much of it along the photo's border is cut off
SECOND = 0.25  # of the largest piece's area: a second piece this large may be a second object
WIDER = 0.15  # of a box's sides: how far around it the object may go on
OUTSIDE = 0.12  # of the object inside a box: more of it around the box is cut off
ALIKE = 0.9  # correlation of two views above which they show nearly the same
COPY = 0.97  # the same of two photos: re-saved ones have 0.99, those of a third of the size 0.986
TILE = 32  # pixels: the side at which views are compared


@dataclass(frozen=True, eq=False)
class View:
    """The object of one photo, and what makes it a good reference.

    `tile`: the object on grey, uint8 [TILE,TILE,3]. `photo`: all of it, small, uint8 [H,W,3]; `box`: in
    shares of its sides.
    """

    tile: np.ndarray
    photo: np.ndarray
    box: np.ndarray
    side: float
    sharpness: float
    whole: bool


def check_photo(image: np.ndarray, box: Box, silhouette: np.ndarray) -> tuple[str, ...]:
    """Warnings about one photo uint8 [H,W,3] with its object's box and silhouette uint8 [H,W]."""
    x0, y0, x1, y1 = pixel_box(box, image.shape[:2])
    if not (silhouette[y0:y1, x0:x1] > OPAQUE).any():
        return ("nothing of the silhouette is in the box: correct the box, or paint the object",)
    found = []
    if max(x1 - x0, y1 - y0) < SMALL:
        found.append(
            f"small: the object is {x1 - x0} x {y1 - y0} px; go closer, {2 * SMALL} px or more are good"
        )
    elif sharpness(image, box, silhouette) < BLURRED:
        found.append("blurred: take it again, with more light or a steady hand")
    if sides := _cut_sides(silhouette):
        found.append(f"cut off by the photo's border ({', '.join(sides)}): show the whole object")
    if (count := _pieces(silhouette)) > 1:
        found.append(f"{count} separate pieces: is that one object? correct box and mask if not")
    return tuple(found)


def wider(box: Box, size: tuple[int, int]) -> Box:
    """A box and what is around it, inside a photo of size (H, W)."""
    x0, y0, x1, y1 = box
    dx, dy = WIDER * (x1 - x0), WIDER * (y1 - y0)
    return max(0.0, x0 - dx), max(0.0, y0 - dy), min(size[1], x1 + dx), min(size[0], y1 + dy)


def check_box(box: Box, alpha: np.ndarray) -> tuple[str, ...]:
    """A warning if the object, found in the `wider` box as alpha [H,W], goes on outside the box."""
    x0, y0, x1, y1 = pixel_box(box, alpha.shape)
    inside = float(alpha[y0:y1, x0:x1].sum())
    cut = float(alpha.sum()) - inside > OUTSIDE * max(inside, 1.0)
    return ("the box seems to cut the object: draw it around the whole object",) if cut else ()


def compare_views(views: dict[str, View]) -> list[str]:
    """Warnings about all photos of an object together, given by name."""
    found = []
    if len(views) < MIN_PHOTOS:
        photos = "1 photo" if len(views) == 1 else f"{len(views)} photos"
        found.append(f"{photos}: at least {MIN_PHOTOS} from different sides are needed for a good result")
    names = list(views)
    while names:
        first, *names = names
        same = [name for name in names if alike(views[first], views[name])]
        names = [name for name in names if name not in same]
        if same:
            others = ", ".join([first, *same[:-1]])
            found.append(f"{others} and {same[-1]} show nearly the same view: keep one, show other sides")
    return found


def alike(one: View, other: View) -> bool:
    """Whether two photos show nearly the same view, or one is a copy: their silhouettes may differ then."""
    if tile_similarity(one.tile, other.tile) > ALIKE:
        return True
    pairs = ((_part(one.photo, box), _part(other.photo, box)) for box in (one.box, other.box))
    return all(tile_similarity(*pair) > COPY for pair in pairs)


def _part(photo: np.ndarray, box: np.ndarray) -> np.ndarray:
    """The part of a photo in a box (shares of its sides), as a tile."""
    height, width = photo.shape[:2]
    x0, y0, x1, y1 = pixel_box(tuple(box * (width, height, width, height)), (height, width))
    return cv2.resize(photo[y0:y1, x0:x1], (TILE, TILE), interpolation=cv2.INTER_AREA)


def best_view(views: dict[str, View]) -> str:
    """The name of the photo that is the best reference: whole, sharp, large, and like the others."""
    tiles = [view.tile for view in views.values()]
    largest, sharpest = (max(getattr(v, key) for v in views.values()) for key in ("side", "sharpness"))

    def goodness(view: View) -> float:
        typical = np.mean([tile_similarity(view.tile, tile) for tile in tiles])
        return float(
            view.whole + typical + 0.5 * view.side / largest + 0.5 * view.sharpness / max(sharpest, 1e-6)
        )

    return max(views, key=lambda name: goodness(views[name]))


def view_of(image: np.ndarray, box: Box, silhouette: np.ndarray) -> View:
    """A photo's object as it is compared with those of other photos."""
    x0, y0, x1, y1 = pixel_box(box, image.shape[:2])
    inside = (silhouette[y0:y1, x0:x1] > OPAQUE)[..., None]
    crop = np.where(inside, image[y0:y1, x0:x1], np.uint8(128))
    tile = cv2.resize(crop, (TILE, TILE), interpolation=cv2.INTER_AREA)
    side, (height, width) = float(max(x1 - x0, y1 - y0)), image.shape[:2]
    photo = scaled_down(image, min(1.0, LOOK / max(height, width)))
    shares = np.array([x0, y0, x1, y1]) / (width, height, width, height)
    return View(tile, photo, shares, side, sharpness(image, box, silhouette), not _cut_sides(silhouette))


def sharpness(image: np.ndarray, box: Box, silhouette: np.ndarray) -> float:
    """How strong the finest detail inside the object is, against its contrast, at LOOK px; 0 is flat.

    The standard deviation of the Laplacian over that of the grey levels: light and contrast do not matter.
    """
    x0, y0, x1, y1 = pixel_box(box, image.shape[:2])
    factor = min(1.0, LOOK / max(x1 - x0, y1 - y0))
    grey = cv2.cvtColor(scaled_down(image[y0:y1, x0:x1], factor), cv2.COLOR_RGB2GRAY).astype(np.float32) / 255
    mask = cv2.resize(silhouette[y0:y1, x0:x1], grey.shape[::-1], interpolation=cv2.INTER_AREA)
    inside = cv2.erode((mask > OPAQUE).astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
    if not inside.any():
        return 0.0
    detail = cv2.Laplacian(grey, cv2.CV_32F)[inside]
    return float(detail.std() / (grey[inside].std() + 0.02))


def tile_similarity(one: np.ndarray, other: np.ndarray) -> float:
    """Correlation of two tiles, -1 .. 1."""
    a, b = (tile.astype(np.float32).ravel() - tile.mean() for tile in (one, other))
    return float(a @ b / max(float(np.linalg.norm(a) * np.linalg.norm(b)), 1e-6))


def _cut_sides(silhouette: np.ndarray) -> list[str]:
    """The sides of the photo at which the object ends."""
    inside = silhouette > OPAQUE
    width, height = max(int(inside.any(0).sum()), 1), max(int(inside.any(1).sum()), 1)
    touching = {
        "left": inside[:, 0].sum() / height,
        "top": inside[0].sum() / width,
        "right": inside[:, -1].sum() / height,
        "bottom": inside[-1].sum() / width,
    }
    return [side for side, share in touching.items() if share > AT_BORDER]


def _pieces(silhouette: np.ndarray) -> int:
    """How many large pieces a silhouette has."""
    small = scaled_down(silhouette, min(1.0, LOOK / max(silhouette.shape)))
    _, _, stats, _ = cv2.connectedComponentsWithStats((small > OPAQUE).astype(np.uint8))
    areas = stats[1:, cv2.CC_STAT_AREA]
    return int((areas > SECOND * areas.max()).sum()) if len(areas) else 0
