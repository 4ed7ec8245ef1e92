"""Hashes of weights: the checksum that an object file holds, the fingerprint that identifies a base."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor

SAMPLE = 4096  # values of a tensor that its fingerprint looks at


def checksum(state: Mapping[str, Tensor]) -> str:
    """sha256 over the bytes of all tensors on the CPU, sorted by name."""
    digest = hashlib.sha256()
    for key in sorted(state):
        digest.update(state[key].reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def fingerprint(state: Mapping[str, Tensor]) -> str:
    """16 hex digits that identify a base: sha256 over the floating-point tensors, sorted by name.

    Hashed are each tensor's name, shape and at most 4096 evenly spaced values, rounded to fp16: fp32 weights
    and their fp16 copy agree, and a billion weights take seconds. A change between the samples or below
    fp16's resolution is not detected; a copy in bf16 counts as another base.
    """
    digest = hashlib.sha256()
    for key in sorted(state):
        if state[key].is_floating_point():
            digest.update(f"{key}{list(state[key].shape)}".encode())
            digest.update(_sample(state[key]).numpy().tobytes())
    return digest.hexdigest()[:16]


def _sample(value: Tensor) -> Tensor:
    """At most `SAMPLE` evenly spaced values => fp16 on the CPU."""
    stride = max(1, -(-value.numel() // SAMPLE))
    return value.detach().reshape(-1)[::stride].cpu().to(torch.float16)
