"""Compare two versions of an object by what the UNet receives (context, K, V) and predicts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ldm.models.base import Base
from ldm.models.cross_attention import cross_attentions
from ldm.objects.apply import apply
from ldm.objects.delta import Delta
from ldm.objects.object_context import reference_of

MIDDLE = 500  # of the 1000 time steps


@dataclass(frozen=True)
class Effect:
    """Relative errors (Frobenius) of the context [1+N,d], and of K and V [1+N,c] in `layers`.

    `layers`: by `LAYER.to_k`, `LAYER.to_v`. `output`: of the predicted noise for one sample, all masked.
    """

    context: float
    output: float
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
    """The errors of `other` relative to `delta`, with a `reference` [1,c,P,P], by default the object's own.

    Raises ValueError as `apply` does, or if there is no reference.
    """
    reference = reference_of(delta) if reference is None else reference
    (context, layers, eps), (context_2, layers_2, eps_2) = (
        constants(base, each, reference, fingerprint) for each in (delta, other)
    )
    errors = {name: relative_error(layers_2[name], value) for name, value in layers.items()}
    return Effect(relative_error(context_2, context), relative_error(eps_2, eps), errors)


@torch.no_grad()
def constants(
    base: Base, delta: Delta, reference: Tensor, fingerprint: str = ""
) -> tuple[Tensor, dict[str, Tensor], Tensor]:
    """An object's context [1+N,d], K and V [1+N,c] of every layer, and the noise predicted for one sample."""
    a, g = base.architecture, torch.Generator().manual_seed(0)
    x_t = torch.randn(1, a.latent_channels, a.latent_size, a.latent_size, generator=g).to(base.device)
    with apply(base, delta, fingerprint=fingerprint):
        context = base.context(reference.to(base.device))[0]
        layers = {
            f"{name}.{projection}": getattr(layer, projection)(context)
            for name, layer in cross_attentions(base.unet)
            for projection in ("to_k", "to_v")
        }
        t = torch.tensor(MIDDLE, device=base.device)
        eps = base.eps(x_t, t, torch.zeros_like(x_t), torch.ones_like(x_t[:, :1]), context[None])
    return context, layers, eps


def relative_error(value: Tensor, truth: Tensor) -> float:
    """|value - truth| / |truth|, 0 if both are 0."""
    error, norm = float((value - truth).norm()), float(truth.norm())
    return error / norm if norm else float(error > 0)
