"""What of the machine decides about the last bits of a result."""

from __future__ import annotations

import platform

import torch


def device_named(name: str | None) -> str:
    """The device that is asked for; if none is, a GPU where there is one. ValueError if it is not there."""
    best = "cuda" if torch.cuda.is_available() else "cpu"
    device = name or best
    if device != "cpu" and device.partition(":")[0] != best:
        raise ValueError(f"--device {name}: this machine has {'cpu and cuda' if best == 'cuda' else 'cpu'}")
    return device


def machine(device: str) -> dict[str, str | int]:
    """Device, processor, number of threads and torch version, as plain values."""
    cuda = device.startswith("cuda")
    processor = torch.cuda.get_device_name(device) if cuda else platform.processor() or platform.machine()
    return {
        "device": device,
        "processor": processor,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }
