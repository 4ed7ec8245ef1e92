"""Less memory in training: frozen weights in half precision, recomputed activations."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from ldm.config.cli import TRAINING
from ldm.config.schema import load_config
from ldm.models.architecture import Architecture
from ldm.models.base import Base
from ldm.training.finetune import FineTune, Tuning
from ldm.training.samples import cast_frozen
from tests.fixtures.small import small_base


def arguments(b: int, size: int, width: int) -> tuple[dict[str, Tensor], Tensor, Tensor, Tensor]:
    """Of `FineTune.loss`."""
    g = torch.Generator().manual_seed(0)
    x_0, masked, eps = torch.randn(3, b, 4, size, size, generator=g)
    mask, dropped = torch.ones(b, 1, size, size), torch.zeros(b, dtype=torch.bool)
    samples = {"x_0": x_0, "masked": masked, "latent_mask": mask}
    samples["pooled"] = torch.randn(b, width, generator=g)
    return samples, torch.full((b,), 300), eps, dropped


def learner(mode: str = "crossattn-kv", **changes: Any) -> FineTune:
    base = small_base()
    base.conditioner.use_tokens(torch.randn(3, 16, generator=torch.Generator().manual_seed(1)))
    return FineTune(base, Tuning(mode, **changes))


def step_of(module: FineTune, mixed: bool = False) -> dict[str, Tensor]:
    """The loss and all gradients of one step."""
    with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
        loss = module.loss(*arguments(2, 16, 16))
    loss.backward()
    grads = {name: weight.grad for name, weight in module.trained_weights().items()}
    return {"loss": loss.detach()} | {name: grad for name, grad in grads.items() if grad is not None}


@pytest.mark.parametrize("mode", ["crossattn-kv", "crossattn"])
def test_rounding_frozen_weights_once_gives_the_same_numbers_as_at_every_step(mode: str) -> None:
    narrow = learner(mode)
    cast_frozen(narrow.base, "bf16-mixed")
    expected, found = step_of(learner(mode), mixed=True), step_of(narrow, mixed=True)
    assert expected.keys() == found.keys() and len(found) > 10
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_what_trains_stays_in_fp32_and_full_precision_changes_nothing() -> None:
    module = learner()
    cast_frozen(module.base, "32-true")
    assert {weight.dtype for weight in module.base.parameters()} == {torch.float32}
    cast_frozen(module.base, "bf16-mixed")
    assert {weight.dtype for weight in module.trained_weights().values()} == {torch.float32}
    assert (
        module.base.unet.conv_in.weight.dtype
        == module.base.vae.encoder.conv_in.weight.dtype
        == torch.bfloat16
    )
    assert module.base.unet.conv_norm_out.weight.dtype == torch.float32


def test_computing_activations_again_changes_no_gradient() -> None:
    expected, found = step_of(learner()), step_of(learner(gradient_checkpointing=True))
    assert all(torch.allclose(found[name], expected[name], atol=1e-6) for name in expected)


def needed(b: int, gradient_checkpointing: bool) -> int:
    """Bytes of a step at Paint-by-Example's size in bf16: weights, gradients, AdamW's moments, activations.

    Counted; nothing is computed. Workspace is not in it, nor what a GPU's autocast keeps in fp32.
    """
    kept: dict[int, tuple[int, Tensor]] = {}

    def pack(x: Tensor) -> Tensor:
        storage = x.untyped_storage()
        if storage._cdata not in weights:
            kept[storage._cdata] = storage.nbytes(), x
        return x

    with FakeTensorMode():
        base = Base(Architecture())
        base.conditioner.use_tokens(torch.zeros(5, 1024))
        module = FineTune(base, Tuning(gradient_checkpointing=gradient_checkpointing))
        cast_frozen(base, "bf16-mixed")
        weights = {weight.untyped_storage()._cdata for weight in base.parameters()}
        keeping = torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x)
        with keeping, torch.autocast("cpu", torch.bfloat16):
            module.loss(*arguments(b, 64, 1024))
        held = sum(weight.nbytes for weight in base.parameters())
        trained = sum(3 * weight.nbytes for weight in module.trained_weights().values())
    return held + trained + sum(size for size, _ in kept.values())


@pytest.mark.parametrize("preset", TRAINING)
def test_a_preset_leaves_room_on_its_gpu(preset: str) -> None:
    t = load_config(None, TRAINING[preset]).train
    assert t.batch_size * t.accumulate_grad_batches == 8 and t.precision == "bf16-mixed"
    assert needed(t.batch_size, t.gradient_checkpointing) < 0.6e9 * int(preset.removesuffix("gb"))


def test_checkpointing_needs_less() -> None:
    assert needed(2, True) < needed(2, False) - 1e9
