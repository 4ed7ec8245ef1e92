"""Continue a background into a hole from its surroundings, by patches of the picture itself.

Coarse to fine, every patch around the hole looks for the most similar patch of known pixels (PatchMatch, Barnes
et al. 2009), and the hole's pixels become the mean of what those patches show there (Wexler et al. 2007).
"""

from __future__ import annotations

import cv2
import numpy as np

RADIUS = 3  # pixels around a patch's centre
SEARCHED = 192  # pixels of the longer side at which patches are searched; above it, their places are scaled up
COARSEST = 24  # pixels of the hole's thickest part, from its edge, times 4: where the search starts
ROUNDS = 6  # of search and mean at the coarsest level; one less at each finer one, 2 at least
PLAINER = 0.06  # weight of a patch's own variance: of similar patches the plainer one, so that no object is repeated
OFFSETS = [(y, x) for y in range(-RADIUS, RADIUS + 1) for x in range(-RADIUS, RADIUS + 1)]


def fill_background(image: np.ndarray, hole: np.ndarray, seed: int = 0) -> np.ndarray:
    """Image float [h,w,3], hole bool [h,w] (True = unknown) => the image with the hole filled.

    Pixels outside the hole stay as they are. Where no patch is fully known (nearly everything is hole) the
    hole is interpolated from its edge; an image without a known pixel becomes its mean.
    """
    if not hole.any():
        return image.copy()
    rng = np.random.default_rng(seed)
    places: np.ndarray | None = None  # for every pixel, where its patch's source is: [h,w,2], y x
    filled = image
    for small, small_hole, rounds in _levels(image, hole):
        places, filled = _fill_level(small, small_hole, places, filled, rounds, rng)
        if places is None:
            return _interpolated(image, hole)
    out = image.copy()
    out[hole] = filled[hole]
    return out


def _levels(image: np.ndarray, hole: np.ndarray) -> list[tuple[np.ndarray, np.ndarray, int]]:
    """The image and its hole from coarse to fine, and the rounds of search; 0: places are only scaled up."""
    h, w = hole.shape
    thickness = float(cv2.distanceTransform(np.pad(hole, 1).astype(np.uint8), cv2.DIST_L2, 5).max())
    finest = min(1.0, SEARCHED / max(h, w))
    scales = [finest]
    while scales[-1] * thickness * 4 > COARSEST and min(h, w) * scales[-1] / 2 > 4 * RADIUS + 2:
        scales.append(scales[-1] / 2)
    levels = [
        (*_scaled(image, hole, scale), max(2, ROUNDS - i)) for i, scale in enumerate(reversed(scales))
    ]
    return levels if finest == 1 else [*levels, (image, hole, 0)]


def _scaled(image: np.ndarray, hole: np.ndarray, scale: float) -> tuple[np.ndarray, np.ndarray]:
    """Both made smaller; a pixel of the hole does not enter the mean of known ones."""
    if scale == 1:
        return image.astype(np.float32), hole
    h, w = (max(1, round(side * scale)) for side in hole.shape)
    known = cv2.resize((~hole).astype(np.float32), (w, h), interpolation=cv2.INTER_AREA)
    shown = (image * ~hole[..., None]).astype(np.float32)
    total = cv2.resize(shown, (w, h), interpolation=cv2.INTER_AREA)
    return total / np.maximum(known, 1e-3)[..., None], known < 0.5


def _fill_level(
    image: np.ndarray,
    hole: np.ndarray,
    places: np.ndarray | None,
    coarse: np.ndarray,
    rounds: int,
    rng: np.random.Generator,
) -> tuple[np.ndarray | None, np.ndarray]:
    """Fill one level from the places and the image of the one before => its places and image."""
    h, w = hole.shape
    side = 2 * RADIUS + 1
    known = cv2.erode((~hole).astype(np.uint8), np.ones((side, side), np.uint8), borderValue=0).astype(bool)
    sources = np.argwhere(known)
    if not len(sources):
        return None, image
    near = cv2.dilate(hole.astype(np.uint8), np.ones((side, side), np.uint8)).astype(bool)
    inside = np.zeros_like(near)
    inside[RADIUS : h - RADIUS, RADIUS : w - RADIUS] = True
    targets = np.argwhere(near & inside)
    if not len(targets):
        return None, image
    search = _Search(image, hole, known, targets, rng)
    if places is None:
        image = _interpolated(image, hole)
        found = sources[rng.integers(len(sources), size=len(targets))]
    else:
        found = _scaled_places(places, targets, hole.shape)
        found = np.where(known[found[:, 0], found[:, 1]][:, None], found, search.any_source(len(targets)))
        image = search.mean_of(found, np.zeros(len(targets)))
    for _ in range(rounds):
        found, distance = search.improved(image, found)
        image = search.mean_of(found, distance)
    out = np.zeros((h, w, 2), np.int64)
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
    empty = (places == 0).all(-1)
    _, labels = cv2.distanceTransformWithLabels(
        empty.astype(np.uint8), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
    )
    at = np.zeros((labels.max() + 1, 2), np.int64)
    ys, xs = np.nonzero(~empty)
    at[labels[ys, xs]] = np.stack([ys, xs], -1)
    nearest = at[labels]
    step = np.stack(np.indices(empty.shape), -1) - nearest
    return places[nearest[..., 0], nearest[..., 1]] + step


class _Search:
    """Patches around the centres `targets` [T,2] of one level, and the known patches that they resemble."""

    def __init__(
        self,
        image: np.ndarray,
        hole: np.ndarray,
        known: np.ndarray,
        targets: np.ndarray,
        rng: np.random.Generator,
    ) -> None:
        self.image, self.hole, self.known, self.targets, self.rng = image, hole, known, targets, rng
        self.sources = np.argwhere(known)
        self.busy = PLAINER * _variance(image)
        self.number = np.full(hole.shape, -1)
        self.number[targets[:, 0], targets[:, 1]] = np.arange(len(targets))
        depth = cv2.distanceTransform(hole.astype(np.uint8), cv2.DIST_L2, 5)
        self.weight = 1.3 ** -depth[targets[:, 0], targets[:, 1]]  # what is near known pixels is surer

    def any_source(self, count: int) -> np.ndarray:
        return self.sources[self.rng.integers(len(self.sources), size=count)]

    def improved(self, image: np.ndarray, found: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """One round of PatchMatch: the neighbours' sources, then random ones ever nearer => sources, distances."""
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
        inside = (tried >= 0).all(1) & (tried < (h, w)).all(1)
        tried = np.where(inside[:, None], tried, 0)
        valid = np.flatnonzero(inside & self.known[tried[:, 0], tried[:, 1]] & (tried != found).any(1))
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
        return total / len(OFFSETS) + self.busy[found[:, 0], found[:, 1]]

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
    size = (2 * RADIUS + 1, 2 * RADIUS + 1)
    mean, power = cv2.blur(image, size), cv2.blur(image * image, size)
    return np.maximum(power - mean * mean, 0).sum(-1)


def _interpolated(image: np.ndarray, hole: np.ndarray) -> np.ndarray:
    """The hole as a smooth continuation of its edge (Telea 2004)."""
    if hole.all():
        return np.broadcast_to(image.mean((0, 1)), image.shape).astype(np.float32)
    low, high = float(image[~hole].min()), float(image[~hole].max())
    span = max(high - low, 1e-6)
    levels = np.round((image - low) / span * 255).clip(0, 255).astype(np.uint8)
    telea = cv2.inpaint(levels, hole.astype(np.uint8), 3, cv2.INPAINT_TELEA)
    out = image.astype(np.float32).copy()
    out[hole] = telea[hole] / 255 * span + low
    return out
