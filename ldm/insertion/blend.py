"""Blend an inpainted region into its background, inside the mask only, and measure how visible the seam is.

`BLENDS` is the table of blends. All of it happens in one region at the background's resolution: images are
float [3,h,w] in [-1,1] on the CPU, `mask` is bool [h,w], `alpha` float [h,w] in [0,1] and exactly 0 outside
the mask. `generated` covers the whole region. Outside the mask it is the model's reconstruction of known
pixels; the difference there is the model's error, and is used to correct the colours inside.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch
from einops import rearrange
from scipy.sparse import coo_array
from scipy.sparse.linalg import spsolve
from torch import Tensor

DIRECT = 128  # px: grids up to this side are solved directly
SWEEPS = 12  # relaxations on each finer grid; the error left there is high-frequency, so few suffice
CROSS = np.array([[0, 1, 0], [1, 0, 1], [0, 1, 0]], np.float32)
STEPS = ((0, 1), (2, 1), (1, 0), (1, 2))  # the four neighbours, in an array with a border of 1


def continued(values: np.ndarray, inside: np.ndarray, edge: np.ndarray, damping: float) -> np.ndarray:
    """Continue `values` [h,w,c] smoothly from `edge` [h,w] over `inside` [h,w], unchanged elsewhere.

    `edge` must surround `inside`, except at the array's border, where the gradient is 0. `damping` per
    px^2: 0 is the Laplace equation, 1/r^2 lets values fade over about r px.
    """
    if max(inside.shape) <= DIRECT:
        return _solve(values, inside, damping)
    half = (inside.shape[0] + 1) // 2, (inside.shape[1] + 1) // 2
    coarse = continued(*coarsened(values, inside, edge, half), damping * 4)
    u = cv2.resize(coarse, inside.shape[::-1], interpolation=cv2.INTER_LINEAR).reshape(values.shape)
    outside = ~inside[..., None]
    np.copyto(u, values, where=outside)
    for _ in range(SWEEPS):
        u = cv2.filter2D(u, -1, CROSS / (4 + damping), borderType=cv2.BORDER_REPLICATE).reshape(values.shape)
        np.copyto(u, values, where=outside)
    return u


def coarsened(
    values: np.ndarray, inside: np.ndarray, edge: np.ndarray, size: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The arguments of `continued` on a coarser grid (h, w): a cell with edge pixels is edge."""

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


UNIT = 512  # lengths in `Blend` are pixels of a region of this side, and grow with larger regions
LOW_PASS = 4  # px: the offset along the edge is smoothed by this, so that it is colour and not texture
STRAY = 0.05  # a difference of this size weighs half: likely an object crosses the edge


@dataclass(frozen=True)
class Blend:
    """How the seam is blended; 0 turns a part off. Lengths are pixels of a 512-px region.

    `feather`: width of the transition inside the mask. `reach`: how deep the edge's colour offset is spread
    into the mask (inf: through all of it). `paper_blur`: width of the blurred band of the paper's code, in
    pixels of the background; only the half inside the mask is blurred.
    """

    feather: float = 0
    reach: float = 0
    paper_blur: int = 0


BLENDS = {
    "paste": Blend(),
    "membrane": Blend(feather=8, reach=64),
    "paper": Blend(paper_blur=7),
}


def blend_named(name: str, feather: float = -1, reach: float = -1) -> Blend:
    """One of BLENDS, with `feather` and `reach` in place of its own if they are 0 or more."""
    own = BLENDS[name]
    feather = feather if feather >= 0 else own.feather
    reach = reach if reach >= 0 else own.reach
    return replace(own, feather=feather, reach=reach)


def blend(
    background: Tensor, generated: Tensor, mask: np.ndarray, options: Blend
) -> tuple[Tensor, np.ndarray]:
    """The image to paste, [3,h,w], and its alpha [h,w], 0 outside the mask."""
    unit, image = pixel_unit(mask), generated
    if options.reach:
        image = membrane(background, image, mask, options.reach * unit, smooth=LOW_PASS * unit)
    if options.paper_blur:
        blurred = paper_blur(composite(background, image, mask), mask, options.paper_blur)
        image = torch.where(torch.from_numpy(mask), blurred, image)
    return image, feather(mask, options.feather * unit)


def composite(background: Tensor, image: Tensor, alpha: np.ndarray) -> Tensor:
    """background + alpha * (image - background), [3,h,w]; where alpha [h,w] is 0 nothing changes."""
    weight = torch.from_numpy(alpha).to(background)
    return torch.where(weight > 0, background + weight * (image - background), background)


def feather(mask: np.ndarray, radius: float) -> np.ndarray:
    """Alpha that rises smoothly inside the mask, away from its edge, and is 1 from `radius` px on."""
    rise = depth(mask)
    for row in rise:  # in place: of a mask of 100 megapixels a copy is 400 MB
        np.clip(row / max(radius, 1), 0, 1, out=row)
        row *= row * (3 - 2 * row)
    return rise


def membrane(
    background: Tensor, generated: Tensor, mask: np.ndarray, reach: float, smooth: float = LOW_PASS
) -> Tensor:
    """Add the colour offset along the mask's edge, smoothed over `smooth` px and spread inside.

    A membrane held at the edge: the Laplace equation, damped so that the offset fades over `reach` px and the
    object keeps its own colours (inf: undamped, as in Poisson editing of Perez et al. 2003).
    Outside the mask the smoothed offset itself is added: what is left there is the remaining error.
    """
    if mask.all() or not mask.any():
        return generated
    offset, inside, edge = _hwc(background - generated), mask, ring(mask, max(2 * smooth, 2))
    cell = max(1, int(smooth / LOW_PASS))  # what is smoothed that much needs no finer grid
    if cell > 1:
        coarse = mask.shape[0] // cell, mask.shape[1] // cell
        offset, inside, edge = coarsened(offset, inside, edge, coarse)
    lift = continued(_smoothed(offset, edge, smooth / cell), inside, edge, (cell / reach) ** 2)
    lift = cv2.resize(lift, mask.shape[::-1], interpolation=cv2.INTER_LINEAR)
    return generated + torch.from_numpy(rearrange(lift, "h w c -> c h w")).to(generated)


def paper_blur(image: Tensor, mask: np.ndarray, width: int = 7) -> Tensor:
    """Blur a composite in a band of `width` px about the mask's edge like the paper's code, inside only.

    Of 7 px, 3 are inside. The paper's code blurs those outside, too; here they stay as they are.
    """
    blurred = cv2.GaussianBlur(_hwc(image), (width | 1, width | 1), 0)
    band = mask & (depth(mask) <= width // 2)
    return torch.where(torch.from_numpy(band), torch.from_numpy(rearrange(blurred, "h w c -> c h w")), image)


def pixel_unit(mask: np.ndarray) -> float:
    """How many pixels of this region [h,w] make one pixel of a 512-px region."""
    return max(mask.shape) / UNIT


def depth(mask: np.ndarray) -> np.ndarray:
    """Distance of every pixel to the next one outside the mask, in px: 0 outside, 1 along the edge."""
    return cv2.distanceTransform(mask.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)


def ring(mask: np.ndarray, width: float) -> np.ndarray:
    """The pixels outside the mask that are at most `width` px away from it."""
    return ~mask & (depth(~mask) <= width)


def _smoothed(values: np.ndarray, where: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian mean of `values` [h,w,3] over `where` alone; large values weigh less."""
    stray = (values - np.median(values[where], axis=0)) / STRAY
    weight = where / (1 + (stray**2).mean(axis=2))
    sums = cv2.GaussianBlur((values * weight[..., None]).astype(np.float32), (0, 0), sigma)
    total = cv2.GaussianBlur(weight.astype(np.float32), (0, 0), sigma)
    return sums / np.maximum(total, 1e-6)[..., None]


def _hwc(image: Tensor) -> np.ndarray:
    return np.ascontiguousarray(rearrange(image, "c h w -> h w c").numpy(), np.float32)


RING = 8  # px: width of the ring around the mask that a seam is compared with
FLOOR = 0.5 / 127.5  # half an 8-bit level: the smallest gradient that the ring is taken to have


def seam_ratio(image: Tensor, mask: np.ndarray, width: float = RING) -> float:
    """Gradient across the mask's edge over that in a ring of `width` px outside it; about 1 is no seam.

    `image` [3,h,w] in [-1,1], `mask` bool [h,w]. Mean absolute difference of neighbours: pairs with one pixel
    inside, against pairs with both in the ring.
    """
    around = ring(mask, max(width * pixel_unit(mask), 1))
    across, beside = [], []
    for axis in (0, 1):
        steps = np.abs(np.diff(image.numpy(), axis=axis + 1)).mean(axis=0)
        low, high = _pairs(mask, axis)
        across.append(steps[low != high])
        low, high = _pairs(around, axis)
        beside.append(steps[low & high])
    if not any(len(steps) for steps in across):
        return 1.0  # all of it is masked: there is no edge
    return _mean(across) / max(_mean(beside), FLOOR)


def colour_offset(background: Tensor, generated: Tensor, mask: np.ndarray) -> float:
    """Colour offset on the ring outside the mask: largest mean difference of a channel, in 8-bit levels."""
    around = ring(mask, max(RING * pixel_unit(mask), 1))
    if not around.any():
        return 0.0
    return float(np.abs((generated - background).numpy()[:, around].mean(axis=1)).max() * 127.5)


def _pairs(mask: np.ndarray, axis: int) -> tuple[np.ndarray, np.ndarray]:
    return (mask[:-1], mask[1:]) if axis == 0 else (mask[:, :-1], mask[:, 1:])


def _mean(parts: list[np.ndarray]) -> float:
    values = np.concatenate(parts)
    return float(values.mean()) if len(values) else 0.0
