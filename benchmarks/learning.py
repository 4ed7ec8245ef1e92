"""Benchmark cases of training on an object: the paper's way and ours."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor
from torch.optim import AdamW, Optimizer

from benchmarks.measure import Case
from benchmarks.subjects import bytes_of
from ldm.models.base import Base
from ldm.training.finetune import FineTune, Tuning
from ldm.training.samples import cast_frozen

MakeBase = Callable[[], Base]
FEW_SHOT = 4


class Lean(NamedTuple):
    """What makes a preset's step fit into a GPU's memory."""

    batch: int
    gradient_checkpointing: bool


def training(make: MakeBase, side: int, batches: Sequence[int]) -> list[Case]:
    """The paper's step, at batch 1, and ours on cached samples in bf16, by batch size."""
    ours = _Ours(make(), side)
    cases = [ours.case(f"cached samples, tokens, bf16, batch {n}", n) for n in batches]
    lean = ours.case("cached samples, tokens, bf16, batch 1, gradient checkpointing", 1, True)
    return [_paper(make(), side), *cases, lean]


def by_memory(make: MakeBase, side: int, presets: Mapping[str, Lean]) -> list[Case]:
    """One batch of each preset."""
    ours = _Ours(make(), side)
    return [
        ours.case(f"--preset {name}: batch {n}" + ", gradient checkpointing" * twice, n, twice, counted=False)
        for name, (n, twice) in presets.items()
    ]


def _paper(base: Base, side: int) -> Case:
    """One step as the paper's code takes it: all of the cross-attention, mapper and prior encoder, 377 M."""
    a, device = base.architecture, base.device
    base.conditioner.use_linear(torch.randn(FEW_SHOT, a.clip_tokens, a.clip_width, device=device))
    module = FineTune(base, Tuning("crossattn"))
    optimizer = AdamW(module.groups())
    pixels = torch.rand(2, 1, 3, side, side, device=device)
    reference = torch.rand(1, 3, a.reference_size, a.reference_size, device=device)

    def step() -> None:
        x_0, masked = (base.encode(x) for x in pixels)
        _back(_loss(module, x_0, masked, base.conditioner.pooled(reference)), optimizer)

    name = "as in the paper: fp32, batch 1, two VAE encodes, linear prior"
    return Case(name, step, holds=_holding(base, optimizer))


class _Ours:
    """Our steps on cached samples: UNet and conditioner alone, frozen weights in bf16, fused AdamW."""

    def __init__(self, base: Base, side: int) -> None:
        base.conditioner.use_tokens(torch.randn(FEW_SHOT, base.architecture.clip_width, device=base.device))
        self.base, self.side, self.module = base, side, FineTune(base)
        cast_frozen(base, "bf16-mixed")
        self.optimizer = AdamW(self.module.groups(), fused=True)
        self.holds = _holding(base, self.optimizer)

    def case(self, name: str, n: int, gradient_checkpointing: bool = False, counted: bool = True) -> Case:
        """Steps of `n` samples."""
        a, device = self.base.architecture, self.base.device
        h = self.side // a.vae_factor
        latents = torch.randn(2, n, a.latent_channels, h, h, device=device)
        step = partial(
            self._step, latents, torch.randn(n, a.clip_width, device=device), gradient_checkpointing
        )
        return Case(name, step, n, "bf16", self.holds, counted)

    def _step(self, latents: Tensor, pooled: Tensor, gradient_checkpointing: bool) -> None:
        unet = self.base.unet
        if gradient_checkpointing:
            unet.enable_gradient_checkpointing()
        else:
            unet.disable_gradient_checkpointing()
        with torch.autocast(self.base.device.type, torch.bfloat16):
            loss = _loss(self.module, latents[0], latents[1], pooled)
        _back(loss, self.optimizer)


def _loss(module: FineTune, x_0: Tensor, masked: Tensor, pooled: Tensor) -> Tensor:
    n = len(x_0)
    t, dropped = torch.full((n,), 500, device=x_0.device), torch.zeros(n, dtype=torch.bool, device=x_0.device)
    samples = {"x_0": x_0, "masked": masked, "latent_mask": x_0[:, :1], "pooled": pooled}
    return module.loss(samples, t, torch.randn_like(x_0), dropped)


def _back(loss: Tensor, optimizer: Optimizer) -> None:
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()


def _holding(base: Base, optimizer: Optimizer) -> Callable[[], int]:
    """Bytes of the weights and of the optimizer's state."""
    weights = bytes_of(base)
    return lambda: (
        weights()
        + sum(value.nbytes for state in optimizer.state.values() for value in state.values() if value.ndim)
    )
