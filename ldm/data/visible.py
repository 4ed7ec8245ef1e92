"""What of a picture on mid-grey is an object.

Pictures are [c,h,w] in [-1,1], c = 3, or 4 with alpha in [0,1].
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

VISIBLE = 0.02  # what differs from mid-grey, or from transparent, by so much is part of the object
COARSE = 16  # pixels a side at which pictures are compared


def visible(picture: Tensor) -> Tensor:
    """The part [c,h,w] of a picture [c,R,R] that is not mid-grey; all of one that is nothing else."""
    x0, y0, x1, y1 = box_in((picture.abs() > VISIBLE).any(0))
    return picture[:, y0:y1, x0:x1] if x1 > x0 else picture


def box_in(mask: Tensor) -> tuple[int, int, int, int]:
    """The box x0 y0 x1 y1 of what is set in a mask [H,W]; 0 0 0 0 if nothing is."""
    rows, columns = (mask.any(side).nonzero().flatten() for side in (1, 0))
    if not len(rows):
        return 0, 0, 0, 0
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def most_alike(picture: Tensor, others: Tensor) -> int:
    """The number, from 0, of the one of [N,c,P,P] whose shape and colours are most like those of [c,P,P].

    Each one's object fills a square that is seen coarsely: what is where in it, not how large it is or how it
    is drawn. A CLIP as small as mini's finds all views of an object alike.
    """
    channels = min(len(picture), others.shape[1])
    own, theirs = _coarse(picture[:channels]), torch.stack([_coarse(x[:channels]) for x in others])
    return int((theirs - own).square().mean((1, 2, 3)).argmin())


def _coarse(picture: Tensor) -> Tensor:
    seen = visible(picture)[None]
    return F.interpolate(seen, size=(COARSE, COARSE), mode="bilinear", antialias=True)[0]
