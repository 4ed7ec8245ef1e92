"""Find the object that several photos have in common, without boxes: what is like no photo's border.

Each photo is a grid of feature vectors (EfficientNet-Lite0 at stride 16; without its package, colours). A
linear discriminant between object and ground, one for all photos, is fitted to a guess (the centre), and its
scores are the next guess: an object looks alike in all photos, the grounds differ. GrabCut, begun with
these scores, follows the edges.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import torch

from ldm.compositing.cut_out import COARSE, grab_cut, shrunk
from ldm.data.boxes import Box
from ldm.data.image import to_image

SIDE = 320  # pixels: the longer side at which features are computed
STRIDE = 16  # pixels: side of a cell of the grid
BLOCK = 10  # of EfficientNet-Lite0: its last at stride 16
ROUNDS = 8
SHRINKAGE = 0.1  # of the covariance towards a multiple of the identity
SMOOTH = 0.7  # cells
FIRST, LATER = 0.25, 0.4  # of a side: how wide the centre is to which the guess is drawn
STRICT = 0.15  # of the highest score: what the object's must exceed, since cells see beyond their borders
SURE_OBJECT, SURE_GROUND = 0.8, 0.3  # of the way from there to the highest, lowest score
RIM = 0.02  # of the longer side: certainly ground unless the scores are sure
SECOND = 0.3  # of the heaviest piece's weight: lighter pieces are not the object


def find_common(images: Sequence[np.ndarray], known: Sequence[np.ndarray | None] = ()) -> list[np.ndarray]:
    """Photos uint8 [H,W,3] of one object => its coarse silhouette in each, bool [h,w], of lower resolution.

    `known`: silhouettes uint8 [H,W] of some of them, which help to find it in the others; only these others
    are returned.
    """
    known = known or [None] * len(images)
    maps = _feature_maps(images)
    fixed = [_cells(x, f.shape[1:]) for x, f in zip(known, maps, strict=True)]
    scores = _scores(maps, fixed)
    triples = zip(images, scores, known, strict=True)
    return [_follow_edges(image, score) for image, score, silhouette in triples if silhouette is None]


def coarse_box(silhouette: np.ndarray, size: tuple[int, int]) -> Box | None:
    """The box around a silhouette bool [h,w] in its photo of size (H, W); None if it is empty."""
    rows, columns = np.flatnonzero(silhouette.any(1)), np.flatnonzero(silhouette.any(0))
    if not len(rows):
        return None
    x, y = size[1] / silhouette.shape[1], size[0] / silhouette.shape[0]
    return columns[0] * x, rows[0] * y, (columns[-1] + 1) * x, (rows[-1] + 1) * y


def _feature_maps(images: Sequence[np.ndarray]) -> list[np.ndarray]:
    """[c,h,w] of each photo, a position a cell."""
    try:
        from ldm.features.imagenet import ImageNetFeatures

        network = ImageNetFeatures()
    except ModuleNotFoundError:  # an extra
        return [_colours(_resized(image)) for image in images]
    with torch.inference_mode():
        batches = (to_image(_resized(image))[None] for image in images)
        return [network.maps(batch, blocks=(BLOCK,))[0][0].numpy() for batch in batches]


def _resized(image: np.ndarray) -> np.ndarray:
    """Its longer side SIDE pixels, both sides whole numbers of cells."""
    factor = SIDE / max(image.shape[:2])
    height, width = (max(2, round(side * factor / STRIDE)) * STRIDE for side in image.shape[:2])
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)


def _colours(image: np.ndarray) -> np.ndarray:
    """Mean and spread of the colours (Lab) in each cell, [6,h,w]."""
    lab = cv2.cvtColor(image, cv2.COLOR_RGB2LAB).astype(np.float32) / 255
    cells = lab.reshape(image.shape[0] // STRIDE, STRIDE, image.shape[1] // STRIDE, STRIDE, 3)
    return np.concatenate([cells.mean((1, 3)), cells.std((1, 3))], axis=2).transpose(2, 0, 1)


def _cells(silhouette: np.ndarray | None, size: tuple[int, ...]) -> np.ndarray | None:
    """The object's share of each cell, or None."""
    if silhouette is None:
        return None
    share = cv2.resize(silhouette, size[::-1], interpolation=cv2.INTER_AREA).astype(np.float32) / 255
    return share.clip(0.01, 0.99)


def _scores(maps: Sequence[np.ndarray], fixed: Sequence[np.ndarray | None]) -> list[np.ndarray]:
    """How much each cell is the object, [h,w] each; above 0 it is more likely than not."""
    guesses = [
        _with_ground_at_the_rim(_centre(f.shape[1:], FIRST)) if known is None else known
        for f, known in zip(maps, fixed, strict=True)
    ]
    scores: list[np.ndarray] = []
    for _ in range(ROUNDS):
        direction = _discriminant(maps, guesses)
        scores = [cv2.GaussianBlur(np.tensordot(direction, f, 1), (0, 0), SMOOTH) for f in maps]
        scores = [score - _threshold(score) for score in scores]
        spread = np.std(np.concatenate([score.ravel() for score in scores])) + 1e-6
        guesses = [
            _with_ground_at_the_rim(_centre(score.shape, LATER) / (1 + np.exp(-2 * score / spread)))
            if known is None
            else known
            for score, known in zip(scores, fixed, strict=True)
        ]
    return scores


def _discriminant(maps: Sequence[np.ndarray], guesses: Sequence[np.ndarray]) -> np.ndarray:
    """Fisher's linear discriminant [c] between cells that are and are not the object, softly assigned."""
    x = np.concatenate([f.reshape(len(f), -1).T for f in maps]).astype(np.float64)
    share = np.concatenate([guess.ravel() for guess in guesses])[:, None].astype(np.float64)
    means = [(x * weight).sum(0) / weight.sum() for weight in (share, 1 - share)]
    spreads = [((x - m) * w).T @ (x - m) for m, w in zip(means, (share, 1 - share), strict=True)]
    covariance = sum(spreads) / len(x)
    shrunk_to = SHRINKAGE * np.trace(covariance) / len(covariance) * np.eye(len(covariance))
    return np.linalg.solve(covariance + shrunk_to, means[0] - means[1]).astype(np.float32)


def _centre(size: tuple[int, ...], width: float) -> np.ndarray:
    """A Gaussian about the middle, [h,w]."""
    y, x = ((np.arange(side) + 0.5) / side - 0.5 for side in size)
    return np.exp(-(y[:, None] ** 2 + x[None] ** 2) / (2 * width**2)).astype(np.float32)


def _with_ground_at_the_rim(guess: np.ndarray) -> np.ndarray:
    rim = np.ones_like(guess, dtype=bool)
    rim[1:-1, 1:-1] = False
    return np.where(rim, 0.2 * guess, guess).clip(0.01, 0.99)


def _threshold(score: np.ndarray) -> float:
    """Otsu's, which separates two kinds of cells best."""
    low, high = float(score.min()), float(score.max())
    levels = ((score - low) / max(high - low, 1e-6) * 255).astype(np.uint8)
    found, _ = cv2.threshold(levels, 0, 255, cv2.THRESH_OTSU)
    return low + found / 255 * (high - low)


def _follow_edges(image: np.ndarray, score: np.ndarray) -> np.ndarray:
    """GrabCut begun with the scores, and of its pieces the heaviest by score: bool [h,w]."""
    small = shrunk(image, min(1.0, COARSE / max(image.shape[:2])))
    strict = score - STRICT * score.max()
    fine = cv2.resize(strict, small.shape[1::-1], interpolation=cv2.INTER_CUBIC)
    labels = np.where(fine > 0, cv2.GC_PR_FGD, cv2.GC_PR_BGD).astype(np.uint8)
    rim = max(1, round(RIM * max(labels.shape)))
    edge = np.ones(labels.shape, bool)
    edge[rim:-rim, rim:-rim] = False
    sure = fine > SURE_OBJECT * fine.max()
    labels[(fine < SURE_GROUND * fine.min()) | (edge & ~sure)] = cv2.GC_BGD
    labels[sure & ~edge] = cv2.GC_FGD
    kinds = np.isin(labels, (cv2.GC_FGD, cv2.GC_PR_FGD))
    if kinds.any() and not kinds.all():
        grab_cut(small, labels)
    found = np.isin(labels, (cv2.GC_FGD, cv2.GC_PR_FGD)).astype(np.uint8)
    count, pieces = cv2.connectedComponents(
        cv2.morphologyEx(found, cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
    )
    weights = np.bincount(pieces.ravel(), np.maximum(fine, 0).ravel(), count)
    weights[0] = 0  # the ground
    return (weights > SECOND * weights.max())[pieces] if weights.any() else np.zeros(found.shape, bool)
