"""The smooth function inside a region with given values along its edge (a membrane).

Solves (Laplacian - damping) u = 0: directly by SciPy on a coarse grid, then refined grid by grid.
"""

from __future__ import annotations

import cv2
import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.linalg import spsolve

DIRECT = 128  # px: grids up to this side are solved directly
SWEEPS = 12  # relaxations on each finer grid; the error left there is high-frequency, so few suffice
CROSS = np.array([[0, 1, 0], [1, 0, 1], [0, 1, 0]], np.float32)
STEPS = ((0, 1), (2, 1), (1, 0), (1, 2))  # the four neighbours, in an array with a border of 1


def spread(values: np.ndarray, inside: np.ndarray, edge: np.ndarray, damping: float) -> np.ndarray:
    """Continue `values` [h,w,c] smoothly from `edge` [h,w] over `inside` [h,w], unchanged elsewhere.

    `edge` must surround `inside`, except at the array's border, where the gradient is 0. `damping` per
    px^2: 0 is the Laplace equation, 1/r^2 lets values fade over about r px.
    """
    if max(inside.shape) <= DIRECT:
        return _solve(values, inside, damping)
    half = (inside.shape[0] + 1) // 2, (inside.shape[1] + 1) // 2
    coarse = spread(*shrink(values, inside, edge, half), damping * 4)
    u = cv2.resize(coarse, inside.shape[::-1], interpolation=cv2.INTER_LINEAR).reshape(values.shape)
    outside = ~inside[..., None]
    np.copyto(u, values, where=outside)
    for _ in range(SWEEPS):
        u = cv2.filter2D(u, -1, CROSS / (4 + damping), borderType=cv2.BORDER_REPLICATE).reshape(values.shape)
        np.copyto(u, values, where=outside)
    return u


def shrink(
    values: np.ndarray, inside: np.ndarray, edge: np.ndarray, size: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The arguments of `spread` on a coarser grid (h, w): a cell with edge pixels is edge."""

    def area(array: np.ndarray) -> np.ndarray:
        return cv2.resize(array.astype(np.float32), size[::-1], interpolation=cv2.INTER_AREA)

    weight = area(edge)
    means = area(values * edge[..., None]).reshape(*size, -1) / np.maximum(weight, 1e-6)[..., None]
    return means, (area(inside) > 0) & (weight == 0), weight > 0


def _solve(values: np.ndarray, inside: np.ndarray, damping: float) -> np.ndarray:
    """The same on one grid: a sparse system with one unknown a pixel."""
    out, n = values.astype(np.float32), int(inside.sum())
    if n == 0:
        return out
    index = np.full(inside.shape, -1)
    index[inside] = np.arange(n)
    numbers = np.pad(index, 1, constant_values=-2)  # -1: a known pixel, -2: beyond the border
    known = np.pad(values, ((1, 1), (1, 1), (0, 0)))
    diagonal, right, links = np.full(n, damping), np.zeros((n, values.shape[2])), []
    for dy, dx in STEPS:
        window = slice(dy, dy + inside.shape[0]), slice(dx, dx + inside.shape[1])
        neighbour = numbers[window][inside]
        diagonal += neighbour != -2
        right += np.where((neighbour == -1)[:, None], known[window][inside], 0)
        links.append((np.flatnonzero(neighbour >= 0), neighbour[neighbour >= 0]))
    rows = np.concatenate([np.arange(n), *(row for row, _ in links)])
    columns = np.concatenate([np.arange(n), *(column for _, column in links)])
    entries = np.concatenate([diagonal, -np.ones(len(rows) - n)])
    matrix = coo_array((entries, (rows, columns)), shape=(n, n)).tocsc()
    out[inside] = spsolve(matrix, right).reshape(n, -1)
    return out
