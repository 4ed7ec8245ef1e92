"""Continue a background into a hole from its surroundings, by patches of the picture itself.

Coarse to fine, every patch around the hole looks for the most similar patch of known pixels (PatchMatch,
Barnes et al. 2009), and the hole's pixels become the mean of what those patches show (Wexler et al. 2007).
"""

from __future__ import annotations

from functools import cached_property
from typing import NamedTuple

import cv2
import numpy as np

RADIUS = 3  # pixels around a patch's centre
SEARCHED = 160  # pixels of the longer side at which patches are searched; the result is scaled up
COARSEST = 6  # pixels from the hole's edge to its middle, at most, where the search starts
ROUNDS = 6  # of search and mean at the coarsest level; one less at each finer one, 2 at least
ROWS = 0.2  # weight of the squared distance in height, in shares of the picture's: scenes have horizons
PLAINER = 0.06  # weight of a source's variance: plain patches are preferred, so that no object is repeated
SMOOTHED = 300  # times that an interpolation is blurred: at the coarsest size nearly harmonic
SIDE = 2 * RADIUS + 1
OFFSETS = [(y, x) for y in range(-RADIUS, RADIUS + 1) for x in range(-RADIUS, RADIUS + 1)]


def fill_background(image: np.ndarray, hole: np.ndarray) -> np.ndarray:
    """Image float [h,w,3], hole bool [h,w] (True = unknown) => the image with the hole filled.

    Pixels outside the hole stay as they are. Where no patch is fully known (nearly everything is hole) the
    hole is interpolated from its edge; an image without a known pixel becomes its mean.
    """
    if not hole.any():
        return image.copy()
    rng = np.random.default_rng(0)  # the same fill each time
    places: np.ndarray | None = None  # for every pixel, where its patch's source is: [h,w,2], y x
    filled = image.astype(np.float32)
    levels = [level for level in _levels(image, hole) if level.known.any()]
    if not levels:
        return _interpolated(image, hole)
    for level in levels:
        places, filled = _fill_level(level, places, rng)
    if filled.shape != image.shape:  # only coarse patches are known
        filled = cv2.resize(filled, hole.shape[::-1], interpolation=cv2.INTER_CUBIC)
    out = image.copy()
    out[hole] = filled[hole]
    return out


class _Level(NamedTuple):
    """The picture at one size. `known` [h,w]: centres of known patches; `targets` [T,2]: of those to find."""

    image: np.ndarray
    hole: np.ndarray
    known: np.ndarray
    targets: np.ndarray
    rounds: int


def _levels(image: np.ndarray, hole: np.ndarray) -> list[_Level]:
    """From coarse to fine; at the own size of a picture above SEARCHED places are not searched."""
    h, w = hole.shape
    thickness = float(cv2.distanceTransform(np.pad(hole, 1).astype(np.uint8), cv2.DIST_L2, 5).max())
    scales = [min(1.0, SEARCHED / max(h, w))]
    while scales[-1] * thickness > COARSEST and min(h, w) * scales[-1] / 2 > 2 * SIDE:
        scales.append(scales[-1] / 2)
    levels = [_level(image, hole, scale, max(2, ROUNDS - i)) for i, scale in enumerate(reversed(scales))]
    return levels if scales[0] == 1 else [*levels, _level(image, hole, 1, 0)]


def _level(image: np.ndarray, hole: np.ndarray, scale: float, rounds: int) -> _Level:
    """The picture made smaller; pixels of the hole do not enter the mean of known ones."""
    h, w = (max(1, round(side * scale)) for side in hole.shape)
    known = cv2.resize((~hole).astype(np.float32), (w, h), interpolation=cv2.INTER_AREA)
    total = cv2.resize((image * ~hole[..., None]).astype(np.float32), (w, h), interpolation=cv2.INTER_AREA)
    small, small_hole = total / np.maximum(known, 1e-3)[..., None], (known < 0.5).astype(np.uint8)
    patch = np.ones((SIDE, SIDE), np.uint8)
    centres = cv2.erode(1 - small_hole, patch, borderValue=0).astype(bool)
    near = cv2.dilate(small_hole, patch).astype(bool)
    near[:RADIUS] = near[h - RADIUS :] = near[:, :RADIUS] = near[:, w - RADIUS :] = False
    return _Level(small, small_hole.astype(bool), centres, np.argwhere(near), rounds)


def _fill_level(
    level: _Level, places: np.ndarray | None, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Fill one level from the places of the one before, the source y x of every pixel's patch [h,w,2].

    => this level's places and image.
    """
    search, known, targets = _Search(level, rng), level.known, level.targets
    found = search.any_source(len(targets))
    if places is None:
        image = _interpolated(level.image, level.hole)
    else:
        scaled = _scaled_places(places, targets, level.hole.shape)
        found = np.where(known[scaled[:, 0], scaled[:, 1]][:, None], scaled, found)
        image = search.mean_of(found, np.zeros(len(targets)))
    for _ in range(level.rounds):
        found, distance = search.improved(image, found)
        image = search.mean_of(found, distance)
    out = np.zeros((*level.hole.shape, 2), np.int64)
    out[targets[:, 0], targets[:, 1]] = found
    return out, image


def _scaled_places(places: np.ndarray, targets: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Sources [T,2] of the targets, from the sources of the coarser level's nearest pixels."""
    h, w = places.shape[:2]
    factor = np.array(shape) / (h, w)
    filled = _spread(places)
    at = np.clip((targets / factor).astype(np.int64), 0, (h - 1, w - 1))
    step = targets - np.round(at * factor).astype(np.int64)
    found = np.round(filled[at[:, 0], at[:, 1]] * factor).astype(np.int64) + step
    return np.clip(found, RADIUS, np.array(shape) - RADIUS - 1)


def _spread(places: np.ndarray) -> np.ndarray:
    """Pixels without a place (0, 0) get that of the nearest pixel with one, moved along."""
    empty = np.all(places == 0, axis=-1)
    ys, xs = _nearest(empty)
    own = np.indices(empty.shape)
    return places[ys, xs] + np.stack([own[0] - ys, own[1] - xs], -1)


def _nearest(hole: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of every pixel of a hole, bool [h,w], rows and columns of the nearest known one; else its own."""
    _, labels = cv2.distanceTransformWithLabels(
        hole.astype(np.uint8), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
    )
    ys, xs = np.nonzero(~hole)
    at = np.zeros((2, labels.max() + 1), np.int64)
    at[:, labels[ys, xs]] = ys, xs
    return at[0][labels], at[1][labels]


class _Search:
    """Patches around the centres `targets` [T,2] of one level, and the known patches that they resemble."""

    def __init__(self, level: _Level, rng: np.random.Generator) -> None:
        self.image, self.hole, self.known, self.targets, _ = level
        self.rng, self.sources = rng, np.argwhere(level.known)
        depth = cv2.distanceTransform(self.hole.astype(np.uint8), cv2.DIST_L2, 5)
        self.weight = 1.3 ** -depth[self.targets[:, 0], self.targets[:, 1]]  # near known pixels is surer

    @cached_property
    def busy(self) -> np.ndarray:
        """What a source's variance adds to its distance, [h,w]."""
        return PLAINER * _variance(self.image)

    @cached_property
    def number(self) -> np.ndarray:
        """The number of the target at every pixel, [h,w]; -1: none."""
        number = np.full(self.hole.shape, -1)
        number[self.targets[:, 0], self.targets[:, 1]] = np.arange(len(self.targets))
        return number

    def any_source(self, count: int) -> np.ndarray:
        return self.sources[self.rng.integers(len(self.sources), size=count)]

    def improved(self, image: np.ndarray, found: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """One round of PatchMatch: the neighbours' sources, then random ones => sources, distances."""
        found = found.copy()
        distance = self._distances(image, found)
        for step in ((1, 0), (0, 1), (-1, 0), (0, -1)) * 2:
            neighbour = self.number[tuple((self.targets - step).T.clip(0))]
            moved = found[neighbour] + step
            self._keep_better(image, found, distance, np.where(neighbour[:, None] >= 0, moved, found))
        reach = max(self.hole.shape) // 2
        while reach >= 1:
            moved = found + self.rng.integers(-reach, reach + 1, size=found.shape)
            self._keep_better(image, found, distance, moved)
            reach //= 2
        return found, distance

    def _keep_better(
        self, image: np.ndarray, found: np.ndarray, distance: np.ndarray, tried: np.ndarray
    ) -> None:
        h, w = self.hole.shape
        inside = np.all((tried >= 0) & (tried < (h, w)), axis=1)
        tried = np.where(inside[:, None], tried, 0)
        new_one = np.any(tried != found, axis=1)
        valid = np.flatnonzero(inside & self.known[tried[:, 0], tried[:, 1]] & new_one)
        new = self._distances(image, tried[valid], valid)
        better = valid[new < distance[valid]]
        distance[better] = new[new < distance[valid]]
        found[better] = tried[better]

    def _distances(
        self, image: np.ndarray, found: np.ndarray, of: np.ndarray | slice = slice(None)
    ) -> np.ndarray:
        """Mean squared difference of each target's patch and its source's, [T]."""
        targets = self.targets[of]
        total = np.zeros(len(found), np.float32)
        width = image.shape[1]
        flat = image.reshape(-1, image.shape[-1])
        a, b = targets[:, 0] * width + targets[:, 1], found[:, 0] * width + found[:, 1]
        for y, x in OFFSETS:
            step = y * width + x
            difference = flat[a + step] - flat[b + step]
            total += np.einsum("tc,tc->t", difference, difference)
        higher = (targets[:, 0] - found[:, 0]) / len(image)
        return total / len(OFFSETS) + self.busy[found[:, 0], found[:, 1]] + ROWS * higher**2

    def mean_of(self, found: np.ndarray, distance: np.ndarray) -> np.ndarray:
        """The image whose hole is the weighted mean of the sources of all patches over each pixel."""
        usual = np.quantile(distance, 0.75) if distance.any() else 1.0
        weight = self.weight * np.exp(-distance / max(float(usual), 1e-6))
        total = np.zeros((*self.hole.shape, self.image.shape[-1] + 1), np.float32)
        for y, x in OFFSETS:
            colour = self.image[found[:, 0] + y, found[:, 1] + x]
            part = np.concatenate([colour * weight[:, None], weight[:, None]], 1)
            total[self.targets[:, 0] + y, self.targets[:, 1] + x] += part
        out = self.image.copy()
        covered = self.hole & (total[..., -1] > 0)
        out[covered] = total[covered][:, :-1] / total[covered][:, -1:]
        if (rest := self.hole & ~covered).any():
            out = _interpolated(out, rest)
        return out


def _variance(image: np.ndarray) -> np.ndarray:
    """The variance of every pixel's patch, summed over the colours, [h,w]."""
    size = (SIDE, SIDE)
    mean, power = cv2.blur(image, size), cv2.blur(image * image, size)
    return np.maximum(power - mean * mean, 0).sum(-1)


def _interpolated(image: np.ndarray, hole: np.ndarray) -> np.ndarray:
    """The hole as a smooth continuation of its edge.

    Pixels between two known ones of their row pass from one to the other: what is beside the hole mostly
    goes on at the same height. All others are those of the nearest known pixels, blurred.
    """
    out = image.astype(np.float32).copy()
    if hole.all():
        out[:] = image.mean((0, 1))
        return out
    ys, xs = _nearest(hole)
    out[hole] = out[ys[hole], xs[hole]]
    for _ in range(SMOOTHED):
        out[hole] = cv2.blur(out, (3, 3))[hole]
    column = np.arange(hole.shape[1])
    left = np.maximum.accumulate(np.where(hole, -1, column), 1)
    right = np.minimum.accumulate(np.where(hole, len(column), column)[:, ::-1], 1)[:, ::-1]
    between = hole & (left >= 0) & (right < len(column))
    y, x = np.nonzero(between)
    a, b = left[between], right[between]
    share = ((x - a) / (b - a))[:, None]
    out[between] = image[y, a] * (1 - share) + image[y, b] * share
    return out
