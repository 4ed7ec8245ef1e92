"""Weights in the layout of the CPU's kernels, kept from call to call: oneDNN makes it anew at every one.

At a UNet's lower levels that takes longer than the multiplication. PyTorch's compiler does the same when it
freezes a model; its operators are used here without the minutes that compiling takes.
"""

from __future__ import annotations

from collections.abc import Set
from functools import cache
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

Layer = TypeVar("Layer", nn.Linear, nn.Conv2d)
NONE: Set[nn.Module] = frozenset()
ALONE: tuple[str, list[float], str] = ("none", [], "")  # no activation behind the layer


def pack(module: nn.Module, but: Set[nn.Module] = NONE) -> None:
    """Let linear layers and convolutions inside `module` run with packed weights, but those in some parts.

    For inference on the CPU. The layers keep their own weights too, which must not change any more.
    """
    for child in module.children():
        if child in but:
            continue
        if type(child) is nn.Linear:
            child.forward = PackedLinear(child)  # type: ignore[method-assign]
        elif type(child) is nn.Conv2d and child.padding_mode == "zeros" and type(child.padding) is not str:
            child.forward = PackedConv2d(child)  # type: ignore[method-assign]
        else:
            pack(child, but)


@cache
def can_pack(dtype: torch.dtype) -> bool:
    """Whether this PyTorch does it on this processor, and rightly."""
    with torch.random.fork_rng(devices=[]):  # whoever asks must not draw other pictures
        conv, linear = nn.Conv2d(16, 16, 3, padding=1).to(dtype), nn.Linear(16, 16).to(dtype)
    x = torch.ones(2, 16, 16, 16, dtype=dtype)
    try:
        with torch.no_grad():
            pairs = (PackedConv2d(conv)(x), conv(x)), (PackedLinear(linear)(x), linear(x))
    except (AttributeError, NotImplementedError, RuntimeError):
        return False
    return all(torch.allclose(packed, plain, atol=0.02) for packed, plain in pairs)


class Packed(Generic[Layer]):
    """The forward of a layer, with one weight for each layout that shapes of its input ask for."""

    def __init__(self, layer: Layer) -> None:
        self.layer, self.plain = layer, layer.forward
        self.weights: dict[tuple[int, ...], Tensor] = {}  # by shape; what is laid out alike is there once

    def __call__(self, x: Tensor) -> Tensor:
        """As the layer's own, which runs where a gradient is wanted."""
        if x.requires_grad:
            return self.plain(x)
        shape = tuple(x.shape[x.ndim > 2 :])  # with many rows in a sample, their number hardly matters
        if shape not in self.weights:
            made = self.packed(x.shape)
            alike = (w for w in self.weights.values() if torch.equal(_layout(w), _layout(made)))
            self.weights[shape] = next(alike, made)
        return self.run(x, self.weights[shape])

    @property
    def nbytes(self) -> int:
        """Of the packed weights."""
        return sum({id(w): w.nbytes for w in self.weights.values()}.values())

    def packed(self, shape: torch.Size) -> Tensor:
        """The layer's weight, laid out for inputs of this shape."""
        raise NotImplementedError

    def run(self, x: Tensor, weight: Tensor) -> Tensor:
        """The layer's output by a packed weight."""
        raise NotImplementedError


class PackedLinear(Packed[nn.Linear]):
    """[..., c] => [..., d]"""

    def packed(self, shape: torch.Size) -> Tensor:
        weight, rows = self.layer.weight.detach(), shape[:-1].numel()
        made: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight, rows)
        return made

    def run(self, x: Tensor, weight: Tensor) -> Tensor:
        made: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, self.layer.bias, *ALONE)
        return made


class PackedConv2d(Packed[nn.Conv2d]):
    """[b,c,h,w] => [b,d,h',w'], channels-last whatever it was."""

    def __init__(self, layer: nn.Conv2d) -> None:
        super().__init__(layer)
        self.options = (layer.padding, layer.stride, layer.dilation, layer.groups)

    def packed(self, shape: torch.Size) -> Tensor:
        weight, prepare = self.layer.weight.detach(), torch.ops.mkldnn._reorder_convolution_weight
        made: Tensor = prepare(weight, *self.options, shape)
        return made

    def run(self, x: Tensor, weight: Tensor) -> Tensor:
        x, bias = x.contiguous(memory_format=torch.channels_last), self.layer.bias
        made: Tensor = torch.ops.mkldnn._convolution_pointwise(x, weight, bias, *self.options, *ALONE)
        return made


def _layout(weight: Tensor) -> Tensor:
    made: Tensor = torch.ops.mkldnn._get_mkldnn_serialized_md(weight)
    return made
