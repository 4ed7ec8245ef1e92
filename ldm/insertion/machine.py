"""What of the machine decides about the last bits of a result."""

from __future__ import annotations

import platform

import torch


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
