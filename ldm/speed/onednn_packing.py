"""Weights packed once in the layout of oneDNN's CPU kernels, instead of at every call.

At a UNet's lower levels packing is slower than the multiplication. PyTorch's compiler does the same when it
freezes a model; its operators are used here without the minutes that compiling takes.
"""

from __future__ import annotations

import weakref
from collections.abc import Set
from functools import cache
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

from ldm.models.cross_attention import cross_attentions
from ldm.models.inpainting_model import InpaintingModel

Layer = TypeVar("Layer", nn.Linear, nn.Conv2d)
ALONE: tuple[str, list[float], str] = ("none", [], "")  # no activation behind the layer


def pack(module: nn.Module, but: Set[nn.Module] = frozenset()) -> None:
    """Run the linear layers and convolutions of `module`, except those in the parts `but`, on packed weights.

    For inference on a CPU only: when a layer has run once, only its packed weight is left; `weight` is then a
    tensor on the device "meta" with the same shape and dtype.
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


def pack_weights(model: InpaintingModel, dtype: torch.dtype, compiled: bool = False) -> None:
    """Pack a model on the CPU whose UNet is in `dtype`, if this PyTorch and processor can; else do nothing.

    Not packed are cross-attentions, because contexts are folded with their weights, layers with few rows, and
    a compiled UNet.
    """
    if model.device.type != "cpu":
        return
    if can_pack(torch.float32):
        pack(model.vae)
    if can_pack(dtype) and not compiled:
        unet = model.unet
        folded = {layer for _, layer in cross_attentions(unet)}
        row_a_sample = {layer for name, layer in unet.named_modules() if "time_emb" in name}
        pack(unet, folded | row_a_sample | {unet.conv_in})  # whose weight tells device and dtype


@cache
def can_pack(dtype: torch.dtype) -> bool:
    """Whether this PyTorch packs on this processor, with right results, also after a change of shape."""
    with torch.random.fork_rng(devices=[]):  # the check must not change the random numbers of the caller
        conv, linear = nn.Conv2d(24, 40, 3, padding=1).to(dtype), nn.Linear(24, 40).to(dtype)
        images = [torch.randn(2, 24, side, side).to(dtype) for side in (4, 16)]
        rows = [torch.randn(n, 24).to(dtype) for n in (1, 7)]
    try:
        with torch.no_grad():
            plain = [*map(conv, images), *map(linear, rows)]
            packed = [*map(PackedConv2d(conv), images), *map(PackedLinear(linear), rows)]
    except (AttributeError, NotImplementedError, RuntimeError):
        return False
    near = 1e-4 if dtype == torch.float32 else 0.05
    return all(torch.allclose(a, b, atol=near) for a, b in zip(plain, packed, strict=True))


class Packed(Generic[Layer]):
    """The forward of a layer, with its weight laid out for the shape of input that it met last."""

    def __init__(self, layer: Layer) -> None:
        assert not layer.weight.is_meta, "packed already: load the weights again"
        self.layer = weakref.ref(layer)  # which has this for its forward: a cycle would outlive its model
        self.bias, self.shape, self.weight = layer.bias, torch.Size(), layer.weight.detach()

    def __call__(self, x: Tensor) -> Tensor:
        """As the layer's own."""
        assert not x.requires_grad, "no gradient goes through packed weights"
        shape = x.shape[x.ndim > 2 :]  # with many rows in a sample, the number of samples hardly matters
        if shape != self.shape:
            plain = self.weight.to_dense() if self.weight.is_mkldnn else self.weight
            self.weight, self.shape = self.laid_out(plain, x.shape), shape
            self._give_up()
        return self.run(x)

    def laid_out(self, weight: Tensor, shape: torch.Size) -> Tensor:
        """A plain weight as inputs of this shape want it."""
        raise NotImplementedError

    def run(self, x: Tensor) -> Tensor:
        """The layer's output."""
        raise NotImplementedError

    def _give_up(self) -> None:
        layer = self.layer()
        if layer is not None and not layer.weight.is_meta:
            layer.weight = nn.Parameter(torch.empty_like(layer.weight, device="meta"), requires_grad=False)


class PackedLinear(Packed[nn.Linear]):
    """[..., c] => [..., d]"""

    def laid_out(self, weight: Tensor, shape: torch.Size) -> Tensor:
        made: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight, shape[:-1].numel())
        return made

    def run(self, x: Tensor) -> Tensor:
        made: Tensor = torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, *ALONE)
        return made


class PackedConv2d(Packed[nn.Conv2d]):
    """[b,c,h,w] => [b,d,h',w'], channels-last whatever it was."""

    def __init__(self, layer: nn.Conv2d) -> None:
        super().__init__(layer)
        self.options = (layer.padding, layer.stride, layer.dilation, layer.groups)

    def laid_out(self, weight: Tensor, shape: torch.Size) -> Tensor:
        made: Tensor = torch.ops.mkldnn._reorder_convolution_weight(weight, *self.options, shape)
        return made

    def run(self, x: Tensor) -> Tensor:
        x = x.contiguous(memory_format=torch.channels_last)
        made: Tensor = torch.ops.mkldnn._convolution_pointwise(
            x, self.weight, self.bias, *self.options, *ALONE
        )
        return made
