"""An object without its ground: its colours, and how much of every pixel is the object.

Both are told apart by a silhouette, if there is one, or by GrabCut (Rother et al. 2004) inside a box. A base
of collages draws over such a picture; whatever ground came along would be drawn, too.
Pixels are uint8 [H,W,3], silhouettes uint8 [H,W], 255 where the object is.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ldm.data.boxes import Box
from ldm.data.image import to_image
from ldm.data.insertset import Sample, silhouette_beside
from ldm.data.picture import read_alpha, read_rgb, read_silhouette
from ldm.data.training_masks import pixel_box

SIDE = 512  # pixels of the longer side at which an object and what is around it are looked at, at most
COARSE = 256  # the same for GrabCut
AROUND = 0.2  # of the box's longer side: the ground that is looked at around it
CORE = 0.3  # of the box's sides: the ellipse in its middle that is surely the object
LEAST = 0.15  # of the box: what covers less is not the object
LEAST_WHOLE = 0.02  # the same of a whole picture, whose object may be small
ITERATIONS = 5
FRAME = 0.03  # of a picture's sides: what a picture of an object surely shows of its ground
HOLE = 0.02  # of the object's area: a larger one is seen through
CRUMB = 0.003  # of the same: a smaller one is not the object's
EDGE = 0.008  # of the longer side: how far to each side of a coarse edge the true one is looked for
FLAT = 1e-3  # variance of grey levels in [0,1] below which there is no edge to find
SOLID = 0.95  # alpha above which a pixel's colour is the object's alone
FRINGE = 0.01  # of the longer side: how near the solid pixel is whose colour others take


class CutOut(NamedTuple):
    """An object's colours uint8 [h,w,3], its alpha float [h,w] in [0,1], and the box of its picture.

    The box is in whole pixels of the picture; colours and alpha may be coarser.
    """

    colours: np.ndarray
    alpha: np.ndarray
    box: tuple[int, int, int, int]

    def picture(self, size: int) -> Tensor:
        """[4,size,size]: colours times alpha, in [-1,1], and alpha; aspect kept, nothing around it.

        The first three channels are the object laid on mid-grey, which is 0.
        """
        alpha = torch.from_numpy(self.alpha)[None]
        layer = torch.cat([to_image(self.colours) * alpha, alpha])
        factor = size / max(self.alpha.shape)
        h, w = (max(1, round(side * factor)) for side in self.alpha.shape)
        layer = F.interpolate(layer[None], size=(h, w), mode="bilinear", antialias=True)[0]
        left, top = (size - w) // 2, (size - h) // 2
        return F.pad(layer, [left, size - w - left, top, size - h - top])


def cut_out(
    pixels: np.ndarray, box: Box, silhouette: np.ndarray | None = None, least: float = LEAST
) -> CutOut:
    """The object in a box of a picture; the whole box where object and ground cannot be told apart.

    `least`: share of the box that GrabCut must find. ValueError if a silhouette has nothing in the box.
    """
    x0, y0, x1, y1 = pixel_box(box, pixels.shape[:2])
    around = round(AROUND * max(x1 - x0, y1 - y0))
    left, top = max(0, x0 - around), max(0, y0 - around)
    window = slice(top, y1 + around), slice(left, x1 + around)
    factor = min(1.0, SIDE / max(pixels[window].shape[:2]))
    seen = shrunk(pixels[window], factor)
    a, b, c, d = (round(v * factor) for v in (x0 - left, y0 - top, x1 - left, y1 - top))
    within = slice(b, max(d, b + 1)), slice(a, max(c, a + 1))
    if silhouette is None:
        alpha = matte(seen, segment(seen, (a, b, c, d)))[within]
        if (alpha > 0.5).mean() < least:
            return CutOut(seen[within].copy(), np.ones_like(alpha), (x0, y0, x1, y1))
    else:
        alpha = shrunk(silhouette[window], factor)[within].astype(np.float32) / 255
        if not (alpha > 0.5).any():
            raise ValueError(f"the silhouette is empty inside the box {x0} {y0} {x1} {y1}; mend one of them")
    rows, columns = (np.flatnonzero((alpha > 0.5).any(side)) for side in (1, 0))
    shown = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    colours = solid(seen[within], alpha)[shown]
    x, y = x0 + columns[0] / factor, y0 + rows[0] / factor
    own = x, y, x + colours.shape[1] / factor, y + colours.shape[0] / factor
    return CutOut(colours, alpha[shown], pixel_box(own, pixels.shape[:2]))


def cut_out_of(sample: Sample, box: Box, pixels: np.ndarray) -> CutOut:
    """The object in a box of a sample's picture, whose pixels these are, by its silhouette if it has one."""
    silhouette = read_alpha(sample.image) if sample.mask is None else read_silhouette(sample.mask)
    try:
        return cut_out(pixels, box, silhouette)
    except ValueError as error:
        raise ValueError(f"{sample.mask or sample.image}: {error}") from error


def cut_out_picture(path: Path) -> CutOut:
    """The object that a picture file is of, by its transparency or NAME_mask.png beside it if there is such.

    Else the picture's very rim is taken for ground.
    """
    pixels, silhouette = read_rgb(path), silhouette_of(path)
    height, width = pixels.shape[:2]
    if silhouette is None:
        inner = (FRAME * width, FRAME * height, (1 - FRAME) * width, (1 - FRAME) * height)
        return cut_out(pixels, inner, least=LEAST_WHOLE)
    if silhouette.shape != pixels.shape[:2]:
        given = f"{silhouette_beside(path)}: {silhouette.shape[1]} x {silhouette.shape[0]} px"
        raise ValueError(f"{given}, its picture is {width} x {height}; make them the same size, or remove it")
    return cut_out(pixels, (0, 0, width, height), silhouette)


def silhouette_of(reference: Path) -> np.ndarray | None:
    """Of a reference: NAME_mask.png beside it, or its own transparency; None if it has neither."""
    beside = silhouette_beside(reference)
    return read_silhouette(beside) if beside.is_file() else read_alpha(reference)


def shrunk(pixels: np.ndarray, factor: float) -> np.ndarray:
    """[h,w] or [h,w,3] at `factor` of its size, at most 1."""
    return (
        cv2.resize(pixels, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA) if factor < 1 else pixels
    )


def segment(seen: np.ndarray, box: tuple[int, int, int, int]) -> np.ndarray:
    """Pixels, and the box in them that holds an object => where it is, float [h,w] in [0,1]."""
    factor = min(1.0, COARSE / max(seen.shape[:2]))
    small = shrunk(seen, factor)
    a, b, c, d = (round(v * factor) for v in box)
    labels = np.full(small.shape[:2], cv2.GC_BGD, np.uint8)
    labels[b:d, a:c] = cv2.GC_PR_FGD
    y, x = np.mgrid[: small.shape[0], : small.shape[1]] + 0.5
    across = (2 * x - a - c) / max(c - a, 1)
    along = (2 * y - b - d) / max(d - b, 1)
    labels[across**2 + along**2 < CORE**2] = cv2.GC_FGD
    if (labels == cv2.GC_BGD).any() and (labels == cv2.GC_PR_FGD).any():
        cv2.setRNGSeed(0)  # the same picture, the same cut-out
        models = np.zeros((1, 65)), np.zeros((1, 65))
        cv2.grabCut(small, labels, None, *models, ITERATIONS, cv2.GC_INIT_WITH_MASK)
    found = tidied(np.isin(labels, (cv2.GC_FGD, cv2.GC_PR_FGD)))
    return cv2.resize(found.astype(np.float32), seen.shape[1::-1])


def tidied(found: np.ndarray) -> np.ndarray:
    """A silhouette, bool [h,w], without small holes, like eyes, and without crumbs."""
    for inside, least in ((False, HOLE), (True, CRUMB)):
        count, labels, stats, _ = cv2.connectedComponentsWithStats((found == inside).astype(np.uint8))
        small = stats[:, cv2.CC_STAT_AREA] < least * max(int(found.sum()), 1)
        small[0] = False  # what is not of this kind
        found = found ^ small[labels] if count > 1 else found
    return found


def matte(seen: np.ndarray, coarse: np.ndarray) -> np.ndarray:
    """A coarse silhouette => alpha whose edge follows the picture's, by a guided filter (He et al. 2010)."""
    guide = cv2.cvtColor(seen, cv2.COLOR_RGB2GRAY).astype(np.float32) / 255
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
    """Colours whose edge, where object and ground mix, is as just inside of it."""
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
