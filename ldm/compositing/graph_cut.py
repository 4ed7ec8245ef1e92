"""A silhouette from a network's log odds, the colours of object and ground, and the picture's edges.

An exact minimum cut (Boykov and Jolly 2001) with GrabCut's colour models (Rother et al. 2004). OpenCV's
GrabCut takes only hard labels; here every pixel has the network's log odds.
"""

from __future__ import annotations

import cv2
import numpy as np
from scipy.sparse import coo_array, csr_array
from scipy.sparse.csgraph import breadth_first_order, maximum_flow

from ldm.compositing.cut_out import PixelBox

ROUNDS = 2  # of colour models and cut
OPINION, COLOUR = 0.5, 0.5  # weights of the network's log odds and of the colours'
EDGE = 2.0  # what it costs to cut between two equal neighbours, in log odds
MOST = 6.0, 4.0  # log odds beyond which neither network nor colours count
BEYOND = 0.03  # of the sides: how far the object may leave its box
NEVER = 30.0  # log odds of what is certainly ground
SAMPLES, KINDS = 1500, 5  # pixels that a colour model is made from, and its Gaussians
GRAIN = 9.0  # variance of Lab colours, 0-255, below which a Gaussian is not narrower
SCALE = 50  # of log odds as whole numbers
Edges = tuple[np.ndarray, np.ndarray, np.ndarray]  # indices of two pixels each, and what a cut there costs


def silhouette(pixels: np.ndarray, log_odds: np.ndarray, box: PixelBox) -> np.ndarray:
    """Pixels uint8 [h,w,3], log odds [h,w] that each is the object, its box => bool [h,w]."""
    opinion = OPINION * log_odds.clip(-MOST[0], MOST[0])
    opinion[_outside(box, log_odds.shape)] = -NEVER
    colours = cv2.cvtColor(pixels, cv2.COLOR_RGB2LAB).reshape(-1, 3).astype(np.float32)
    edges, found = _edges(pixels), log_odds > 0
    share = 1 / (1 + np.exp(-log_odds.clip(-MOST[0], MOST[0])))
    for _ in range(ROUNDS):
        if found.all() or not found.any():
            return found
        likely = [_likelihood(colours, weight.ravel()) for weight in (found * share, ~found * (1 - share))]
        colour = (likely[0] - likely[1]).clip(-MOST[1], MOST[1]).reshape(found.shape)
        found = minimum_cut(opinion + COLOUR * colour, edges)
        share = found.astype(np.float64)
    return found


def minimum_cut(log_odds: np.ndarray, edges: Edges) -> np.ndarray:
    """The bool [h,w] with the highest sum of log odds [h,w] inside, less the cost of the edges it cuts."""
    count = log_odds.size
    source, sink, every = np.full(count, count), np.full(count, count + 1), np.arange(count)
    odds = np.round(log_odds.ravel() * SCALE)
    one, other, cost = edges[0], edges[1], np.round(edges[2] * SCALE)
    starts = np.concatenate([one, other, source, every])
    ends = np.concatenate([other, one, every, sink])
    capacity = np.concatenate([cost, cost, odds.clip(0), (-odds).clip(0)]).astype(np.int32)
    shape = count + 2, count + 2
    graph = csr_array(coo_array((capacity, (starts, ends)), shape=shape))
    left = csr_array(graph - maximum_flow(graph, count, count + 1).flow)
    left.eliminate_zeros()
    found = np.zeros(count + 2, bool)
    found[breadth_first_order(left, count, return_predecessors=False)] = True
    return found[:count].reshape(log_odds.shape)


def _outside(box: PixelBox, size: tuple[int, ...]) -> np.ndarray:
    """What is certainly not the object, bool [h,w]."""
    x0, y0, x1, y1 = box
    down, across = (round(BEYOND * side) for side in size)
    outside = np.ones(size, bool)
    outside[max(0, y0 - down) : y1 + down, max(0, x0 - across) : x1 + across] = False
    return outside


def _edges(pixels: np.ndarray) -> Edges:
    """The eight neighbours of each pixel; a cut between two costs more if they are similar."""
    index = np.arange(pixels.shape[0] * pixels.shape[1]).reshape(pixels.shape[:2])
    colours = pixels.reshape(-1, 3).astype(np.float32)
    diagonal = 1 / np.sqrt(2)
    pairs = [
        (index[:, :-1], index[:, 1:], 1.0),
        (index[:-1], index[1:], 1.0),
        (index[:-1, :-1], index[1:, 1:], diagonal),
        (index[1:, :-1], index[:-1, 1:], diagonal),
    ]
    one, other = (np.concatenate([pair[side].ravel() for pair in pairs]) for side in (0, 1))
    length = np.concatenate([np.full(pair[0].size, pair[2]) for pair in pairs])
    apart = ((colours[one] - colours[other]) ** 2).sum(1)
    return one, other, EDGE * length * np.exp(-apart / (2 * apart.mean() + 1e-6))


def _likelihood(colours: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Log likelihood [n] of colours [n,3] by a mixture of Gaussians, fitted to those of high weight [n]."""
    rng = np.random.default_rng(0)  # the same silhouette for the same picture
    chosen = colours[rng.choice(len(colours), SAMPLES, p=weight / weight.sum())]
    cv2.setRNGSeed(0)
    stop = cv2.TERM_CRITERIA_EPS + cv2.TERM_CRITERIA_MAX_ITER, 10, 1.0
    _, kinds, _ = cv2.kmeans(chosen, KINDS, None, stop, 1, cv2.KMEANS_PP_CENTERS)
    parts = [chosen[kinds[:, 0] == kind] for kind in range(KINDS)]
    logs = [_log_density(colours, part, len(part) / SAMPLES) for part in parts if len(part) > 4]
    return np.asarray(np.logaddexp.reduce(logs))


def _log_density(colours: np.ndarray, part: np.ndarray, share: float) -> np.ndarray:
    """Log density [n] of colours [n,3] by the Gaussian of some of them, times its share."""
    covariance = np.cov(part.T) + GRAIN * np.eye(3)
    off = colours - part.mean(0)
    distance = ((off @ np.linalg.inv(covariance)) * off).sum(1)
    return np.log(share) - 0.5 * np.log(np.linalg.det(covariance)) - 0.5 * distance
