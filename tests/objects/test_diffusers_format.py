"""Objects as diffusers state dicts: taken by a plain UNet, and back as they were."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from ldm.models.architecture import build_unet
from ldm.objects.convert import conditioner_file, load_diffusers, save_diffusers
from ldm.objects.delta import apply, load, save
from tests.fixtures.objects import as_tuned, learnt
from tests.fixtures.small import SMALL, small_base, state_of


@pytest.mark.parametrize("mode", ["crossattn-kv", "crossattn"])
@pytest.mark.parametrize("absolute", [False, True])
def test_an_object_comes_back_exact(tmp_path: Path, mode: str, absolute: bool) -> None:
    base, path = small_base(), tmp_path / "x.safetensors"
    delta = learnt(base, mode=mode, author="Ada")
    delta = as_tuned(delta, base) if absolute else delta
    save_diffusers(path, base, delta)
    again = load_diffusers(path, base)
    assert again.metadata == delta.metadata and torch.equal(again.reference, delta.reference)  # type: ignore[arg-type]
    with apply(base, delta):
        expected = state_of(base)
    with apply(base, again):
        assert all(torch.equal(value, expected[key]) for key, value in base.state_dict().items())


@pytest.mark.parametrize("mode, per_layer", [("crossattn-kv", 2), ("crossattn", 5)])
def test_a_unet_of_diffusers_takes_it(tmp_path: Path, mode: str, per_layer: int) -> None:
    base, path = small_base(), tmp_path / "x.safetensors"
    unet = build_unet(SMALL)
    unet.load_state_dict(base.unet.state_dict())
    delta = learnt(base, mode=mode)
    save_diffusers(path, base, delta)
    state = load_file(path)
    assert len(state) == 7 * per_layer and all(value.dtype == torch.float32 for value in state.values())
    assert not unet.load_state_dict(state, strict=False).unexpected_keys
    with apply(base, delta):
        tuned = base.unet.state_dict()
        assert all(torch.equal(value, tuned[key]) for key, value in unet.state_dict().items())


def test_a_whole_unet_that_another_program_tuned_becomes_an_object(tmp_path: Path) -> None:
    base, path = small_base(), tmp_path / "unet.safetensors"
    before = state_of(base)
    with apply(base, replace(learnt(base), tokens=None)):
        tuned = {key: value.clone() for key, value in base.unet.state_dict().items()}
    save_file(tuned, path)
    delta = load_diffusers(path, base)
    assert (delta.metadata.freeze_model, len(delta.weights), delta.tokens) == ("crossattn-kv", 14, None)
    save(delta, tmp_path / "x.safetensors")
    with apply(base, load(tmp_path / "x.safetensors")):
        assert all(torch.equal(value, tuned[key]) for key, value in base.unet.state_dict().items())
        assert torch.equal(base.conditioner.proj_out.weight, before["conditioner.proj_out.weight"])


@pytest.mark.parametrize(
    "case, hint",
    [
        ("frozen", "more than the cross-attention.*conv_in"),
        ("same", "the base's own weights"),
        ("names", "does not fit the small base: unet.what"),
        ("shape", "does not fit the small base: unet.conv_in.bias"),
        ("truncated", "cut off"),
    ],
)
def test_other_state_dicts_are_refused(tmp_path: Path, case: str, hint: str) -> None:
    base, path = small_base(), tmp_path / "x.safetensors"
    state = state_of(base.unet)  # type: ignore[arg-type]
    if case == "frozen":
        state["conv_in.bias"] += 1
    elif case != "same":
        state |= {"what": torch.zeros(1)} if case == "names" else {"conv_in.bias": torch.zeros(3)}
    save_file(state, path)
    if case == "truncated":
        path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ValueError, match=hint) as error:
        load_diffusers(path, base)
    assert "\n" not in str(error.value)


def test_halves_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    base = small_base()
    paths = [tmp_path / "a.safetensors", tmp_path / "b.safetensors"]
    for seed, path in enumerate(paths):
        save_diffusers(path, base, learnt(base, seed))
    conditioner_file(paths[1]).replace(conditioner_file(paths[0]))
    with pytest.raises(ValueError, match="belongs to another object"):
        load_diffusers(paths[0], base)
    with pytest.raises(FileNotFoundError, match=r"b\.conditioner\.safetensors is missing"):
        load_diffusers(paths[1], base)


def test_another_base_is_refused(tmp_path: Path) -> None:
    base, other, path = small_base(), small_base(seed=1), tmp_path / "x.safetensors"
    with pytest.raises(ValueError, match="is for the base"):
        save_diffusers(path, other, learnt(base))
    assert not list(tmp_path.iterdir())
    save_diffusers(path, base, learnt(base))
    with pytest.raises(ValueError, match="is for the base"):
        load_diffusers(path, other)
