"""State dicts, name => tensor: strict loading with readable errors, and a fingerprint."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

ALIGNED = 64  # bytes; as torch allocates
SAMPLE = 4096  # values of a tensor that its fingerprint looks at


def load_strictly(
    module: nn.Module, state: Mapping[str, Tensor], what: str, device: torch.device | str = "cpu"
) -> None:
    """Load `state` into `module`; ValueError, and nothing loaded, if weights are missing, extra or misshaped.

    A module built on the meta device takes the weights on `device` in its dtype, copied at most once; any
    other module stays where it is. `what` names the module in errors: "the UNet of configs/v.yaml".
    """
    own = module.state_dict()
    complaints = [
        f"{len(names)} weight{'s' * (len(names) > 1)} {complaint}: {first_few(names)}"
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
    empty = any(value.is_meta for value in own.values())
    if empty:
        state = {key: _placed(state[key], device, value.dtype) for key, value in own.items()}
    module.load_state_dict(state, strict=True, assign=empty)


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


def first_few(names: Sequence[str], limit: int = 3) -> str:
    """The first names, and how many more there are, for messages."""
    rest = len(names) - limit
    return ", ".join(names[:limit]) + (f" and {rest} more" if rest > 0 else "")


def _reshaped(own: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> list[str]:
    return [
        f"{key} {list(state[key].shape)} instead of {list(value.shape)}"
        for key, value in own.items()
        if key in state and state[key].shape != value.shape
    ]


def _placed(value: Tensor, device: torch.device | str, dtype: torch.dtype) -> Tensor:
    """Move, then cast: half precision moves half the bytes.

    Weights mapped from a file are copied if they are not aligned as torch aligns: kernels round differently
    on unaligned memory, so that results would depend on the file.
    """
    placed = value.to(device).to(dtype)
    return placed.clone() if placed.data_ptr() % ALIGNED else placed


def _sample(value: Tensor) -> Tensor:
    """At most `SAMPLE` evenly spaced values => fp16 on the CPU."""
    stride = max(1, -(-value.numel() // SAMPLE))
    return value.detach().reshape(-1)[::stride].cpu().to(torch.float16)
