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

    For inference on the CPU: once a layer has run, the packed weight is the only one, and `weight` a tensor
    on the device "meta" that tells shape and dtype.
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
            plain = conv(x), linear(x)
            packed = PackedConv2d(conv)(x), PackedLinear(linear)(x)
    except (AttributeError, NotImplementedError, RuntimeError):
        return False
    return all(torch.allclose(a, b, atol=0.02) for a, b in zip(plain, packed, strict=True))


class Packed(Generic[Layer]):
    """The forward of a layer, with one weight for each layout that shapes of its input ask for."""

    def __init__(self, layer: Layer) -> None:
        self.layer = layer
        self.weights: dict[tuple[int, ...], Tensor] = {}  # by shape; what is laid out alike is there once

    def __call__(self, x: Tensor) -> Tensor:
        """As the layer's own."""
        assert not x.requires_grad, "no gradient goes through packed weights"
        shape = tuple(x.shape[x.ndim > 2 :])  # with many rows in a sample, their number hardly matters
        if shape not in self.weights:
            self.weights[shape] = self._laid_out(x.shape)
        return self.run(x, self.weights[shape])

    @property
    def nbytes(self) -> int:
        """Of the packed weights."""
        return sum({id(w): w.nbytes for w in self.weights.values()}.values())

    def packed(self, weight: Tensor, shape: torch.Size) -> Tensor:
        """The plain weight, laid out for inputs of this shape."""
        raise NotImplementedError

    def run(self, x: Tensor, weight: Tensor) -> Tensor:
        """The layer's output by a packed weight."""
        raise NotImplementedError

    def _laid_out(self, shape: torch.Size) -> Tensor:
        """One of those there are, if it is alike, or another."""
        if not self.weights:
            weight = self.layer.weight.detach()
            self.layer.weight = nn.Parameter(torch.empty_like(weight, device="meta"), requires_grad=False)
            return self.packed(weight, shape)
        known = list(self.weights.values())
        made = self.packed(known[0].to_dense(), shape)
        return next((w for w in known if torch.equal(_layout(w), _layout(made))), made)


class PackedLinear(Packed[nn.Linear]):
    """[..., c] => [..., d]"""

    def packed(self, weight: Tensor, shape: torch.Size) -> Tensor:
        made: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight, shape[:-1].numel())
        return made

    def run(self, x: Tensor, weight: Tensor) -> Tensor:
        made: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, self.layer.bias, *ALONE)
        return made


class PackedConv2d(Packed[nn.Conv2d]):
    """[b,c,h,w] => [b,d,h',w'], channels-last whatever it was."""

    def __init__(self, layer: nn.Conv2d) -> None:
        super().__init__(layer)
        self.options = (layer.padding, layer.stride, layer.dilation, layer.groups)

    def packed(self, weight: Tensor, shape: torch.Size) -> Tensor:
        made: Tensor = torch.ops.mkldnn._reorder_convolution_weight(weight, *self.options, shape)
        return made

    def run(self, x: Tensor, weight: Tensor) -> Tensor:
        x, bias = x.contiguous(memory_format=torch.channels_last), self.layer.bias
        made: Tensor = torch.ops.mkldnn._convolution_pointwise(x, weight, bias, *self.options, *ALONE)
        return made


def _layout(weight: Tensor) -> Tensor:
    made: Tensor = torch.ops.mkldnn._get_mkldnn_serialized_md(weight)
    return made
