"""Timing: the cases of a group run alternately, so that other work of the machine slows all of them alike.

A row is plain data: group, name, seconds (median of the repeats; the least and the most beside it), samples
that one run makes, TFLOP of one run (0: not counted), memory in GB: what the case holds and what a run
takes on top at its peak, as the process grows on a CPU and in tensors on a GPU (None: not known).
"""

from __future__ import annotations

import ctypes
import gc
import math
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

from ldm.speed.onednn_packing import can_pack

Row = dict[str, Any]
MATRIX = {"cpu": 2048, "cuda": 8192}  # side of the matrices that the machine's own rate is measured with


@dataclass(frozen=True)
class Case:
    """`run` makes `samples`; `holds`: bytes of weights; `counted`: its FLOPs are; it is not compiled."""

    name: str
    run: Callable[[], Any]
    samples: int = 1
    precision: str = "fp32"
    holds: Callable[[], int] = lambda: 0
    counted: bool = True


def compare(group: str, cases: Sequence[Case], repeats: int, device: str) -> list[Row]:
    """Each case once to warm up and count, once for its memory, then all of them in turns."""
    first = [_counted(case, device) for case in cases]
    seconds: list[list[float]] = [[] for _ in cases]
    for _ in range(repeats):
        for case, taken in zip(cases, seconds, strict=True):
            taken.append(_seconds(case.run, device))
    return [
        {"group": group, "name": case.name, "precision": case.precision, "samples": case.samples}
        | {"seconds": statistics.median(taken), "least": min(taken), "most": max(taken), "repeats": repeats}
        | counted
        for case, taken, counted in zip(cases, seconds, first, strict=True)
    ]


def matrix_rate(dtype: torch.dtype, device: str, repeats: int = 5) -> float:
    """FLOP/s of the machine's own matrix multiplication, the best of several turns."""
    n = MATRIX[device]
    a, b = (torch.randn(n, n, device=device).to(dtype) for _ in range(2))
    a @ b
    return 2 * n**3 / min(_seconds(lambda: a @ b, device) for _ in range(repeats))


def _counted(case: Case, device: str) -> Row:
    """The first runs: FLOPs of one and memory of the next, behind what had to be set up once."""
    counter = FlopCounterMode(display=False, custom_mapping=_on_cpu())
    with counter if case.counted else nullcontext():
        case.run()
    before = _forget_peak(device)
    case.run()
    peak = _peak(device)
    tflop = counter.get_total_flops() / 1e12
    return {"tflop": tflop, "peak_gb": None if peak is None else case.holds() / 1e9 + peak - before}


def _seconds(run: Callable[[], Any], device: str) -> float:
    _wait(device)
    start = time.perf_counter()
    run()
    _wait(device)
    return time.perf_counter() - start


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def _forget_peak(device: str) -> float:
    """The peak is what is held now; GB of it."""
    gc.collect()
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    elif (linux := Path("/proc/self/clear_refs")).exists():
        if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):
            trim(0)  # what glibc keeps of cases before would hide what this one takes
        linux.write_text("5")  # resets the peak, see proc(5)
    return _peak(device) or 0.0


def _peak(device: str) -> float | None:
    """GB since `_forget_peak`; None where the system does not tell."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated() / 1e9
    linux = Path("/proc/self/status")
    lines = linux.read_text().splitlines() if linux.exists() else []
    peak = [line.split()[1] for line in lines if line.startswith("VmHWM:")]
    return int(peak[0]) * 1024 / 1e9 if peak else None


def _on_cpu() -> dict[Any, Any]:
    """What torch's counter passes over on a CPU: its fused attention, and layers whose weights are packed."""
    aten, mkldnn = torch.ops.aten, torch.ops.mkldnn

    def there(q: Any, k: Any, v: Any, *_: Any, **__: Any) -> int:
        return sdpa_flop_count(q, k, v)

    def back(grad: Any, q: Any, k: Any, v: Any, *_: Any, **__: Any) -> int:
        return sdpa_backward_flop_count(grad, q, k, v)

    def layer(x: Any, weight: Any, *_: Any, out_shape: Any, **__: Any) -> int:
        channels = out_shape[-1] if len(weight) == 2 else out_shape[1]
        return 2 * math.prod(out_shape) // channels * math.prod(weight)

    packed = {mkldnn._linear_pointwise: layer, mkldnn._convolution_pointwise: layer}
    return {
        aten._scaled_dot_product_flash_attention_for_cpu: there,
        aten._scaled_dot_product_flash_attention_for_cpu_backward: back,
    } | (packed if can_pack(torch.float32) else {})
