"""The contact shadow of an object's layer, and detail transfer from the composite to the model's result.

Layers are [4,h,w]: colours times alpha in [-1,1], alpha in [0,1], see `ldm.compositing.composite`.
"""

from __future__ import annotations

import cv2
import numpy as np
import torch
from torch import Tensor

from ldm.insertion.blend import UNIT

SHADOW_HEIGHT = 0.14  # of the object's height
FOOT = 0.3  # of an object's height: its lowest part casts the shadow
EDGE = 0.02  # alpha below EDGE is scene, above 1 - EDGE object
FAINT = 1e-4  # added to weights: no change where no pixel of the area is near
SOFT = 0.035  # standard deviation of the shadow's edge, in the object's longer side


def with_contact_shadow(layer: Tensor, darkness: float) -> Tensor:
    """A layer with a soft contact shadow under its object, as in diffuse light: the flattened, blurred foot.

    `darkness`: the shadow's highest alpha, 0 to 1.
    """
    alpha = layer[3].numpy()
    if not darkness or not (alpha > 0.5).any():
        return layer
    rows, columns = (np.flatnonzero((alpha > 0.5).any(side)) for side in (1, 0))
    top, bottom = int(rows[0]), int(rows[-1]) + 1
    height, longer = bottom - top, max(bottom - top, int(np.ptp(columns)) + 1)
    foot = alpha[bottom - max(1, round(FOOT * height)) : bottom]
    flat_height = max(2, round(SHADOW_HEIGHT * height))
    flat = cv2.resize(foot, (alpha.shape[1], flat_height), interpolation=cv2.INTER_AREA)
    ground = np.zeros_like(alpha)
    first = bottom - len(flat) // 2  # half behind the foot, half in front
    visible = flat[: len(alpha) - first]
    ground[first : first + len(visible)] = visible
    blurred = cv2.GaussianBlur(ground, (0, 0), max(SOFT * longer, 0.5))
    black = torch.from_numpy(darkness * blurred / max(float(blurred.max()), 1e-6))[None]
    behind = (1 - layer[3:]) * black
    return layer + torch.cat([-behind.expand(3, -1, -1), behind])


def transfer_detail(start: Tensor, alpha: Tensor, change: Tensor, width: float) -> Tensor:
    """Apply the model's large-scale change to the full-resolution composite `start` [3,h,w].

    `alpha` [h,w] is the object's. `change` [3,S,S]: the model's result minus the autoencoder's reconstruction
    of the composite, that is light and colour. Only scales above `width`, in pixels of a region of UNIT, are
    changed; finer detail stays the composite's. Object and scene are smoothed separately, without their
    common edge, which the model blurs; of the scene only shadows are taken, as a neutral darkening.
    """
    sigma = width * change.shape[-1] / UNIT
    pixels = change.permute(1, 2, 0).numpy()
    own = cv2.resize(alpha.numpy(), pixels.shape[1::-1], interpolation=cv2.INTER_AREA)
    size, inside = start.shape[:0:-1], alpha.numpy()[..., None]
    on, off = (
        cv2.resize(smoothed_inside(pixels, area, sigma), size, interpolation=cv2.INTER_CUBIC)
        for area in (own > 1 - EDGE, own < EDGE)
    )
    large = inside * on + (1 - inside) * np.minimum(off.mean(2, keepdims=True), 0)
    low, high = min(float(start.min()), -1), max(float(start.max()), 1)  # beyond sRGB, as the scene is
    return (start + torch.from_numpy(large).permute(2, 0, 1)).clamp(low, high)


def smoothed_inside(pixels: np.ndarray, area: np.ndarray, sigma: float) -> np.ndarray:
    """Pixels float [h,w,c], smoothed over the interior of `area`, bool [h,w]; 0 far away from it."""
    core = cv2.erode(area.astype(np.float32), np.ones((3, 3)), borderType=cv2.BORDER_REPLICATE)
    weight, border = (core if core.any() else area.astype(np.float32))[..., None], cv2.BORDER_REPLICATE
    total = cv2.GaussianBlur(weight, (0, 0), sigma, borderType=border)[..., None]
    return cv2.GaussianBlur(weight * pixels, (0, 0), sigma, borderType=border) / (total + FAINT)
