"""Frozen weights in the precision that they are used in: half the memory, and no cast at every step.

Mixed precision rounds the weights of convolutions and linear layers whenever they are used. Where they do not
train, rounding them once gives the same numbers.
"""

from __future__ import annotations

import torch
from torch import nn

HALF = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}  # Lightning's names


def narrow_frozen(module: nn.Module, precision: str) -> None:
    """Round what frozen convolutions and linear layers hold, in place, if `precision` is a mixed one."""
    dtype = HALF.get(precision)
    if dtype is None:
        return
    for part in module.modules():
        if isinstance(part, nn.Linear | nn.Conv2d):
            for weight in part.parameters(recurse=False):
                if not weight.requires_grad:
                    weight.data = weight.data.to(dtype)
