"""A set of weights in memory, name => tensor: loading it strictly, and telling it from others."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

SAMPLE = 4096  # values of a tensor that its fingerprint looks at


def load_strictly(module: nn.Module, state: Mapping[str, Tensor], what: str) -> None:
    """Copy `state` into `module`, whose dtype and device stay, or load nothing and raise ValueError.

    `what` names the module and the config it was built from in that error: "the UNet of configs/v.yaml".
    """
    own = module.state_dict()
    assert not any(value.is_meta for value in own.values()), f"{what} has no memory to load weights into"
    complaints = [
        f"{len(names)} weight{'s' * (len(names) > 1)} {complaint}: {some(names)}"
        for complaint, names in (
            ("missing", [key for key in own if key not in state]),
            ("extra", [key for key in state if key not in own]),
            ("of another shape", _reshaped(own, state)),
        )
        if names
    ]
    if complaints:
        raise ValueError(
            f"these weights do not fit {what} ({'; '.join(complaints)}); "
            "use the config that the checkpoint was made with, or fetch the checkpoint again"
        )
    module.load_state_dict(state, strict=True)


def fingerprint(state: Mapping[str, Tensor]) -> str:
    """16 hex digits that tell bases apart: sha256 over the floating-point tensors, sorted by name.

    Of each tensor count its name, its shape and at most 4096 evenly spaced values, rounded to fp16: fp32
    weights and their fp16 copy agree, and a billion weights take seconds. A change between the samples or
    below fp16's resolution goes unnoticed; a copy in bf16 counts as another base.
    """
    digest = hashlib.sha256()
    for key in sorted(state):
        if state[key].is_floating_point():
            digest.update(f"{key}{list(state[key].shape)}".encode())
            digest.update(_sample(state[key]).numpy().tobytes())
    return digest.hexdigest()[:16]


def some(names: Sequence[str], limit: int = 3) -> str:
    """The first few names, and how many more there are."""
    rest = len(names) - limit
    return ", ".join(names[:limit]) + (f" and {rest} more" if rest > 0 else "")


def _reshaped(own: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> list[str]:
    return [
        f"{key} {list(state[key].shape)} instead of {list(value.shape)}"
        for key, value in own.items()
        if key in state and state[key].shape != value.shape
    ]


def _sample(value: Tensor) -> Tensor:
    """At most `SAMPLE` evenly spaced values => fp16 on the CPU."""
    stride = max(1, -(-value.numel() // SAMPLE))
    return value.detach().reshape(-1)[::stride].cpu().to(torch.float16)
