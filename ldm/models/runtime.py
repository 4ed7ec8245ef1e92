"""How an inpainting model runs on its device: precision of the UNet, memory format, compilation."""

from __future__ import annotations

import platform
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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

    `pack` repacks an inpainting model's weights for its processor, after all else.
    """

    precision: str = "fp32"
    compile: bool = False
    pack: Callable[[InpaintingModel, torch.dtype, bool], None] | None = None

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise ValueError(
                f"precision {self.precision!r} is unknown; choose one of {', '.join(PRECISIONS)}"
            )


def prepare(model: InpaintingModel, runtime: Runtime) -> None:
    """Set up a model, already on its device, to run as `runtime` says; unless fp32, contexts must be folded.

    Afterwards only the conditioner, the cross-attentions and the UNet's first layer may be read: other
    weights are cast or packed. Compute the fingerprint and save the base before.

    Half precision is used by the UNet without its cross-attentions, which are folded in fp32. Latents,
    solver, guidance and the VAE stay in fp32: the VAE runs only twice a picture, and in half precision shows
    bands.
    """
    from ldm.models.cross_attention import cross_attentions
    from ldm.models.inpainting_model import call

    unet, dtype = model.unet, PRECISIONS[runtime.precision]
    folded = {layer for _, layer in cross_attentions(unet)}
    if dtype != torch.float32:
        _cast(unet, dtype, folded)
    if model.device.type == "cuda" and dtype != torch.float32:
        unet.to(memory_format=torch.channels_last)  # faster on tensor cores
    model.run = Compiled(model.device.type == "cuda") if runtime.compile else call
    if runtime.pack is not None:
        runtime.pack(model, dtype, runtime.compile)


def inference_copy(base: Base, runtime: Runtime) -> InpaintingModel:
    """Another inpainting model with the base's weights, which runs as `runtime` says.

    Weights that stay in fp32 are shared with the base (on a CPU until they are packed).
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
    """Calls functions compiled by torch.compile; after a failure, uncompiled, with a warning.

    torch caches compiled code on disk, so that the next process starts faster.
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
        out = self.made[function](*arguments)  # the next call overwrites this memory
        return tuple(x.clone() for x in out) if isinstance(out, tuple) else out.clone()


def _cast(module: nn.Module, dtype: torch.dtype, but: set[nn.Module]) -> None:
    """Cast all weights of a module except those of the modules in `but`."""
    for child in module.children():
        if child not in but:
            _cast(child, dtype, but)
    for weight in module.parameters(recurse=False):
        weight.data = weight.data.to(dtype)
    for name, buffer in module.named_buffers(recurse=False):
        if buffer.is_floating_point():
            setattr(module, name, buffer.to(dtype))


def device_named(name: str | None) -> str:
    """The requested device, by default a GPU if there is one. ValueError if it does not exist."""
    best = "cuda" if torch.cuda.is_available() else "cpu"
    device = (name or best).lower()
    gpus = [f"cuda:{number}" for number in range(torch.cuda.device_count())] if best == "cuda" else []
    if device not in ("cpu", best, *gpus):
        raise ValueError(f"--device {name}: this machine has {', '.join(('cpu', *gpus))}")
    return device


@contextmanager
def threads(number: int) -> Iterator[None]:
    """Run with this number of CPU threads, on which the rounding of sums depends; then set the old one."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def machine(device: str) -> dict[str, str | int]:
    """Device, processor, number of threads and torch version."""
    cuda = device.startswith("cuda")
    processor = torch.cuda.get_device_name(device) if cuda else platform.processor() or platform.machine()
    return {
        "device": device,
        "processor": processor,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }
