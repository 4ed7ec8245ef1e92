"""Several objects in one denoising pass, each in its own region: their contexts joined to one.

Outside all regions the UNet sees the objects' mean unconditional context, in both halves of guidance.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from ldm.insertion.region import InsertableObject
from ldm.models.cross_attention import Constants, Context, Contexts, Folded, Layer, Share


def in_regions(objects: Sequence[InsertableObject], masks: Tensor) -> InsertableObject:
    """Objects of one sample each, and their masks [k,h,w] in [0,1] => one object."""
    contexts = [one.contexts for one in objects]
    conditional, unconditional = ([_folded(c[half]) for c in contexts] for half in (0, 1))
    rest = _mean(unconditional)
    on_device = masks.to(rest.device)  # every layer reads them at every step; fills compute on the CPU
    halves = Regional(on_device, conditional, rest), Regional(on_device, unconditional, rest)
    first, *others = (one.fill for one in objects)
    return InsertableObject(Contexts(*halves), first.joined(others, masks))


@dataclass(frozen=True, eq=False)
class Regional:
    """The contexts of several objects, each for its own region, for b samples; other positions use `rest`.

    `masks` [k,H,W] in [0,1] cover the picture; where they overlap, objects share by weight.
    """

    masks: Tensor
    objects: Sequence[Constants]
    rest: Constants

    def __len__(self) -> int:
        return len(self.rest)

    def attend(self, name: str, x: Tensor, heads: int) -> Tensor:
        """Cross-attention of the layer `name` on hidden states [b,N,C], each position with its object."""
        first, *others = self.weights(x)
        out = first * self.rest.attend(name, x, heads)
        for weight, one in zip(others, self.objects, strict=True):
            out = out + weight * one.attend(name, x, heads)
        return out

    def within(self, box: Share) -> Regional:
        height, width = self.masks.shape[-2:]
        rows, columns = _cells(box[0], box[2], height), _cells(box[1], box[3], width)
        return replace(self, masks=self.masks[:, rows, columns])

    def repeat(self, n: int) -> Regional:
        return Regional(self.masks, [one.repeat(n) for one in self.objects], self.rest.repeat(n))

    def to(self, like: Tensor) -> Regional:
        return Regional(self.masks.to(like), [one.to(like) for one in self.objects], self.rest.to(like))

    def weights(self, x: Tensor) -> Tensor:
        """Shares of the rest and of each object at x [b,N,C], [1+k,N,1]."""
        height, width = self.masks.shape[-2:]
        h = round((x.shape[1] * height / width) ** 0.5)
        small = F.interpolate(self.masks[None], size=(h, x.shape[1] // h), mode="area")[0].flatten(1)
        own = (small / small.sum(0).clamp(min=1)).to(x)
        return torch.cat([1 - own.sum(0, keepdim=True), own])[..., None]


def _cells(start: float, stop: float, length: int) -> slice:
    """The cells of a side that a span covers; their number is the same in every place."""
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
