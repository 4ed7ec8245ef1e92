"""What an object gives the UNet, and how far another one is from giving the same."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ldm.data.image import from_bytes
from ldm.models.attention import cross_attentions
from ldm.models.base import Base
from ldm.objects.delta import Delta, apply


@dataclass(frozen=True)
class Effect:
    """Relative errors (Frobenius): of the context [1+N,d]; of K and V [1+N,c] by `layer.to_k`, `.to_v`."""

    context: float
    layers: Mapping[str, float]

    @property
    def worst(self) -> float:
        """The largest error of any layer's K or V."""
        return max(self.layers.values())

    @property
    def mean(self) -> float:
        """The mean error of all layers' K and V."""
        return sum(self.layers.values()) / len(self.layers)


def effect(
    base: Base, delta: Delta, other: Delta, reference: Tensor | None = None, fingerprint: str = ""
) -> Effect:
    """How `other` differs from `delta` in what the UNet's cross-attention sees of the object.

    `reference` [1,3,R,R] in [-1,1], by default the object's own. Raises ValueError as `apply` does, or if
    there is no reference.
    """
    reference = reference_of(delta) if reference is None else reference
    (context, layers), (context_2, layers_2) = (
        constants(base, each, reference, fingerprint) for each in (delta, other)
    )
    errors = {name: relative_error(layers_2[name], value) for name, value in layers.items()}
    return Effect(relative_error(context_2, context), errors)


@torch.no_grad()
def constants(
    base: Base, delta: Delta, reference: Tensor, fingerprint: str = ""
) -> tuple[Tensor, dict[str, Tensor]]:
    """The object's context [1+N,d], and K and V [1+N,c] of every layer, made of it by the tuned weights."""
    with apply(base, delta, fingerprint=fingerprint):
        context = base.context(reference.to(base.device))[0]
        layers = {
            f"{name}.{projection}": getattr(layer, projection)(context)
            for name, layer in cross_attentions(base.unet)
            for projection in ("to_k", "to_v")
        }
    return context, layers


def reference_of(delta: Delta) -> Tensor:
    """The reference picture that came with the object: [1,3,R,R] in [-1,1]; ValueError if there is none."""
    if delta.reference is None:
        raise ValueError("this object came without a reference picture; extract it again from its run")
    return from_bytes(delta.reference[None])


def relative_error(value: Tensor, truth: Tensor) -> float:
    """|value - truth| / |truth|, 0 if both are 0."""
    error, norm = float((value - truth).norm()), float(truth.norm())
    return error / norm if norm else float(error > 0)
