"""An object and its reference => what the UNet's cross-attention reads: the one place where that is made."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ldm.data.image import from_bytes
from ldm.data.object_crops import ObjectImages
from ldm.models.base import Base
from ldm.models.context import Context, Contexts
from ldm.objects.delta import Delta


class ObjectView(NamedTuple):
    """The picture [1,c,P,P] that an object is shown by, and the few-shot token for all, see `Conditioner.view`."""

    picture: Tensor
    token: int = 0


def view_of(
    images: ObjectImages, delta: Delta | None, reference: Tensor | None, view: int, *, keep: bool = True
) -> ObjectView:
    """How an object is shown: by `reference` [1,c,P,P] or its own; `view`: see `ObjectImages.select`.

    `keep`: a reference that is given is shown as it is.
    Without an object there are no few-shot tokens to choose from. ValueError if there is no picture at all.
    """
    if delta is None:
        assert reference is not None, "an object file or a reference"
        return ObjectView(reference)
    shown = reference_of(delta) if reference is None else reference
    few_shot = None if delta.views is None or delta.tokens is None else from_bytes(delta.views)
    return ObjectView(*images.select(few_shot, shown, view, keep=keep and reference is not None))


@torch.no_grad()
def object_contexts(base: Base, view: ObjectView, null: Context | None = None) -> Contexts:
    """The folded contexts of the object that `base` carries now; `null`: see `null_context`."""
    return base.contexts(base.context(view.picture.to(base.device), view.token), null)


def null_context(base: Base, guidance_from: str) -> Context | None:
    """The unconditional context if it is to be the base's own: ask before the base carries an object.

    None: the object's, whose weights draw the object without being told to, as in the paper. Away from the
    base's, guidance goes towards all that was learnt (as Karras et al. 2024 guide by a worse model).
    """
    return base.null() if guidance_from == "base" else None


def reference_of(delta: Delta) -> Tensor:
    """The reference picture that came with the object: [1,c,P,P]; ValueError if there is none."""
    if delta.reference is None:
        raise ValueError("this object came without a reference picture; extract it again from its run")
    return from_bytes(delta.reference[None])
