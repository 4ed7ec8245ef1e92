"""What the UNet's cross-attention reads: a context [b,n,d], or in its place constants of one or many objects.

A batch may join the folded contexts of many objects, a picture may hold several, each in its own region.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import NamedTuple, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from ldm.models.collage import Collage
from ldm.models.folded import Folded, Layer


@dataclass(frozen=True, eq=False)
class Regional:
    """Several objects in one picture, each in its own region, for b samples; the rest sees `rest`.

    `masks` [k,H,W] in [0,1] cover the picture; where they overlap, objects share by weight.
    """

    masks: Tensor
    objects: Sequence[Folded]
    rest: Folded
    made: dict[tuple[int, torch.dtype], Tensor] = field(default_factory=dict, init=False, repr=False)

    def __len__(self) -> int:
        return len(self.rest)

    def attend(self, name: str, x: Tensor, heads: int) -> Tensor:
        """What the layer `name` makes of hidden states [b,N,C], each position by its object."""
        first, *others = self.weights(x)
        out = first * self.rest.attend(name, x, heads)
        for weight, one in zip(others, self.objects, strict=True):
            out = out + weight * one.attend(name, x, heads)
        return out

    def repeat(self, n: int) -> Regional:
        """Every sample n times, side by side."""
        return Regional(self.masks, [one.repeat(n) for one in self.objects], self.rest.repeat(n))

    def to(self, like: Tensor) -> Regional:
        """On the device and in the dtype of `like`."""
        return Regional(self.masks.to(like), [one.to(like) for one in self.objects], self.rest.to(like))

    def weights(self, x: Tensor) -> Tensor:
        """Shares of the rest and of each object at x [b,N,C], [1+k,N,1]; scaled once a resolution."""
        if torch.compiler.is_compiling():  # what a CUDA graph makes may not be kept
            return self._scaled(x)
        key = (x.shape[1], x.dtype)
        if key not in self.made:
            self.made[key] = self._scaled(x)
        return self.made[key]

    def _scaled(self, x: Tensor) -> Tensor:
        height, width = self.masks.shape[-2:]
        h = round((x.shape[1] * height / width) ** 0.5)
        small = F.interpolate(self.masks[None], size=(h, x.shape[1] // h), mode="area")[0].flatten(1)
        own = (small / small.sum(0).clamp(min=1)).to(x)
        return torch.cat([1 - own.sum(0, keepdim=True), own])[..., None]


@dataclass(frozen=True, eq=False)
class Joined:
    """Contexts of consecutive samples of a batch, whatever their kinds and numbers of tokens."""

    pieces: Sequence[Folded | Regional]

    def __len__(self) -> int:
        return sum(map(len, self.pieces))

    def attend(self, name: str, x: Tensor, heads: int) -> Tensor:
        """What the layer `name` makes of hidden states [b,N,C]."""
        xs = x.split([len(piece) for piece in self.pieces])
        return torch.cat([piece.attend(name, x, heads) for piece, x in zip(self.pieces, xs, strict=True)])

    def repeat(self, n: int) -> Joined:
        """Every sample n times, side by side."""
        return Joined([piece.repeat(n) for piece in self.pieces])

    def to(self, like: Tensor) -> Joined:
        """On the device and in the dtype of `like`."""
        return Joined([piece.to(like) for piece in self.pieces])


# What cross-attention reads: [b,n,d], or the constants of b samples.
Context: TypeAlias = Tensor | Folded | Regional | Joined


class Contexts(NamedTuple):
    """The two contexts of guidance, and what a base of collages is shown of the object."""

    conditional: Context
    unconditional: Context
    collage: Collage | None = None

    def repeat(self, n: int) -> Contexts:
        """Every sample n times, side by side."""
        a, b = (c.repeat_interleave(n, 0) if isinstance(c, Tensor) else c.repeat(n) for c in self[:2])
        return Contexts(a, b, self.collage)

    def to(self, like: Tensor) -> Contexts:
        """On the device and in the dtype of `like`."""
        return Contexts(self.conditional.to(like), self.unconditional.to(like), self.collage)


def join(contexts: Sequence[Context]) -> Context:
    """One context for a batch of all their samples; neighbours of one kind and size are stacked."""
    tensors = [c for c in contexts if isinstance(c, Tensor)]
    if len(tensors) == len(contexts):
        return torch.cat(tensors)
    assert not tensors, "a batch of tensors and constants"
    parts = [part for c in contexts for part in (c.pieces if isinstance(c, Joined) else [c])]
    pieces = [piece for _, run in groupby(parts, key=_columns) for piece in _stacked(list(run))]
    return pieces[0] if len(pieces) == 1 else Joined(pieces)


def _columns(part: Folded | Regional) -> int:
    return part.columns if isinstance(part, Folded) else -1


def _stacked(run: Sequence[Folded | Regional]) -> Sequence[Folded | Regional]:
    """Neighbours of equal columns as one; regions stay as they are."""
    same = [part for part in run if isinstance(part, Folded)]
    if len(same) < 2:
        return run
    rows = {name: zip(*(part.layers[name] for part in same), strict=True) for name in same[0].layers}
    return [Folded({name: Layer(*map(torch.cat, row)) for name, row in rows.items()})]
