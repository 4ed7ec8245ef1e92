"""Packed weights give what plain ones do, in every shape, and are the only ones a layer keeps."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from ldm.models.runtime import Runtime, prepare
from ldm.speed import onednn_packing
from ldm.speed.onednn_packing import Packed, PackedConv2d, PackedLinear, can_pack, pack, pack_weights
from tests.fixtures.small import small_base

pytestmark = pytest.mark.skipif(not can_pack(torch.float32), reason="PyTorch cannot pack weights here")

PACKED = Runtime(pack=pack_weights)
LAYERS: dict[str, Callable[[], nn.Module]] = {
    "3 x 3": lambda: nn.Conv2d(24, 32, 3, padding=1),
    "1 x 1": lambda: nn.Conv2d(24, 32, 1),
    "downsampling": lambda: nn.Conv2d(24, 32, 3, stride=2, padding=1),
    "without bias": lambda: nn.Conv2d(24, 32, 3, bias=False),
    "grouped": lambda: nn.Conv2d(24, 32, 3, groups=2, dilation=2),
}


def noise(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def packed(layer: nn.Module) -> nn.Module:
    """It alone, packed."""
    pack(nn.ModuleList([layer]))
    assert isinstance(layer.forward, Packed)
    return layer


@pytest.mark.parametrize("kind", LAYERS)
@torch.no_grad()
def test_a_convolution_gives_the_same_in_every_shape(kind: str) -> None:
    layer = LAYERS[kind]()
    shapes = [(1, 24, 16, 16), (2, 24, 16, 16), (3, 24, 5, 9), (1, 24, 16, 16)]
    expected = [layer(noise(*shape)) for shape in shapes]
    packed(layer)
    for shape, plain in zip(shapes, expected, strict=True):
        assert torch.allclose(layer(noise(*shape)), plain, atol=1e-5), shape


@pytest.mark.parametrize("shape", [(24,), (1, 24), (2, 7, 24), (2, 3, 5, 24)])
@torch.no_grad()
def test_a_linear_layer_gives_the_same_in_every_shape(shape: tuple[int, ...]) -> None:
    layer = nn.Linear(24, 32)
    expected = layer(noise(*shape))
    assert torch.allclose(packed(layer)(noise(*shape)), expected, atol=1e-5)


@pytest.mark.skipif(not can_pack(torch.bfloat16), reason="nor bf16")
@torch.no_grad()
def test_bf16_is_as_near_as_bf16_is() -> None:
    layer, x = nn.Conv2d(24, 40, 3).bfloat16(), noise(1, 24, 8, 8).bfloat16()
    expected = layer(x)
    assert torch.allclose(packed(layer)(x), expected, atol=0.05)


@torch.no_grad()
def test_a_weight_is_laid_out_anew_for_another_size_but_not_for_more_samples(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made: list[tuple[int, ...]] = []
    laid_out = PackedConv2d.laid_out

    def counted(self: PackedConv2d, weight: Tensor, shape: torch.Size) -> Tensor:
        made.append(tuple(shape))
        return laid_out(self, weight, shape)

    monkeypatch.setattr(PackedConv2d, "laid_out", counted)
    layer = packed(nn.Conv2d(24, 32, 3))
    for shape in ((2, 24, 8, 8), (1, 24, 8, 8), (1, 24, 4, 4), (3, 24, 4, 4)):
        layer(noise(*shape))
    assert made == [(2, 24, 8, 8), (1, 24, 4, 4)]


@torch.no_grad()
def test_a_layer_goes_as_soon_as_nothing_holds_it() -> None:
    layer = packed(nn.Linear(24, 32))
    layer(noise(2, 24))
    known = weakref.ref(layer)
    gc.disable()
    try:
        del layer
        assert known() is None
    finally:
        gc.enable()


def test_a_gradient_is_refused() -> None:
    layer = packed(nn.Conv2d(24, 8, 3))
    with pytest.raises(AssertionError, match="no gradient"):
        layer(noise(1, 24, 8, 8).requires_grad_())


@torch.no_grad()
def test_parts_are_left_out_and_the_plain_weight_goes_at_the_first_call() -> None:
    model = nn.ModuleDict({"in": nn.Sequential(nn.Linear(8, 8), nn.ReLU()), "out": nn.Linear(8, 8)})
    pack(model, but={model["out"]})
    assert isinstance(model["in"][0].forward, Packed) and not isinstance(model["out"].forward, Packed)
    assert not any(weight.is_meta for weight in model.parameters())
    model["out"](model["in"](noise(2, 8)))
    assert [name for name, weight in model.named_parameters() if weight.is_meta] == ["in.0.weight"]
    assert model["in"][0].weight.shape == (8, 8)


def test_other_paddings_are_left_as_they_are() -> None:
    circular = nn.Conv2d(4, 4, 3, padding=1, padding_mode="circular")
    model = nn.Sequential(circular, *(nn.Conv2d(4, 4, 3, padding=padding) for padding in ("same", "valid")))
    pack(model)
    assert not any(isinstance(layer.forward, Packed) for layer in model)


@pytest.mark.parametrize("error", [AttributeError, RuntimeError])
def test_a_pytorch_that_cannot_is_found_out(monkeypatch: pytest.MonkeyPatch, error: type[Exception]) -> None:
    def fails(self: PackedConv2d, weight: Tensor, shape: torch.Size) -> Tensor:
        raise error("no such operator")

    monkeypatch.setattr(PackedConv2d, "laid_out", fails)
    can_pack.cache_clear()
    assert not can_pack(torch.float32)
    can_pack.cache_clear()


@pytest.mark.parametrize("kind", [PackedLinear, PackedConv2d])
def test_a_pytorch_that_is_wrong_is_found_out(
    monkeypatch: pytest.MonkeyPatch, kind: type[PackedLinear] | type[PackedConv2d]
) -> None:
    laid_out, channels = kind.laid_out, 1
    monkeypatch.setattr(kind, "laid_out", lambda self, w, shape: laid_out(self, w.flip(channels), shape))
    can_pack.cache_clear()
    assert not can_pack(torch.float32)
    can_pack.cache_clear()


def test_what_is_packed_already_is_refused() -> None:
    model = nn.Sequential(nn.Linear(8, 8))
    pack(model)
    with torch.no_grad():
        model(noise(2, 8))
    with pytest.raises(AssertionError, match="load the weights again"):
        pack(model)


def test_on_a_cpu_that_can_weights_are_packed_but_not_those_that_fold(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    packed, plain = small_base(), small_base()
    monkeypatch.setattr(onednn_packing, "can_pack", lambda dtype: True)
    prepare(packed, PACKED)
    monkeypatch.setattr(onednn_packing, "can_pack", lambda dtype: False)
    prepare(plain, PACKED)
    layers = {n: m for n, m in packed.unet.named_modules() if isinstance(m, nn.Linear | nn.Conv2d)}
    left = {name for name, layer in layers.items() if not isinstance(layer.forward, Packed)}
    assert left == {name for name in layers if name == "conv_in" or "attn2" in name or "time_emb" in name}
    assert any(isinstance(m.forward, Packed) for m in packed.vae.modules())
    assert not any(isinstance(m.forward, Packed) for m in plain.modules())


def test_a_vae_is_packed_where_the_unet_cannot_be(monkeypatch: pytest.MonkeyPatch) -> None:
    base = small_base()
    monkeypatch.setattr(onednn_packing, "can_pack", lambda dtype: dtype == torch.float32)
    prepare(base, Runtime("bf16", pack=pack_weights))
    assert any(isinstance(m.forward, Packed) for m in base.vae.modules())
    assert not any(isinstance(m.forward, Packed) for m in base.unet.modules())
