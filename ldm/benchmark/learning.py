"""Cases of learning an object: the paper's way and ours."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.optim import AdamW, Optimizer

from ldm.benchmark.measure import Case
from ldm.benchmark.subjects import bytes_of
from ldm.models.base import Base
from ldm.training.finetune import FineTune
from ldm.training.frozen import narrow_frozen

MakeBase = Callable[[], Base]
FEW_SHOT = 4


def training(make: MakeBase, side: int, batches: Sequence[int]) -> list[Case]:
    """Steps of the paper's kind, at batch 1, and of ours from a bank in bf16, by batch."""
    base = make()
    base.conditioner.use_tokens(torch.randn(FEW_SHOT, base.architecture.clip_width, device=base.device))
    module = FineTune(base, "crossattn-kv")
    narrow_frozen(base, "bf16-mixed")
    optimizer = AdamW(module.groups(), fused=True)
    ours = partial(_ours, module, optimizer, side)
    holds = _holding(base, optimizer)
    cases = [_paper(make(), side)]
    for n in batches:
        cases.append(Case(f"bank, tokens, bf16, batch {n}", ours(n), n, "bf16", holds))
    lean = Case("bank, tokens, bf16, batch 1, checkpointing", ours(1, True), 1, "bf16", holds)
    return [*cases, lean]


def _paper(base: Base, side: int) -> Case:
    """One step as the paper's code takes it: all of the cross-attention, mapper and prior encoder, 377 M."""
    a, device = base.architecture, base.device
    base.conditioner.use_linear(torch.randn(FEW_SHOT, a.clip_tokens, a.clip_width, device=device))
    module = FineTune(base, "crossattn")
    optimizer = AdamW(module.groups())
    pixels = torch.rand(2, 1, 3, side, side, device=device)
    reference = torch.rand(1, 3, a.reference_size, a.reference_size, device=device)

    def step() -> None:
        x_0, masked = (base.encode(x) for x in pixels)
        _back(_loss(module, x_0, masked, base.conditioner.pooled(reference)), optimizer)

    name = "as in the paper: fp32, batch 1, two VAE encodes, linear prior"
    return Case(name, step, holds=_holding(base, optimizer))


def _ours(
    module: FineTune, optimizer: Optimizer, side: int, n: int, checkpointing: bool = False
) -> Callable[[], Any]:
    """One step from a bank: the UNet and the conditioner alone, frozen weights in bf16, fused AdamW."""
    base, a = module.base, module.base.architecture
    latents = torch.randn(2, n, 4, side // a.vae_factor, side // a.vae_factor, device=base.device)
    pooled = torch.randn(n, a.clip_width, device=base.device)

    def step() -> None:
        unet = base.unet
        unet.enable_gradient_checkpointing() if checkpointing else unet.disable_gradient_checkpointing()
        with torch.autocast(base.device.type, torch.bfloat16):
            loss = _loss(module, latents[0], latents[1], pooled)
        _back(loss, optimizer)

    return step


def _loss(module: FineTune, x_0: Tensor, masked: Tensor, pooled: Tensor) -> Tensor:
    n = len(x_0)
    t, dropped = torch.full((n,), 500, device=x_0.device), torch.zeros(n, dtype=torch.bool, device=x_0.device)
    return module.loss(x_0, masked, x_0[:, :1], pooled, t, torch.randn_like(x_0), dropped)


def _back(loss: Tensor, optimizer: Optimizer) -> None:
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()


def _holding(base: Base, optimizer: Optimizer) -> Callable[[], int]:
    """Bytes of the weights and of what the optimizer knows about them."""
    weights = bytes_of(base)
    return lambda: (
        weights()
        + sum(value.nbytes for known in optimizer.state.values() for value in known.values() if value.ndim)
    )
