"""Cut-outs of one object, photographed in different lights, as in one: that which they have in common.

A cut-out is [4,P,P], see `ldm.compositing.composite`. Its light is the mean colour of its object, of each channel on
its own, so that exposure and white balance are one gain a channel (von Kries). What all views have in common
is their geometric mean: a photo at night or under a blue sky tells less than the object's other photos do.
"""

from __future__ import annotations

import torch
from torch import Tensor

GAMMA = 2.2  # of pictures; light adds up and is scaled without it
DARK = 0.02  # of white: a channel darker than this in a photo says little about its light
SOLID = 0.9  # of the highest alpha: what surely is the object
MOST = 4.0  # times that a channel is brightened or darkened at most
FAINT = 1e-3  # alpha below which a colour cannot be told


def balanced(cut_outs: Tensor, views: Tensor) -> Tensor:
    """Cut-outs [n,4,P,P] in the light that an object's views [N,4,P,P] have in common.

    An empty one stays as it is and has no say. Pictures without alpha, [n,3,P,P], are left as they are: what
    of them is the object is not known.
    """
    if cut_outs.shape[1] != 4 or views.shape[1] != 4:
        return cut_outs
    known = [mean_light(view) for view in views if _seen(view)]
    if not known:
        return cut_outs
    common = torch.stack(known).log().mean(0)
    return torch.stack(
        [_scaled(x, (common - mean_light(x).log()).exp()) if _seen(x) else x for x in cut_outs]
    )


def mean_light(cut_out: Tensor) -> Tensor:
    """The mean of its object [3], linear, of white 1, and DARK added; of a cut-out that is not empty."""
    alpha = cut_out[3]
    solid = alpha > SOLID * alpha.max()
    return DARK + _linear(cut_out[:3, solid] / alpha[solid]).mean(1)


def _seen(cut_out: Tensor) -> bool:
    return bool(cut_out[3].max() > FAINT)


def _scaled(cut_out: Tensor, gain: Tensor) -> Tensor:
    alpha = cut_out[3:]
    light = _linear(cut_out[:3] / alpha.clamp_min(FAINT)) * gain.clamp(1 / MOST, MOST)[:, None, None]
    return torch.cat([(light.clamp(0, 1) ** (1 / GAMMA) * 2 - 1) * alpha, alpha])


def _linear(colours: Tensor) -> Tensor:
    return ((colours.clamp(-1, 1) + 1) / 2) ** GAMMA
