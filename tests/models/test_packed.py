"""Packed weights give what plain ones do, in every shape, and are no more than layouts ask for."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from ldm.models.packed import Packed, PackedConv2d, PackedLinear, can_pack, pack

pytestmark = pytest.mark.skipif(not can_pack(torch.float32), reason="PyTorch cannot pack weights here")

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


@torch.no_grad()
def test_a_weight_is_packed_once_for_all_shapes_that_want_one_layout() -> None:
    layer = nn.Linear(256, 256)
    packed(layer)
    for shape in ((64, 256), (128, 256), (1, 64, 256), (2, 64, 256)):
        layer(noise(*shape))
    forward = layer.forward
    assert isinstance(forward, PackedLinear) and set(forward.weights) == {(64, 256), (128, 256)}
    assert forward.nbytes == layer.weight.nbytes


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

    monkeypatch.setattr(PackedConv2d, "packed", fails)
    can_pack.cache_clear()
    assert not can_pack(torch.float32)
    can_pack.cache_clear()


def test_a_pytorch_that_is_wrong_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PackedLinear, "run", lambda self, x, weight: x + 1)
    can_pack.cache_clear()
    assert not can_pack(torch.float32)
    can_pack.cache_clear()
