"""Object files: apply(extract(tuned)) is tuned, taking off restores every bit, bad files are refused."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load as load_bytes
from safetensors.torch import save_file
from torch import Tensor

from ldm.models.base import Base, base_fingerprint, base_state
from ldm.models.checkpoint import read_metadata
from ldm.objects.delta import FREEZE_MODELS, Delta, apply, extract, load, save, trained_names
from ldm.objects.object_file import ObjectMetadata, write_object
from tests.fixtures.small import small_base, state_of


def metadata(base: Base, **changes: Any) -> ObjectMetadata:
    facts = {"freeze_model": "crossattn", "few_shot": "tokens", "few_shot_count": 3, "step": 7}
    return ObjectMetadata(
        base_fingerprint(base), "small", **(facts | {"recipe": {"lr": 0.5, "of": [1]}} | changes)
    )


def tuned_state(base: Base) -> dict[str, Tensor]:
    """The base's weights, moved by little or much, or replaced by some that no fp32 difference reaches."""
    generator = torch.Generator().manual_seed(1)

    def moved(x: Tensor) -> Tensor:
        noise, choice = (torch.randn(x.shape, generator=generator) for _ in range(2))
        return torch.where(choice > 1, 1e-3 * noise, x + noise * 10 ** (choice - 2))

    return {key: moved(x) if x.is_floating_point() else x for key, x in base_state(base).items()}


def make(base: Base, dtype: torch.dtype = torch.float16, mode: str = "crossattn", **changes: Any) -> Delta:
    state, tuned = base_state(base), tuned_state(base)
    tokens = torch.randn(3, 16, generator=torch.Generator().manual_seed(2))
    reference = torch.arange(3 * 28 * 28).reshape(3, 28, 28).to(torch.uint8)
    facts = metadata(base, freeze_model=mode, **changes)
    names = trained_names(base, mode)
    return extract(state, tuned, names, facts, tokens=tokens, reference=reference, dtype=dtype)


def same(state: dict[str, Tensor], base: Base) -> bool:
    now = base.state_dict()
    return state.keys() == now.keys() and all(torch.equal(state[key], now[key]) for key in state)


@pytest.mark.parametrize("mode", FREEZE_MODELS)
def test_which_weights_an_object_changes(mode: str) -> None:
    base = small_base()
    base.conditioner.use_tokens(torch.zeros(2, 16))
    names = trained_names(base, mode)
    layers = 2 * (1 + 2) + 1  # down, up, middle
    assert sum("attn2" in name for name in names) == layers * (2 if mode == "crossattn-kv" else 5)
    conditioner = {name.split(".")[1] for name in names if name.startswith("conditioner.")}
    assert conditioner == {"mapper", "final_ln", "proj_out", "learnable_vector", "few_shot_tokens"}
    assert not any("attn1" in name or "clip" in name or name.startswith("vae") for name in names)


def test_the_papers_tensors_are_counted() -> None:
    from tests.fixtures.tiny import TINY

    names = trained_names(Base(TINY), "crossattn")
    assert sum("attn2" in name for name in names) == 80
    assert len(names) == 146 - 2 + 1  # no prior encoder, and the learnable vector


@pytest.mark.parametrize("mode", FREEZE_MODELS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_apply_after_extract_is_tuned(tmp_path: Path, dtype: torch.dtype, mode: str) -> None:
    base = small_base()
    before, tuned = state_of(base), tuned_state(base)
    save(make(base, dtype, mode), tmp_path / "toy.safetensors")
    delta = load(tmp_path / "toy.safetensors")
    names = [name for name in trained_names(base, mode) if "few_shot" not in name]
    apply(base, delta)
    now = base.state_dict()
    for name in names:
        if dtype == torch.float32:
            assert torch.equal(now[name], tuned[name]), name
        else:
            bound = (tuned[name] - before[name]).abs() * 2**-11 + 1e-6
            assert ((now[name] - tuned[name]).abs() <= bound).all(), name
    for name in before.keys() - set(names):
        assert torch.equal(now[name], before[name]), name
    assert torch.equal(now["conditioner.few_shot_tokens"], delta.tokens)  # type: ignore[arg-type]


def test_differences_alone_would_not_be_exact() -> None:
    base, tuned = base_state(small_base()), tuned_state(small_base())
    names = trained_names(small_base(), "crossattn")
    assert not all(torch.equal(base[name] + (tuned[name] - base[name]), tuned[name]) for name in names)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_remove_restores_every_bit(dtype: torch.dtype) -> None:
    base = small_base()
    before, context = state_of(base), base.context(torch.zeros(1, 3, 28, 28))
    with apply(base, make(base, dtype), object_scale=0.7):
        assert not same(before, base) and base.context(torch.zeros(1, 3, 28, 28)).shape[1] == 4
    assert same(before, base)
    applied = apply(base, make(base, dtype))
    applied.remove()
    applied.remove()
    assert same(before, base)
    assert torch.equal(context, base.context(torch.zeros(1, 3, 28, 28)))


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
@pytest.mark.parametrize("object_scale", [0.0, 0.5, 1.5])
def test_object_scale_scales_the_difference(dtype: torch.dtype, object_scale: float) -> None:
    base = small_base()
    before, tuned = state_of(base), tuned_state(base)
    apply(base, make(base, dtype), object_scale)
    for name in (
        "conditioner.final_ln.weight",
        "unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_q.weight",
    ):
        expected = before[name] + object_scale * (tuned[name] - before[name])
        assert torch.allclose(base.state_dict()[name], expected, atol=1e-3)


def test_all_metadata_are_read_back(tmp_path: Path) -> None:
    base = small_base()
    delta = make(base, author="Ada", licence="CC0", date="2026-01-01")
    save(delta, tmp_path / "toy.safetensors")
    again = load(tmp_path / "toy.safetensors")
    assert again.metadata == delta.metadata
    assert torch.equal(again.reference, delta.reference)  # type: ignore[arg-type]
    assert torch.equal(again.tokens, delta.tokens)  # type: ignore[arg-type]
    assert read_metadata(tmp_path / "toy.safetensors")["kind"] == "delta"


def test_fp16_files_are_small(tmp_path: Path) -> None:
    base = small_base()
    for dtype in (torch.float16, torch.float32):
        save(make(base, dtype), tmp_path / f"{dtype}.safetensors")
    sizes = [(tmp_path / f"{dtype}.safetensors").stat().st_size for dtype in (torch.float16, torch.float32)]
    assert sizes[0] < 0.6 * sizes[1]


def test_another_base_is_refused_and_left_alone() -> None:
    base, other = small_base(), small_base(seed=1)
    before = state_of(other)
    both = f"{base_fingerprint(base)}.*{base_fingerprint(other)}"
    with pytest.raises(ValueError, match=both):
        apply(other, make(base))
    assert same(before, other)


def test_an_interrupted_application_leaves_the_base_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    base = small_base()
    before = state_of(base)

    def interrupted(tokens: Tensor) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(base.conditioner, "use_tokens", interrupted)
    with pytest.raises(KeyboardInterrupt):
        apply(base, make(base, torch.float16))
    assert same(before, base)


def test_two_objects_at_once_are_refused() -> None:
    base = small_base()
    delta = make(base)
    apply(base, delta)
    with pytest.raises(ValueError, match="another object is applied"):
        apply(base, delta)


def test_a_cast_base_takes_objects_with_its_own_fingerprint() -> None:
    base = small_base()
    delta, fingerprint = make(base), base_fingerprint(base)
    base.bfloat16()
    apply(base, delta, fingerprint=fingerprint)
    assert base.conditioner.few_shot().dtype == torch.bfloat16  # type: ignore[union-attr]


@pytest.mark.parametrize("name", ["conditioner.proj_out.bias", "few_shot_tokens"])
def test_wrong_shapes_are_named(name: str) -> None:
    base = small_base()
    delta = make(base)
    if name == "few_shot_tokens":
        delta = replace(delta, tokens=torch.zeros(3, 5))
    else:
        delta = replace(delta, weights=dict(delta.weights) | {name: torch.zeros(3)})
    before = state_of(base)
    with pytest.raises(ValueError, match=re.escape(name)):
        apply(base, delta)
    assert same(before, base)


def test_frozen_weights_in_a_file_are_refused() -> None:
    base = small_base()
    delta = replace(make(base), weights={"unet.conv_in.bias": torch.zeros(32)})
    with pytest.raises(ValueError, match=r"unet\.conv_in\.bias"):
        apply(base, delta)


def test_a_nan_is_neither_written_nor_read(tmp_path: Path) -> None:
    base, path = small_base(), tmp_path / "toy.safetensors"
    delta = make(base)
    bad = {name: value.clone() for name, value in delta.weights.items()}
    bad["conditioner.proj_out.bias"][0] = torch.nan
    with pytest.raises(ValueError, match=r"NaN.*proj_out\.bias"):
        save(replace(delta, weights=bad), path)
    assert not list(tmp_path.iterdir())
    save(delta, path)
    tensors = load_bytes(path.read_bytes()) | {
        "delta.conditioner.proj_out.bias": torch.full((16,), torch.inf)
    }
    save_file(tensors, path, read_metadata(path))
    with pytest.raises(ValueError, match=r"infinite.*proj_out\.bias"):
        load(path)


def test_damaged_and_foreign_files_are_one_line(tmp_path: Path) -> None:
    base, path = small_base(), tmp_path / "toy.safetensors"
    save(make(base), path)
    whole, metadata, tensors = path.read_bytes(), read_metadata(path), load_bytes(path.read_bytes())

    def refused(reason: str) -> None:
        with pytest.raises(ValueError, match=reason) as error:
            load(path)
        assert "\n" not in str(error.value)

    path.write_bytes(whole[: len(whole) // 2])
    refused("damaged")
    save_file(tensors, path, metadata | {"version": "99"})
    refused("version 99")
    save_file(tensors, path, metadata | {"kind": "baked"})
    refused("kind 'baked'")
    save_file(tensors, path, metadata | {"recipe": "{"})
    refused("metadata are damaged")
    save_file(tensors, path, {k: v for k, v in metadata.items() if k != "step"})
    refused("metadata are damaged")
    save_file(tensors | {"surprise": torch.zeros(1)}, path, metadata)
    refused("surprise")
    save_file({k: v for k, v in tensors.items() if k != "few_shot_tokens"}, path, metadata)
    refused("3 few-shot tokens")
    save_file(tensors, path)
    refused("no object file")
    key = "cond_stage_model.final_ln.weight"
    torch.save({"state_dict": {key: torch.zeros(1)}}, tmp_path / "a.ckpt")
    with pytest.raises(ValueError, match="pickled"):
        load(tmp_path / "a.ckpt")
    with pytest.raises(FileNotFoundError, match=r"get_deltas\.sh"):
        load(tmp_path / "none.safetensors")


def test_an_object_without_few_shot_tokens(tmp_path: Path) -> None:
    base = small_base()
    before = state_of(base)
    save(replace(make(base, few_shot="none", few_shot_count=0), tokens=None), tmp_path / "toy.safetensors")
    applied = apply(base, load(tmp_path / "toy.safetensors"))
    assert base.conditioner.few_shot() is None
    applied.remove()
    assert same(before, base)


def test_a_state_of_another_base_is_no_source() -> None:
    base = small_base()
    with pytest.raises(ValueError, match="not in both"):
        extract(base_state(base), {}, trained_names(base, "crossattn"), metadata(base))


def test_writing_is_atomic(tmp_path: Path) -> None:
    path = tmp_path / "toy.safetensors"
    path.write_bytes(b"old")
    with pytest.raises(ValueError, match="NaN"):
        write_object(path, {"x": torch.tensor([torch.nan])}, metadata(small_base()))
    assert path.read_bytes() == b"old"
