"""Apply an object's weights and tokens to a base in place, and remove them exactly."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType

import torch
from torch import Tensor

from ldm.models.base import Base, base_fingerprint
from ldm.models.state_dict import first_few
from ldm.objects.delta import TOKENS, Delta, is_trained
from ldm.objects.object_file import check_base


class AppliedObject:
    """A base with an object applied. `remove`, or the end of a `with` block, restores it bit by bit."""

    def __init__(self, base: Base, originals: Mapping[str, Tensor]) -> None:
        self.base, self.originals, self.active = base, originals, True

    def remove(self) -> None:
        """Restore the base exactly; a second call does nothing."""
        if self.active:
            _write(self.base, self.originals)
            self.base.conditioner.drop_few_shot()
        self.active = False

    def __enter__(self) -> AppliedObject:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.remove()


def apply(base: Base, delta: Delta, object_scale: float = 1.0, fingerprint: str = "") -> AppliedObject:
    """Change the base in place; `object_scale` scales the weights' differences, not the tokens.

    `fingerprint`: the base's, needed if its weights were cast since it was loaded. Raises ValueError, and
    changes nothing, if the object is for another base, does not fit, or another object is still applied.
    """
    check_fits(base, delta, fingerprint or base_fingerprint(base))
    weights = dict(base.named_parameters())
    originals = {name: weights[name].detach().clone() for name in delta.weights}
    _write(base, {name: delta.tuned(name, value, object_scale) for name, value in originals.items()})
    if delta.tokens is not None:
        base.conditioner.use_tokens(delta.tokens.to(weights["conditioner.proj_out.weight"]))
        base.conditioner.few_shot_tokens.requires_grad_(False)  # type: ignore[union-attr]
    return AppliedObject(base, originals)


def check_fits(base: Base, delta: Delta, fingerprint: str) -> None:
    """ValueError unless the object was made for a base of this fingerprint and fits into it."""
    conditioner = base.conditioner
    if conditioner.few_shot_tokens is not None or conditioner.prior_encoder is not None:
        raise ValueError("another object is applied to the base; remove it first")
    check_base(delta.metadata, fingerprint, base.architecture.name)
    own = {k: v.shape for k, v in base.named_parameters() if is_trained(k, "crossattn")}
    width = base.architecture.clip_width
    wrong = [name for name, value in delta.weights.items() if own.get(name) != value.shape]
    if delta.tokens is not None and (delta.tokens.ndim != 2 or delta.tokens.shape[1] != width):
        wrong.append(TOKENS)
    if wrong:
        raise ValueError(
            f"this object does not fit the base, in name or shape: {first_few(wrong)}; learn it on this base"
        )


@torch.no_grad()
def _write(base: Base, weights: Mapping[str, Tensor]) -> None:
    own = dict(base.named_parameters())
    for name, value in weights.items():
        own[name].copy_(value)
