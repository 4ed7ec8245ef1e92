"""An object and its reference => the contexts of the UNet's cross-attention."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ldm.data.image import from_bytes
from ldm.data.object_crops import ObjectImages
from ldm.models.base import Base
from ldm.models.cross_attention import Context, Contexts
from ldm.objects.delta import Delta


class ObjectView(NamedTuple):
    """An object's picture [1,c,P,P], and the number for `Conditioner.tokens_of_view`."""

    picture: Tensor
    token: int = 0


def view_of(
    images: ObjectImages, delta: Delta | None, reference: Tensor | None, view: int, *, keep: bool = True
) -> ObjectView:
    """The picture of an object and its few-shot token: of `reference` [1,c,P,P] or the object's own picture.

    `view`: see `ObjectImages.select`. `keep`: a given reference is used unchanged. Without an object (`delta`
    None) there are no few-shot tokens. ValueError if there is no picture.
    """
    if delta is None:
        assert reference is not None, "an object file or a reference"
        return ObjectView(reference)
    shown = reference_of(delta) if reference is None else reference
    few_shot = None if delta.views is None or delta.tokens is None else from_bytes(delta.views)
    return ObjectView(*images.select(few_shot, shown, view, keep=keep and reference is not None))


@torch.no_grad()
def object_contexts(base: Base, view: ObjectView, null: Context | None = None) -> Contexts:
    """The folded contexts of the object that is applied to `base`; `null`: see `null_context`."""
    return base.contexts(base.context(view.picture.to(base.device), view.token), null)


def null_context(base: Base, guidance_from: str) -> Context | None:
    """The base's unconditional context, or None for the object's; call it before the object is applied.

    "object", as in the paper: tuned weights draw the object even unconditionally. "base": guidance then
    points away from the untuned base, towards all that was learnt (Karras et al. 2024 guide by a worse
    model).
    """
    return base.null() if guidance_from == "base" else None


def reference_of(delta: Delta) -> Tensor:
    """The object's own reference [1,c,P,P]; ValueError if the file has none."""
    if delta.reference is None:
        raise ValueError("this object file has no reference picture; extract it again from its run")
    return from_bytes(delta.reference[None])
