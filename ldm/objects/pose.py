"""Which picture of an object is shown, and which of its few-shot tokens speaks."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ldm.data.image import from_bytes
from ldm.models.base import Base
from ldm.objects.delta import Delta

NEAREST = -1  # as a view: the few-shot picture that is most like the reference


class Pose(NamedTuple):
    """A reference as the base is shown it, and the few-shot token for all, see `Conditioner.view`."""

    reference: Tensor
    view: int


def pose_of(base: Base, delta: Delta, reference: Tensor, view: int, keep: bool = False) -> Pose:
    """`pose_among` the few-shot pictures that an object file has."""
    crops = None if delta.views is None or delta.tokens is None else from_bytes(delta.views)
    return pose_among(base, crops, reference, view, keep)


def pose_among(base: Base, crops: Tensor | None, reference: Tensor, view: int, keep: bool = False) -> Pose:
    """The pose of `view`, with its few-shot crop of [N,c,P,P] for reference unless `keep` is set.

    Without crops the reference stays, and NEAREST is 0, all tokens.
    """
    if view == NEAREST:
        view = 0 if crops is None else nearest_view(base, reference, crops)
    if crops is None or keep or not 0 < view <= len(crops):
        return Pose(reference, view)
    return Pose(crops[view - 1 : view], view)


@torch.no_grad()
def nearest_view(base: Base, reference: Tensor, crops: Tensor) -> int:
    """The number, from 1, of the crop [N,c,P,P] that CLIP finds most like the reference [1,c,P,P]."""
    own, others = (base.conditioner.look(each.to(base.device)) for each in (reference, crops))
    return 1 + int(F.cosine_similarity(own, others).argmax())
