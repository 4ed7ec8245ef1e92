"""Which picture of an object is shown, in which light, and which of its few-shot tokens speaks."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from ldm.data.image import from_bytes
from ldm.data.light import in_common_light
from ldm.data.visible import most_alike
from ldm.objects.delta import Delta

NEAREST = -1  # as a view: the token of the few-shot picture that is most like the reference, which stays


class Pose(NamedTuple):
    """A reference as the base is shown it, and the few-shot token for all, see `Conditioner.view`."""

    reference: Tensor
    view: int


def pose_of(delta: Delta, reference: Tensor, view: int, keep: bool = False) -> Pose:
    """`pose_among` the few-shot pictures that an object file has."""
    crops = None if delta.views is None or delta.tokens is None else from_bytes(delta.views)
    return pose_among(crops, reference, view, keep)


def pose_among(crops: Tensor | None, reference: Tensor, view: int, keep: bool = False) -> Pose:
    """The pose of `view`, with its few-shot crop of [N,c,P,P] for reference unless `keep` is set.

    What is shown is in the light that the crops have in common; a reference that is to be kept is shown as it
    is. Without crops the reference stays, and NEAREST is 0, all tokens.
    """
    if crops is None:
        return Pose(reference, 0 if view == NEAREST else view)
    lit, crops = in_common_light(reference, crops), in_common_light(crops, crops)
    if not keep:
        reference = lit
    if view == NEAREST:
        return Pose(reference, nearest_view(lit, crops))
    if keep or not 0 < view <= len(crops):
        return Pose(reference, view)
    return Pose(crops[view - 1 : view], view)


def nearest_view(reference: Tensor, crops: Tensor) -> int:
    """The number, from 1, of the crop [N,c,P,P] that is most like the reference [1,c,P,P]."""
    return 1 + most_alike(reference[0], crops)
