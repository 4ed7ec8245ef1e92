"""Cases of inserting: a UNet step, a whole insertion, the VAE, and several objects in one batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch

from benchmarks.measure import Case
from benchmarks.subjects import (
    Plain,
    bytes_of,
    condition,
    fill,
    make_scene,
    without_cross_attention,
)
from ldm.insertion.insert import InsertOptions
from ldm.models.base import Base
from ldm.models.cross_attention import Contexts, join
from ldm.models.inpainting_model import InpaintingModel
from ldm.models.runtime import Runtime, inference_copy
from ldm.models.sampler import guided_eps
from ldm.speed.deep_cache import DeepCache
from ldm.speed.onednn_packing import pack_weights

OBJECTS = 8
SCALE = 5.0  # of guidance


def unet_step(base: Base, half: str, side: int, compiled: bool) -> list[Case]:
    """One guided step of one sample, both halves; `compiled`: also as torch.compile makes it."""
    cases = []
    for precision in ("fp32", half):
        folded = inference_copy(base, Runtime(precision, pack=pack_weights))
        models: dict[str, Plain | InpaintingModel] = {
            "plain": Plain(base, precision),
            "folded": folded,
            "without cross-attention": without_cross_attention(Plain(base, precision)),
        }
        for name, model in models.items():
            run, holds = _step(model, base, side), bytes_of(model.unet)
            cases.append(Case(f"{name}, {precision}", run, precision=precision, holds=holds))
        first = partial(_first, base, side, Runtime(precision, pack=pack_weights))
        cases.append(Case(f"folded, {precision}, the first time", first, precision=precision, counted=False))
    prepared = (
        inference_copy(base, Runtime(half, compile=True, pack=pack_weights)) if compiled else folded
    )  # the last one's is `half`
    like: dict[str, Any] = {"precision": half, "holds": bytes_of(prepared.unet), "counted": not compiled}
    name = f"folded, {half}, compiled" if compiled else f"folded, {half}"
    cases.append(Case(f"{name}, DeepCache step", _reused(prepared, base, side), **like))
    return [*cases, Case(name, _step(prepared, base, side), **like)] if compiled else cases


def insertion(
    base: Base, half: str, side: int, presets: Mapping[str, InsertOptions], compiled: bool
) -> list[Case]:
    """Whole insertions, the VAE in fp32: plain, sampled as `exact`, and the `presets`, in both precisions."""
    scene, exact = make_scene(base, side), presets["exact"].sampling
    options = {"sampler": exact.sampler} | exact.schedule()
    way = f"plain {exact.sampler.upper()} {exact.steps}"
    cases = []
    for precision in ("fp32", half):
        plain, prepared = Plain(base, precision), inference_copy(base, Runtime(precision, pack=pack_weights))
        runs = {way: partial(fill, plain, base, scene, scene.contexts, **options)}
        runs |= {name: _filled(prepared, base, side, sampling) for name, sampling in presets.items()}
        for name, run in runs.items():
            holds = bytes_of(plain.unet, base.vae) if name.startswith("plain") else bytes_of(prepared)
            cases.append(Case(f"{name}, {precision}", run, precision=precision, holds=holds, counted=False))
    if compiled:
        prepared = inference_copy(base, Runtime(half, compile=True, pack=pack_weights))
        run, holds = _filled(prepared, base, side, presets["fast"]), bytes_of(prepared)
        cases.append(Case(f"fast, {half}, compiled", run, precision=half, holds=holds, counted=False))
    return cases


def vae(base: Base, side: int) -> list[Case]:
    """Both ways through the VAE, as it comes and as insertion runs it."""
    scene, prepared = make_scene(base, side), inference_copy(base, Runtime(pack=pack_weights))
    return [
        Case(f"{way}, {name}", partial(getattr(model, way), x), holds=bytes_of(model.vae))
        for way, x in (("encode", scene.image), ("decode", scene.x_T))
        for name, model in (("plain", base), ("prepared", prepared))
    ]


def objects(base: Base, half: str, side: int) -> list[Case]:
    """A folded step of several samples: of one object, and of different ones."""
    prepared = inference_copy(base, Runtime(half, pack=pack_weights))
    one, several = (
        join([prepared.folded(*_tokens(base, seed)).conditional for seed in seeds])
        for seeds in ([0] * OBJECTS, range(OBJECTS))
    )
    return [
        Case(f"{OBJECTS} samples of one object", _of(prepared, base, side, one), OBJECTS, half),
        Case(f"{OBJECTS} different objects", _of(prepared, base, side, several), OBJECTS, half),
    ]


def _tokens(base: Base, seed: int) -> Contexts:
    return make_scene(base, 8 * base.architecture.vae_factor, seed=seed).contexts


@torch.no_grad()
def _step(model: Any, base: Base, side: int) -> Callable[[], Any]:
    """A guided step of a sample; a prepared model gets folded contexts."""
    scene = make_scene(base, side)
    contexts = model.folded(*scene.contexts) if isinstance(model, InpaintingModel) else scene.contexts
    eps = guided_eps(model, condition(scene, contexts), SCALE)
    return torch.no_grad()(partial(eps, scene.x_T, torch.tensor(500, device=base.device)))


def _first(base: Base, side: int, runtime: Runtime) -> None:
    """What a step takes that has everything before it: weights cast and packed, contexts folded."""
    _step(inference_copy(base, runtime), base, side)()


@torch.no_grad()
def _reused(prepared: InpaintingModel, base: Base, side: int) -> Callable[[], Any]:
    """A guided step with deep features of the one before."""
    scene, t = make_scene(base, side), torch.tensor(500, device=base.device)
    eps = guided_eps(DeepCache(prepared, 10**9), condition(scene, prepared.folded(*scene.contexts)), SCALE)
    eps(scene.x_T, t)
    return torch.no_grad()(partial(eps, scene.x_T, t))


@torch.no_grad()
def _of(prepared: InpaintingModel, base: Base, side: int, objects: Any) -> Callable[[], Any]:
    """An unguided step of as many samples as there are contexts."""
    x_T, t = make_scene(base, side, len(objects)).x_T, torch.tensor(500, device=base.device)
    return torch.no_grad()(partial(prepared.eps, x_T, t, x_T, torch.ones_like(x_T[:, :1]), objects))


@torch.no_grad()
def _filled(prepared: InpaintingModel, base: Base, side: int, inserting: InsertOptions) -> Callable[[], Any]:
    scene = make_scene(base, side)
    contexts, sampling = prepared.folded(*scene.contexts), inserting.sampling
    options = {"sampler": sampling.sampler} | sampling.schedule()

    def run() -> Any:
        return fill(inserting.predictor(prepared, ()), prepared, scene, contexts, **options)

    return run
