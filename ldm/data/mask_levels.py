"""What a mask picture marks, as tools write them: levels 0 and 1, palettes, colour on transparency, specks.

In: a picture file that is white, or opaque, where the object is. Out: levels [H,W], or bool [H,W].
What is read otherwise than as white on black is said in a warning; what is ambiguous is a ValueError.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Literal

import cv2
import numpy as np

from ldm.data.picture import OPAQUE, Picture, eight_bits, read_labels, read_picture, srgb_pixels

Channel = Literal["auto", "luma", "alpha"]
VOID = 255  # the label of outlines in PASCAL VOC: neither object nor ground
FEW = 20  # brightest levels up to this are numbers of classes rather than brightness
OUTLINE = 13  # pixels: no square of this side fits into the outline of labels
ONE_COLOUR = 0.08  # of the range: a greater difference in luma is no longer one colour
BLACK_AND_WHITE = 0.95  # share of the pixels of a mask that are nearly black or white
FAINT, TAIL = 0.05, 0.5  # of the range: darker pixels are black; of a mask's area: a wider soft edge is named
GREYS = 0.5  # share of a picture that is neither nearly black nor nearly white: more are a photo
SPECK = 0.01  # of the largest part's area: smaller parts are specks
LEAST = 4  # px: likewise, in any case
DOT = 1e-3  # of the picture's longer side: a square of this side is a pixel on a screen, and a speck
SURROUNDS = 0.9  # share of the picture's border that an inverted mask covers, at least


def mask_levels(path: Path, picture: Picture, channel: Channel = "auto") -> np.ndarray:
    """Levels [H,W] in the picture's depth, high where a mask marks: its luma, as shown, or its alpha.

    `auto` takes alpha if that alone distinguishes, or if what is opaque is one colour, or a photo; else the
    luma, over black. Of labels, of a palette or as grey levels (PASCAL VOC), the one is marked; several are a
    ValueError.
    """
    pixels, top = picture.pixels, np.iinfo(picture.pixels.dtype).max
    alpha = pixels[..., -1] if pixels.shape[2] in (2, 4) else None
    if channel == "alpha" and alpha is None:
        raise ValueError(f"{path}: has no alpha channel; use its luma, or give a picture with transparency")
    if channel == "alpha":
        return pixels[..., -1]
    if alpha is None and (labels := read_labels(path)) is not None:
        return np.where(labels == _label(path, labels), top, 0).astype(pixels.dtype)
    shown = pixels[..., : picture.n_colours] if picture.space is None else srgb_pixels(picture)
    if shown.dtype != pixels.dtype:
        shown = shown.astype(pixels.dtype) * 257
    luma = shown[..., 0] if picture.n_colours == 1 else cv2.cvtColor(np.array(shown), cv2.COLOR_RGB2GRAY)
    if alpha is None and _are_labels(luma):
        return np.where(luma == _label(path, luma), top, 0).astype(pixels.dtype)
    if channel == "luma" or alpha is None or np.ptp(alpha) == 0:
        return luma
    opaque = alpha > OPAQUE / 255 * top
    if luma.min() == luma.max() or (opaque.any() and not opaque.all() and _is_marked_by_alpha(luma[opaque])):
        return alpha
    return (luma.astype(np.uint32) * alpha // top).astype(luma.dtype)


def above(levels: np.ndarray, threshold: float, name: str, transparent: bool = False) -> np.ndarray:
    """Levels [H,W] => where they are above `threshold` (0..1), bool [H,W].

    If none is but there are just two, 0 and another, that other one is marked. ValueError if levels are many
    and all too dark. `transparent`: the picture has an alpha channel, which the message then names.
    """
    top, highest = int(np.iinfo(levels.dtype).max), int(levels.max())
    mask = levels > threshold * top
    if mask.any():
        tail = int((levels > min(FAINT, threshold) * top).sum() - mask.sum())
        if tail <= TAIL * mask.sum():
            _warn_of_greys(levels, name)
        else:
            warnings.warn(
                f"{name}: soft; {tail} pixels darker than the threshold {threshold:g} are not counted, "
                f"{mask.sum()} are; a lower --threshold counts more",
                stacklevel=2,
            )
        return mask
    if highest == 0:
        return mask
    dark = f"{name}: its brightest level is {highest} of {top}; a mask is white, {top}"
    if _is_two_levels(levels):
        warnings.warn(f"{dark}; its two levels are taken as black and white", stacklevel=2)
        return levels == highest
    lower = 0 if highest <= FEW else np.floor(highest / top * 50) / 100
    alpha = ", --mask_channel alpha" if transparent else ""
    raise ValueError(f"{dark} (or: --threshold {lower:g}{alpha})")


def _warn_of_greys(levels: np.ndarray, name: str) -> None:
    """Warn if most of levels [H,W] are neither nearly black nor nearly white."""
    top = np.iinfo(levels.dtype).max
    grey = float(((levels > FAINT * top) & (levels < (1 - FAINT) * top)).mean())
    if grey > GREYS:
        warnings.warn(
            f"{name}: {grey:.0%} of its pixels are neither black nor white, as in a photo; it should be "
            "white where the object is, and black elsewhere",
            stacklevel=3,
        )


def without_specks(mask: np.ndarray, name: str) -> np.ndarray:
    """A mask, bool [H,W], without its specks; a warning counts them.

    A speck is smaller than SPECK of the largest part, than LEAST px, or than a dot of the picture. Parts
    touch at corners, too. What is left out is neither filled nor pasted, and sizes nothing.
    """
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    if not len(rows):
        return mask
    inner = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    _, parts, stats, _ = cv2.connectedComponentsWithStats(mask[inner].astype(np.uint8), connectivity=8)
    areas = stats[1:, cv2.CC_STAT_AREA]
    largest = int(areas.max())
    least = max(LEAST, (DOT * max(mask.shape)) ** 2)
    specks = areas < max(SPECK * largest, min(least, largest))
    if not specks.any():
        return mask
    kept = np.zeros_like(mask)
    kept[inner] = np.concatenate([[False], ~specks])[parts]
    number = "1 speck is" if specks.sum() == 1 else f"{specks.sum()} specks are"
    warnings.warn(
        f"{name}: {number} not counted and left out of the mask, {areas[specks].sum()} px beside a part of "
        f"{largest} px; enlarge what is meant",
        stacklevel=2,
    )
    return kept


def surrounds(mask: np.ndarray) -> bool:
    """Whether a mask, bool [H,W], covers most of the picture and all of its border: it is inverted."""
    border = np.concatenate([mask[0], mask[-1], mask[:, 0], mask[:, -1]])
    return bool(border.mean() >= SURROUNDS and mask.mean() > 0.5 and not mask.all())


def read_silhouette(path: Path) -> np.ndarray:
    """A picture file that is white, or opaque, where an object is => uint8 [H,W], upright.

    Raises as `read_picture`, and ValueError if it is white nowhere.
    """
    levels = mask_levels(path, read_picture(path, convert=True))
    if eight_bits(levels.max(keepdims=True)).item() <= OPAQUE:
        highest = levels.max()
        if not _is_two_levels(levels):
            raise ValueError(
                f"{path}: its brightest level is {highest}; a silhouette is white, 255, on black"
            )
        return above(levels, OPAQUE / 255, str(path)).astype(np.uint8) * np.uint8(255)
    levels = eight_bits(levels)
    _warn_of_greys(levels, str(path))
    if surrounds(levels > OPAQUE):
        warnings.warn(
            f"{path}: white surrounds black; a silhouette is white where the object is, so invert it",
            stacklevel=2,
        )
    return levels


def _is_two_levels(levels: np.ndarray) -> bool:
    """Whether there is black and one other level."""
    black = levels == 0
    return bool(black.any() and not black.all() and (black | (levels == levels.max())).all())


def _are_labels(luma: np.ndarray) -> bool:
    """Whether levels [H,W] are 0, numbers of classes and VOID, rather than white on nearly black.

    VOID is a thin outline; what is white and thicker is an object.
    """
    if luma.dtype != np.uint8:
        return False
    counts = _counts(luma)
    classes = counts[1 : FEW + 1].sum()
    few = counts[0] and classes > SPECK * counts[VOID] and not counts[FEW + 1 : VOID].any()
    thick = np.ones((OUTLINE, OUTLINE), np.uint8)
    return bool(few and counts[VOID] and not cv2.erode((luma == VOID).astype(np.uint8), thick).any())


def _counts(levels: np.ndarray) -> np.ndarray:
    """How many pixels of uint8 [H,W] have each level, [256]."""
    return cv2.calcHist([levels], [0], None, [256], [0, 256]).ravel()


def _label(path: Path, labels: np.ndarray) -> int:
    """The one label that is marked."""
    found = [int(label) for label in np.flatnonzero(_counts(labels)) if label]
    marks = [label for label in found if label != VOID] or found
    if len(marks) > 1:
        named = ", ".join(map(str, marks[:5])) + (", ..." if len(marks) > 5 else "")
        raise ValueError(
            f"{path}: holds {len(marks)} labels ({named}); make the one that is meant white, the rest black"
        )
    if not marks:  # black everywhere
        return VOID
    warnings.warn(f"{path}: holds labels; label {marks[0]} is taken as the mask", stacklevel=3)
    return marks[0]


def _is_marked_by_alpha(luma: np.ndarray) -> bool:
    """Of the luma [n] of opaque pixels: one colour, or a photo, rather than a mask in black and white."""
    top = np.iinfo(luma.dtype).max
    extreme = (luma < ONE_COLOUR * top) | (luma > (1 - ONE_COLOUR) * top)
    return bool(np.ptp(luma) <= ONE_COLOUR * top or extreme.mean() < BLACK_AND_WHITE)
