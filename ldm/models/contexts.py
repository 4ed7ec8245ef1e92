"""What the UNet's cross-attention reads: a context [b,n,d], or in its place constants of one or many objects.

A batch may join the folded contexts of many objects.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import NamedTuple, Protocol, TypeAlias

import torch
from torch import Tensor

from ldm.models.folded import Folded, Layer, Share


class Constants(Protocol):
    """What stands for a context [b,n,d]: for b samples, what each cross-attention makes of hidden states."""

    def __len__(self) -> int: ...

    def attend(self, name: str, x: Tensor, heads: int) -> Tensor:
        """What the layer `name` makes of hidden states [b,N,C]."""

    def within(self, box: Share) -> Constants:
        """What a part of the picture sees of it."""

    def repeat(self, n: int) -> Constants:
        """Every sample n times, side by side."""

    def to(self, like: Tensor) -> Constants:
        """On the device and in the dtype of `like`."""


@dataclass(frozen=True, eq=False)
class Joined:
    """Contexts of consecutive samples of a batch, whatever their kinds and numbers of tokens."""

    pieces: Sequence[Constants]

    def __len__(self) -> int:
        return sum(map(len, self.pieces))

    def attend(self, name: str, x: Tensor, heads: int) -> Tensor:
        """What the layer `name` makes of hidden states [b,N,C]."""
        xs = x.split([len(piece) for piece in self.pieces])
        return torch.cat([piece.attend(name, x, heads) for piece, x in zip(self.pieces, xs, strict=True)])

    def within(self, box: Share) -> Joined:
        """What a part of the picture sees: of each piece its own."""
        return Joined([piece.within(box) for piece in self.pieces])

    def repeat(self, n: int) -> Joined:
        """Every sample n times, side by side."""
        return Joined([piece.repeat(n) for piece in self.pieces])

    def to(self, like: Tensor) -> Joined:
        """On the device and in the dtype of `like`."""
        return Joined([piece.to(like) for piece in self.pieces])


# What cross-attention reads: [b,n,d], or the constants of b samples.
Context: TypeAlias = Tensor | Constants


class Contexts(NamedTuple):
    """The two contexts of guidance."""

    conditional: Context
    unconditional: Context

    def repeat(self, n: int) -> Contexts:
        """Every sample n times, side by side."""
        a, b = (c.repeat_interleave(n, 0) if isinstance(c, Tensor) else c.repeat(n) for c in self)
        return Contexts(a, b)

    def to(self, like: Tensor) -> Contexts:
        """On the device and in the dtype of `like`."""
        return Contexts(self.conditional.to(like), self.unconditional.to(like))


def join(contexts: Sequence[Context]) -> Context:
    """One context for a batch of all their samples; neighbours of one kind and size are stacked."""
    tensors = [c for c in contexts if isinstance(c, Tensor)]
    if len(tensors) == len(contexts):
        return torch.cat(tensors)
    assert not tensors, "a batch of tensors and constants"
    parts = [part for c in contexts for part in (c.pieces if isinstance(c, Joined) else [c])]
    pieces = [piece for _, run in groupby(parts, key=_columns) for piece in _stacked(list(run))]
    return pieces[0] if len(pieces) == 1 else Joined(pieces)


def _columns(part: Constants) -> int:
    return part.columns if isinstance(part, Folded) else -1


def _stacked(run: Sequence[Constants]) -> Sequence[Constants]:
    """Neighbours of equal columns as one; what is not folded stays as it is."""
    same = [part for part in run if isinstance(part, Folded)]
    if len(same) < 2:
        return run
    rows = {name: zip(*(part.layers[name] for part in same), strict=True) for name in same[0].layers}
    return [Folded({name: Layer(*map(torch.cat, row)) for name, row in rows.items()})]
