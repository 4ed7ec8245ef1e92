"""Baked objects: the delta's result without its weights, its reference, CLIP or K and V."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from ldm.insertion.inpaint import Sampling
from ldm.insertion.insert import InsertOptions
from ldm.insertion.object_source import ObjectSource
from ldm.insertion.session import Session
from ldm.models.base import Base, base_fingerprint, load_inpainting_model, save_base
from ldm.models.cross_attention import Contexts
from ldm.models.sampler import Condition, sample
from ldm.objects import baked
from ldm.objects.baked import bake
from ldm.objects.delta import Delta, apply, is_trained
from ldm.objects.object_file import ObjectMetadata
from tests.fixtures.small import SMALL, SMALL_IMAGES, small_base

REFERENCE = torch.rand(1, 3, 28, 28, generator=torch.Generator().manual_seed(5)) * 2 - 1
MODES = ["crossattn-kv", "crossattn"]


def learnt(base: Base, freeze_model: str, tokens: int = 4) -> Delta:
    g = torch.Generator().manual_seed(2)
    weights = {
        name: 0.1 * torch.randn(value.shape, generator=g)
        for name, value in base.named_parameters()
        if is_trained(name, freeze_model)
    }
    metadata = ObjectMetadata(
        base=base_fingerprint(base), architecture="small", freeze_model=freeze_model, few_shot_count=tokens
    )
    return Delta(metadata, weights, tokens=torch.randn(tokens, 16, generator=g) if tokens else None)


def latents(base: Base, contexts: Contexts, steps: int) -> Tensor:
    g = torch.Generator().manual_seed(3)
    x_T, masked = torch.randn(1, 4, 16, 16, generator=g), torch.randn(1, 4, 16, 16, generator=g)
    c = Condition(masked, torch.ones(1, 1, 16, 16), contexts)
    return sample(base, c, x_T, sampler="ddim", steps=steps, guidance_scale=3)


@pytest.mark.parametrize(
    ("mode", "tokens", "steps"), [(MODES[0], 0, 4), (MODES[0], 4, 25), (MODES[1], 0, 4), (MODES[1], 4, 4)]
)
def test_a_baked_file_gives_the_deltas_latents(tmp_path: Path, mode: str, tokens: int, steps: int) -> None:
    """In fp32 within 1e-3, also after 25 steps; the file is fp16, the model has neither K, V nor CLIP."""
    base = small_base()
    save_base(base, tmp_path / "base", torch.float32)
    delta = learnt(base, mode, tokens)
    with apply(base, delta):
        context = base.context(REFERENCE)
        null = base.conditioner.unconditional(context)
        expected = latents(base, Contexts(context, null), steps)
        baked.save(bake(base, delta.metadata, REFERENCE), tmp_path / "object.safetensors")
    untuned = latents(base, base.contexts(base.context(REFERENCE)), steps)
    assert (expected - untuned).norm() > 0.05 * expected.norm()
    model, fingerprint = load_inpainting_model(tmp_path / "base", SMALL)
    assert not hasattr(model, "conditioner") and not any("attn2.to_k" in k for k in model.state_dict())
    ours = baked.contexts(baked.load(tmp_path / "object.safetensors"), model, fingerprint)
    assert (latents(model, ours, steps) - expected).norm() < 1e-3 * expected.norm()


@pytest.mark.parametrize("mode", MODES)
def test_baking_is_exact_in_float64(mode: str) -> None:
    base = small_base().double()
    delta = learnt(base, mode)
    with apply(base, delta):
        context = base.context(REFERENCE.double())
        made = bake(base, delta.metadata, REFERENCE.double())
        expected, expected_null = base.contexts(context)
    if mode == "crossattn":
        ours = baked.contexts(made, base, delta.metadata.base)
        for mine, theirs in ((ours.conditional, expected), (ours.unconditional, expected_null)):
            for name, layer in theirs.layers.items():
                for a, b in zip(mine.layers[name], layer, strict=True):
                    assert torch.allclose(a, b, rtol=0, atol=1e-12)


def test_full_size_files_are_small(tmp_path: Path) -> None:
    """Paint-by-Example's layers with 5 tokens: at most 0.35 MB and 2.5 MB."""
    sizes = 5 * [320] + 5 * [640] + 6 * [1280]
    metadata = ObjectMetadata(base="0" * 16, architecture="paint-by-example", kind="baked")
    for mode, limit in (("crossattn-kv", 0.35e6), ("crossattn", 2.5e6)):
        layers = {}
        for i, c in enumerate(sizes):
            shapes = {
                "k": (5, c),
                "v": (5, c),
                "scores": (c, 40),
                "values": (40, c),
                "bias": (c,),
                "null": (c,),
            }
            layers[f"layer{i}"] = {field: torch.zeros(shapes[field]) for field in baked.FIELDS[mode]}
        file = tmp_path / f"{mode}.safetensors"
        baked.save(baked.Baked(replace(metadata, freeze_model=mode), layers), file)
        assert file.stat().st_size <= limit


def test_another_base_or_object_scale_is_refused() -> None:
    base = small_base()
    delta = learnt(base, "crossattn-kv")
    with apply(base, delta):
        made = bake(base, delta.metadata, REFERENCE)
    with pytest.raises(ValueError, match=f"base {delta.metadata.base}.*loaded one is 00ff"):
        baked.contexts(made, base, "00ff")
    with pytest.raises(ValueError, match=r"object_scale 0\.5"):
        baked.contexts(made, base, delta.metadata.base, object_scale=0.5)


def test_a_file_of_another_shape_or_with_holes_is_refused(tmp_path: Path) -> None:
    base = small_base()
    delta = learnt(base, "crossattn-kv")
    with apply(base, delta):
        made = bake(base, delta.metadata, REFERENCE)
    name, layer = next(iter(made.layers.items()))
    narrow = baked.Baked(made.metadata, {**made.layers, name: {**layer, "null": layer["null"][:-1]}})
    with pytest.raises(ValueError, match=f"does not fit the base: {name}"):
        baked.contexts(narrow, base, delta.metadata.base)
    holed = baked.Baked(made.metadata, {**made.layers, name: {"k": layer["k"]}})
    baked.save(holed, tmp_path / "holed.safetensors")
    with pytest.raises(ValueError, match="do not hold k, v, null"):
        baked.load(tmp_path / "holed.safetensors")


@pytest.mark.parametrize("keep_picture", [True, False])
def test_an_opened_object_has_the_picture_that_it_holds(tmp_path: Path, keep_picture: bool) -> None:
    base, source = small_base(), ObjectSource(tmp_path / "b.safetensors")
    metadata = ObjectMetadata(base_fingerprint(base), "small", freeze_model="crossattn-kv")
    baked.save(bake(base, metadata, REFERENCE, keep_picture=keep_picture), tmp_path / "b.safetensors")
    session = Session(base, InsertOptions(Sampling("ddim", 2, 5.0)), images=SMALL_IMAGES)
    if keep_picture:
        assert (session.reference(source) - REFERENCE).abs().max() <= 1 / 127
    else:
        with pytest.raises(ValueError, match="no reference picture of its own; give one: --dataset-dir"):
            session.reference(source)
