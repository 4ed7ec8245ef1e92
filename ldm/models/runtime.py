"""How a painter runs on its machine: precision of the UNet, memory layout, compilation."""

from __future__ import annotations

import platform
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

if TYPE_CHECKING:  # whoever names a device loads no model
    from ldm.models.base import Base
    from ldm.models.inpainting_model import InpaintingModel

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Runtime:
    """`precision` is one of PRECISIONS; `compile`: torch.compile, with CUDA graphs on a GPU.

    `pack` prepares a painter for its processor, once all else is done.
    """

    precision: str = "fp32"
    compile: bool = False
    pack: Callable[[InpaintingModel, torch.dtype, bool], None] | None = None

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise ValueError(
                f"precision {self.precision!r} is unknown; choose one of {', '.join(PRECISIONS)}"
            )


PLAIN = Runtime()


def prepare(model: InpaintingModel, runtime: Runtime) -> None:
    """Make the painter, on its device already, run like this; contexts must be folded if it is not fp32.

    Then only the conditioner, the cross-attentions and the UNet's first layer may be read: other weights are
    cast, or packed, so that its fingerprint and its file must be made before.

    Half precision is the UNet's alone, and not its cross-attentions', which are folded in fp32: latents,
    solver and guidance stay in fp32, and so does the VAE, which works twice a picture and would show bands.
    """
    from ldm.models.cross_attention import cross_attentions
    from ldm.models.inpainting_model import call

    unet, dtype = model.unet, PRECISIONS[runtime.precision]
    folded = {layer for _, layer in cross_attentions(unet)}
    if dtype != torch.float32:
        _cast(unet, dtype, folded)
    if model.device.type == "cuda" and dtype != torch.float32:
        unet.to(memory_format=torch.channels_last)  # tensor cores want it
    model.run = Compiled(model.device.type == "cuda") if runtime.compile else call
    if runtime.pack is not None:
        runtime.pack(model, dtype, runtime.compile)


def twin(base: Base, runtime: Runtime) -> InpaintingModel:
    """Another painter of the same weights, which runs as `runtime` says.

    What stays in fp32 is shared, on a CPU until the twin has run and packed its own.
    """
    from ldm.models.inpainting_model import InpaintingModel

    with torch.device("meta"):
        model = InpaintingModel(base.architecture)
    weights, own = base.state_dict(), model.state_dict()
    model.load_state_dict({key: weights[key] for key in own}, assign=True)
    model.eval().requires_grad_(False)
    prepare(model, runtime)
    return model


class Compiled:
    """Calls functions of tensors as torch.compile makes them; once that fails, as they are, with a warning.

    What is compiled is kept on disk by torch, so that the next process starts faster.
    """

    def __init__(self, graphs: bool) -> None:
        self.graphs, self.works = graphs, True
        self.made: dict[Callable[..., Any], Callable[..., Any]] = {}

    def __call__(self, function: Callable[..., Any], *arguments: Any) -> Any:
        if self.works:
            try:
                return self._compiled(function, arguments)
            except Exception as error:  # a missing compiler, an unknown operator, a driver: anything
                self.works = False
                reason = str(error).strip().split("\n")[0][:120]
                warnings.warn(
                    f"torch.compile failed ({type(error).__name__}: {reason}); going on without it",
                    stacklevel=2,
                )
        return function(*arguments)

    def _compiled(self, function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
        if function not in self.made:
            mode = "reduce-overhead" if self.graphs else "default"  # CUDA graphs
            self.made[function] = torch.compile(function, mode=mode, dynamic=False)
        if not self.graphs:
            return self.made[function](*arguments)
        torch.compiler.cudagraph_mark_step_begin()
        out = self.made[function](*arguments)  # lies where the next call writes: taken out
        return tuple(x.clone() for x in out) if isinstance(out, tuple) else out.clone()


def _cast(module: nn.Module, dtype: torch.dtype, but: set[nn.Module]) -> None:
    """All weights of a module but those of some parts."""
    for child in module.children():
        if child not in but:
            _cast(child, dtype, but)
    for weight in module.parameters(recurse=False):
        weight.data = weight.data.to(dtype)
    for name, buffer in module.named_buffers(recurse=False):
        if buffer.is_floating_point():
            setattr(module, name, buffer.to(dtype))


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
