"""An object's layer in a scene: a contact shadow at its foot, and the detail that a small model would blur.

Layers are [4,h,w]: colours times alpha in [-1,1], alpha in [0,1], see `ldm.compositing.composite`.
"""

from __future__ import annotations

import cv2
import numpy as np
import torch
from torch import Tensor

from ldm.insertion.blend import UNIT

FLATTENED = 0.14  # height of a shadow on the ground, in heights of its object
FOOT = 0.3  # of an object's height: what of it casts the shadow
EDGE = 0.02  # of alpha: less is scene, and as much less than 1 is still object
FAINT = 1e-4  # weight below which nothing near says how to change
SOFT = 0.035  # standard deviation of a shadow's edge, in the object's longer side


def with_contact_shadow(layer: Tensor, darkness: float) -> Tensor:
    """A layer with a soft contact shadow under its object, as under an even sky: its foot laid on the ground.

    `darkness`: alpha of the black at its deepest, 0 to 1.
    """
    alpha = layer[3].numpy()
    if not darkness or not (alpha > 0.5).any():
        return layer
    rows, columns = (np.flatnonzero((alpha > 0.5).any(side)) for side in (1, 0))
    top, bottom = int(rows[0]), int(rows[-1]) + 1
    height, longer = bottom - top, max(bottom - top, int(np.ptp(columns)) + 1)
    foot = alpha[bottom - max(1, round(FOOT * height)) : bottom]
    flat = cv2.resize(foot, (alpha.shape[1], max(2, round(FLATTENED * height))), interpolation=cv2.INTER_AREA)
    ground = np.zeros_like(alpha)
    first = bottom - len(flat) // 2  # half of it behind the foot, half before it
    visible = flat[: len(alpha) - first]
    ground[first : first + len(visible)] = visible
    blurred = cv2.GaussianBlur(ground, (0, 0), max(SOFT * longer, 0.5))
    black = torch.from_numpy(darkness * blurred / max(float(blurred.max()), 1e-6))[None]
    behind = (1 - layer[3:]) * black
    return layer + torch.cat([-behind.expand(3, -1, -1), behind])


def transfer_detail(start: Tensor, alpha: Tensor, change: Tensor, width: float) -> Tensor:
    """A scene with an object laid in, `start` [3,h,w], changed as the model changed its coarser view of it.

    `alpha` [h,w] is the object's. `change` [3,S,S] is what the model made of the scene, minus what its
    autoencoder makes of it: light, colour. It counts at scales above `width`, pixels of a region of UNIT;
    what is finer stays as it is. Object and scene do not mix, their common edge, which the model blurs, has
    no say, and of the scene only shadows count: a neutral darkening.
    """
    sigma = width * change.shape[-1] / UNIT
    pixels = change.permute(1, 2, 0).numpy()
    own = cv2.resize(alpha.numpy(), pixels.shape[1::-1], interpolation=cv2.INTER_AREA)
    size, inside = start.shape[:0:-1], alpha.numpy()[..., None]
    on, off = (
        cv2.resize(smoothed_inside(pixels, part, sigma), size, interpolation=cv2.INTER_CUBIC)
        for part in (own > 1 - EDGE, own < EDGE)
    )
    large = inside * on + (1 - inside) * np.minimum(off.mean(2, keepdims=True), 0)
    return (start + torch.from_numpy(large).permute(2, 0, 1)).clamp(-1, 1)


def smoothed_inside(pixels: np.ndarray, part: np.ndarray, sigma: float) -> np.ndarray:
    """Pixels float [h,w,c], smoothed by what lies well inside `part`, bool [h,w]; 0 far away from it."""
    core = cv2.erode(part.astype(np.float32), np.ones((3, 3)), borderType=cv2.BORDER_REPLICATE)
    weight, border = (core if core.any() else part.astype(np.float32))[..., None], cv2.BORDER_REPLICATE
    total = cv2.GaussianBlur(weight, (0, 0), sigma, borderType=border)[..., None]
    return cv2.GaussianBlur(weight * pixels, (0, 0), sigma, borderType=border) / (total + FAINT)
