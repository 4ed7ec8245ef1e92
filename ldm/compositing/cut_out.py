"""Cut an object out of its picture: colours and alpha, by a silhouette, a segmenter, or GrabCut.

A base trained on composites draws what it is shown, so that no background may come along.
Pixels are uint8 [H,W,3], silhouettes uint8 [H,W], 255 where the object is.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ldm.data.boxes import Box, pixel_box
from ldm.data.image import to_image
from ldm.data.insertset import Sample, sample_in_folder, silhouette_beside
from ldm.data.mask_levels import read_silhouette, surrounds, without_specks
from ldm.data.picture import OPAQUE, read_alpha, read_rgb
from ldm.insertion.roi import box_of

SIDE = 512  # pixels: the longer side at which an object and its surroundings are processed, at most
COARSE = 256  # likewise for GrabCut
AROUND = 0.2  # of the box's longer side: background included around it
CORE = 0.3  # of the box's sides: the central ellipse that is certainly the object
MIN_SHARE = 0.15  # of the box: a smaller result is rejected
MIN_SHARE_WHOLE = 0.02  # likewise of a whole picture, whose object may be small
ITERATIONS = 5
FRAME = 0.03  # of a picture's sides: the border that is certainly background
HOLE = 0.02  # of the object's area: smaller holes are filled
SPECK = 0.003  # of the object's area: smaller separate pieces are dropped
EDGE = 0.008  # of the longer side: how far from the coarse edge the fine one may be
FLAT = 1e-3  # variance of grey levels in [0,1] below which an area has no edge
SOLID = 0.95  # alpha above which a pixel's colour is not mixed with the background
FRINGE = 0.01  # of the longer side: how far mixed pixels may be from the solid pixel whose colour they take
PixelBox = tuple[int, int, int, int]  # x0 y0 x1 y1, the ends exclusive
Segmenter = Callable[[np.ndarray, PixelBox], np.ndarray]  # such as `segment`


class CutOut(NamedTuple):
    """An object's colours uint8 [h,w,3], alpha float [h,w] in [0,1], and box in whole pixels of the picture.

    Colours and alpha may have a lower resolution than the picture. `found`: False if nothing stood out in the
    box, and all of it was taken.
    """

    colours: np.ndarray
    alpha: np.ndarray
    box: PixelBox
    found: bool = True

    def picture(self, size: int) -> Tensor:
        """[4,size,size]: colours times alpha in [-1,1], and alpha; aspect kept, centred, transparent around.

        The first three channels show the object over mid-grey, 0.
        """
        alpha = torch.from_numpy(self.alpha)[None]
        layer = torch.cat([to_image(self.colours) * alpha, alpha])
        factor = size / max(self.alpha.shape)
        h, w = (max(1, round(side * factor)) for side in self.alpha.shape)
        layer = F.interpolate(layer[None], size=(h, w), mode="bilinear", antialias=True)[0]
        left, top = (size - w) // 2, (size - h) // 2
        return F.pad(layer, [left, size - w - left, top, size - h - top])


def cut_out(
    pixels: np.ndarray,
    box: Box,
    silhouette: np.ndarray | None = None,
    min_share: float = MIN_SHARE,
    segmenter: Segmenter | None = None,
    name: str = "silhouette",
) -> CutOut:
    """The object in a box of a picture; the whole box, opaque, if the segmenter (None: GrabCut) fails.

    `min_share`: share of the box that it must find. Specks of the silhouette, which messages `name`, are left
    out. ValueError if the silhouette is empty in the box, or inverted.
    """
    x0, y0, x1, y1 = pixel_box(box, pixels.shape[:2])
    window, inner = surroundings((x0, y0, x1, y1), pixels.shape[:2])
    factor = min(1.0, SIDE / max(pixels[window].shape[:2]))
    coarse = scaled_down(pixels[window], factor)
    a, b, c, d = (round(v * factor) for v in inner)
    within = slice(b, max(d, b + 1)), slice(a, max(c, a + 1))
    if silhouette is None:
        alpha = matte(coarse, (segmenter or segment)(coarse, (a, b, c, d)))[within]
        if (alpha > 0.5).mean() < min_share:
            return CutOut(coarse[within].copy(), np.ones_like(alpha), (x0, y0, x1, y1), found=False)
    else:
        silhouette = _cleaned(silhouette, (x0, y0, x1, y1), name)
        alpha = scaled_down(silhouette[window], factor)[within].astype(np.float32) / 255
        if not (alpha > 0.5).any():
            raise ValueError(f"{name}: the silhouette is empty inside the box {x0} {y0} {x1} {y1}; fix one")
    tight = box_of(alpha > 0.5)
    colours = solid(coarse[within], alpha)[tight.slices]
    x, y = x0 + tight.x0 / factor, y0 + tight.y0 / factor
    object_box = x, y, x + colours.shape[1] / factor, y + colours.shape[0] / factor
    return CutOut(colours, alpha[tight.slices], pixel_box(object_box, pixels.shape[:2]))


def _cleaned(silhouette: np.ndarray, box: PixelBox, name: str) -> np.ndarray:
    """The silhouette, uint8 [H,W], without its specks in the box; ValueError if it is inverted."""
    x0, y0, x1, y1 = box
    silhouette = silhouette.copy()
    part = silhouette[y0:y1, x0:x1]
    inside, everywhere = (int((levels > OPAQUE).sum()) for levels in (part, silhouette))
    if surrounds(silhouette > OPAQUE) and everywhere > 2 * inside:
        raise ValueError(
            f"{name}: inverted, most of its white is outside of the box {x0} {y0} {x1} {y1}; "
            "make it white where the object is"
        )
    part[_specks(part > OPAQUE, name)] = 0
    return silhouette


def _specks(inside: np.ndarray, name: str) -> np.ndarray:
    """The specks of a silhouette, bool [h,w], and the soft pixels around them."""
    kept = without_specks(inside, name)
    around = cv2.dilate((inside & ~kept).astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    return around & ~kept


def cut_out_of(sample: Sample, box: Box, pixels: np.ndarray, segmenter: Segmenter | None = None) -> CutOut:
    """The object in a box of a sample's picture (its `pixels`), by its silhouette if it has one."""
    silhouette = read_alpha(sample.image) if sample.mask is None else read_silhouette(sample.mask)
    return cut_out(pixels, box, silhouette, segmenter=segmenter, name=str(sample.mask or sample.image))


def cut_out_picture(path: Path, segmenter: Segmenter | None = None) -> CutOut:
    """The object of a picture file, by NAME_mask.png beside it, its transparency, or the segmenter.

    A picture in an object folder has its box and silhouette there. Elsewhere the picture's border is
    background for the segmenter (None: GrabCut); a warning says if it finds nothing.
    """
    pixels, beside = read_rgb(path), silhouette_beside(path)
    sample = None if beside.is_file() else sample_in_folder(path)
    if sample is not None:
        return cut_out_of(sample, sample.boxes[0], pixels, segmenter)
    silhouette, (height, width) = silhouette_of(path), pixels.shape[:2]
    if silhouette is None:
        inner = (FRAME * width, FRAME * height, (1 - FRAME) * width, (1 - FRAME) * height)
        cut = cut_out(pixels, inner, None, MIN_SHARE_WHOLE, segmenter)
        if not cut.found:
            marks = f"{beside.name}, white on black, marks one"
            warnings.warn(f"{path}: no object stands out, all of it is taken; {marks}", stacklevel=2)
        return cut
    if silhouette.shape != pixels.shape[:2]:
        given = f"{beside}: {silhouette.shape[1]} x {silhouette.shape[0]} px"
        raise ValueError(f"{given}, its picture is {width} x {height}; make them the same size, or remove it")
    name = str(beside if beside.is_file() else path)
    return cut_out(pixels, (0, 0, width, height), silhouette, name=name)


def silhouette_of(reference: Path) -> np.ndarray | None:
    """A reference's silhouette: NAME_mask.png beside it, or its alpha; None if it has neither."""
    beside = silhouette_beside(reference)
    return read_silhouette(beside) if beside.is_file() else read_alpha(reference)


def scaled_down(pixels: np.ndarray, factor: float) -> np.ndarray:
    """[h,w] or [h,w,3] scaled by `factor`, at most 1."""
    if factor >= 1:
        return pixels
    return cv2.resize(pixels, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)


def surroundings(box: PixelBox, size: tuple[int, int]) -> tuple[tuple[slice, slice], PixelBox]:
    """A box in a picture of size (H, W) => it with background around it, as slices, and the box in these."""
    x0, y0, x1, y1 = box
    around = round(AROUND * max(x1 - x0, y1 - y0))
    left, top = max(0, x0 - around), max(0, y0 - around)
    window = slice(top, min(size[0], y1 + around)), slice(left, min(size[1], x1 + around))
    return window, (x0 - left, y0 - top, x1 - left, y1 - top)


def segment(pixels: np.ndarray, box: PixelBox) -> np.ndarray:
    """Pixels and the box of an object in them => a coarse silhouette by GrabCut, float [h,w] in [0,1]."""
    factor = min(1.0, COARSE / max(pixels.shape[:2]))
    small = scaled_down(pixels, factor)
    a, b, c, d = (round(v * factor) for v in box)
    labels = np.full(small.shape[:2], cv2.GC_BGD, np.uint8)
    labels[b:d, a:c] = cv2.GC_PR_FGD
    y, x = np.mgrid[: small.shape[0], : small.shape[1]] + 0.5
    across = (2 * x - a - c) / max(c - a, 1)
    along = (2 * y - b - d) / max(d - b, 1)
    labels[across**2 + along**2 < CORE**2] = cv2.GC_FGD
    if (labels == cv2.GC_BGD).any() and (labels == cv2.GC_PR_FGD).any():
        grab_cut(small, labels)
    found = tidied(np.isin(labels, (cv2.GC_FGD, cv2.GC_PR_FGD)))
    return cv2.resize(found.astype(np.float32), pixels.shape[1::-1])


def grab_cut(pixels: np.ndarray, labels: np.ndarray) -> None:
    """Run GrabCut from OpenCV's labels uint8 [h,w], which are changed in place."""
    cv2.setRNGSeed(0)  # the same cut-out for the same picture
    cv2.grabCut(pixels, labels, None, np.zeros((1, 65)), np.zeros((1, 65)), ITERATIONS, cv2.GC_INIT_WITH_MASK)


def tidied(found: np.ndarray) -> np.ndarray:
    """A silhouette, bool [h,w], without small holes (like eyes) and small separate pieces."""
    for inside, min_area in ((False, HOLE), (True, SPECK)):
        count, labels, stats, _ = cv2.connectedComponentsWithStats((found == inside).astype(np.uint8))
        small = stats[:, cv2.CC_STAT_AREA] < min_area * max(int(found.sum()), 1)
        small[0] = False  # label 0: the pixels of the other kind
        found = found ^ small[labels] if count > 1 else found
    return found


def matte(pixels: np.ndarray, coarse: np.ndarray) -> np.ndarray:
    """A coarse silhouette => alpha whose edge follows the picture's, by a guided filter (He et al. 2010)."""
    guide = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY).astype(np.float32) / 255
    window = (2 * max(1, round(EDGE * max(coarse.shape))) + 1,) * 2

    def mean(x: np.ndarray) -> np.ndarray:
        return cv2.blur(x, window)

    average, level = mean(guide), mean(coarse)
    slope = (mean(guide * coarse) - average * level) / (mean(guide * guide) - average**2 + FLAT)
    fine = mean(slope) * guide + mean(level - slope * average)
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, window)
    sure, maybe = cv2.erode(coarse, disc) > 0.5, cv2.dilate(coarse, disc) > 0.5
    return np.where(sure, 1, np.where(maybe, np.clip(2 * fine - 0.5, 0, 1), 0)).astype(np.float32)


def solid(colours: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Replace colours at the edge, where object and background mix, by the nearest solid colour inside."""
    core = cv2.erode((alpha > SOLID).astype(np.uint8), np.ones((3, 3), np.uint8), borderValue=1)
    if not core.any():
        return colours
    distance, labels = cv2.distanceTransformWithLabels(
        1 - core, cv2.DIST_L2, cv2.DIST_MASK_5, labelType=cv2.DIST_LABEL_PIXEL
    )
    nearest = np.zeros(int(labels.max()) + 1, np.intp)
    nearest[labels[core > 0]] = np.flatnonzero(core)
    near = (core == 0) & (distance <= max(2, FRINGE * max(alpha.shape)))
    return np.where(near[..., None], colours.reshape(-1, 3)[nearest[labels]], colours)
