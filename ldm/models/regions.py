"""Several objects in one picture, each in its own region: their contexts as one, for one denoising pass.

Outside all regions the UNet sees the objects' mean unconditional context, in both halves of guidance.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from ldm.models.collage import Collage
from ldm.models.contexts import Context, Contexts, Joined, Regional
from ldm.models.folded import Folded, Layer

Share = tuple[float, float, float, float]  # y0, x0, y1, x1 of a box, in sides of the picture


def in_regions(contexts: Sequence[Contexts], masks: Tensor) -> Contexts:
    """Each object's folded contexts, of one sample, and where it goes, [k,H,W] in [0,1] => those of all."""
    conditional, unconditional = ([_folded(c[half]) for c in contexts] for half in (0, 1))
    rest = _mean(unconditional)
    halves = Regional(masks, conditional, rest), Regional(masks, unconditional, rest)
    shown = [c.collage.references for c in contexts if c.collage is not None]
    return Contexts(*halves, Collage(torch.cat(shown), masks) if shown else None)


def seen_in(context: Context, box: Share) -> Context:
    """What a part of the picture sees of a context: its own piece of regions, all of anything else."""
    if isinstance(context, Joined):
        pieces = [seen_in(piece, box) for piece in context.pieces]
        return Joined([piece for piece in pieces if isinstance(piece, Folded | Regional)])
    if not isinstance(context, Regional):
        return context
    height, width = context.masks.shape[-2:]
    rows, columns = _cells(box[0], box[2], height), _cells(box[1], box[3], width)
    return replace(context, masks=context.masks[:, rows, columns])


def _cells(start: float, stop: float, length: int) -> slice:
    """The cells of a side that a span covers: equally many wherever it lies, so that squares stay square."""
    count = max(round((stop - start) * length), 1)
    first = min(round(start * length), length - count)
    return slice(first, first + count)


def _mean(constants: Sequence[Folded]) -> Folded:
    """The mean of contexts that are the same in every position."""
    assert not any(one.columns for one in constants), "unconditional contexts are constants"
    first = constants[0].layers
    means = {name: torch.stack([one.layers[name].bias for one in constants]).mean(0) for name in first}
    return Folded({name: Layer(first[name].scores, first[name].values, means[name]) for name in first})


def _folded(context: Context) -> Folded:
    assert isinstance(context, Folded), "objects are folded before they share a picture"
    return context
