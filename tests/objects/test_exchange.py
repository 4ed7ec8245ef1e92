"""The paper's .ckpt: its 146 tensors, and objects that come back from it as they went in."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from ldm.models.base import Base, base_fingerprint, house_state
from ldm.objects.applied import apply
from ldm.objects.delta import Delta, extract, trained_names
from ldm.objects.exchange import linear_for, load_ldm_delta, save_ldm_delta
from ldm.objects.few_shot import few_shot_features
from ldm.objects.file import About
from tests.fixtures import tiny

PAPER = re.compile(  # the keys of a file that the paper's code writes
    r"model\.diffusion_model\..+\.attn2\.|cond_stage_model\.(mapper|final_ln|prior_encoder)\.|proj_out\."
)
CROPS = torch.rand(4, 3, 56, 56, generator=torch.Generator().manual_seed(0)) * 2 - 1


def tuned(base: Base, mode: str, features: str = "raw") -> tuple[Delta, dict[str, Tensor]]:
    """An object with tokens, and the paper's layer that makes them."""
    generator = torch.Generator().manual_seed(1)
    own = house_state(base)
    moved = {k: v + 0.1 * torch.randn(v.shape, generator=generator) for k, v in own.items()}
    tokens = torch.randn(4, 64, generator=generator)
    about = About(base_fingerprint(base), "tiny", freeze_model=mode, few_shot="tokens", few_shot_count=4)
    names = trained_names(base, mode)
    delta = extract(own, moved, names, about, tokens=tokens, dtype=torch.float32)
    return delta, linear_for(tokens, few_shot_features(base, CROPS, features))


@pytest.mark.parametrize("mode", ["crossattn-kv", "crossattn"])
@pytest.mark.parametrize("features", ["raw", "clip"])
def test_an_object_comes_back_from_the_papers_format(tmp_path: Path, mode: str, features: str) -> None:
    base, path = tiny.loaded_base(), tmp_path / "toy.ckpt"
    delta, linear = tuned(base, mode, features)
    save_ldm_delta(path, base, delta, linear, features)
    again = load_ldm_delta(path, base, CROPS)
    with apply(base, delta):
        there = {k: v.clone() for k, v in base.state_dict().items()}
    with apply(base, again):
        back = base.state_dict()
        assert all(
            torch.equal(there[key], back[key]) for key in there if key != "conditioner.few_shot_tokens"
        )
    assert delta.tokens is not None and again.tokens is not None
    assert float((again.tokens - delta.tokens).norm() / delta.tokens.norm()) < 1e-4


@pytest.mark.parametrize("mode", ["crossattn-kv", "crossattn"])
def test_it_holds_the_papers_146_tensors(tmp_path: Path, mode: str) -> None:
    base, path = tiny.loaded_base(), tmp_path / "toy.ckpt"
    save_ldm_delta(path, base, *tuned(base, mode), "raw")
    state = torch.load(path, weights_only=True)["state_dict"]
    expected = {key: shape for key, shape in tiny.shapes().items() if PAPER.match(key)}
    assert len(state) == 146
    assert {key: list(value.shape) for key, value in state.items()} == expected
    assert all(value.dtype == torch.float32 for value in state.values())


def test_a_file_of_the_papers_code_means_what_it_meant(tmp_path: Path) -> None:
    """Its context, from its weights and pixels 0-255 with swapped axes, is the reference value."""
    base, golden = tiny.loaded_base(), tiny.golden()
    state = {key: value for key, value in tiny.ldm_state().items() if PAPER.match(key)}
    assert len(state) == 146
    torch.save({"state_dict": state}, tmp_path / "paper.ckpt")
    crops = golden["reference_code.few_shot_crops"].permute(0, 3, 1, 2).float() / 127.5 - 1
    delta = load_ldm_delta(tmp_path / "paper.ckpt", base, crops)
    with apply(base, delta):
        c = base.conditioner
        context = c(c.pooled(golden["cond.reference"]), c.few_shot())
    assert torch.allclose(context, golden["reference_code.context"], atol=1e-4)


def test_an_object_without_few_shot_tokens_has_no_prior_encoder(tmp_path: Path) -> None:
    base, path = tiny.loaded_base(), tmp_path / "toy.ckpt"
    delta, _ = tuned(base, "crossattn")
    save_ldm_delta(path, base, replace(delta, tokens=None), {}, "raw")
    assert len(torch.load(path, weights_only=True)["state_dict"]) == 144
    again = load_ldm_delta(path, base, CROPS)
    assert again.tokens is None and again.about.few_shot_count == 0


def test_another_base_is_refused(tmp_path: Path) -> None:
    base, path = tiny.loaded_base(), tmp_path / "toy.ckpt"
    delta, linear = tuned(base, "crossattn")
    save_ldm_delta(path, base, replace(delta, about=replace(delta.about, base="0" * 16)), linear, "raw")
    with pytest.raises(ValueError, match="0000000000000000"):
        apply(base, load_ldm_delta(path, base, CROPS))


def test_other_weights_are_refused(tmp_path: Path) -> None:
    base = tiny.loaded_base()
    for name, state in {
        "frozen": {"model.diffusion_model.time_embed.0.bias": torch.zeros(128)},
        "shape": {"proj_out.bias": torch.zeros(3)},
        "prior": {
            f"cond_stage_model.prior_encoder.prior_block.1.{k}": torch.zeros(64, 9)
            for k in ("weight", "bias")
        },
    }.items():
        torch.save({"state_dict": state}, tmp_path / f"{name}.ckpt")
        with pytest.raises(ValueError, match=r"does not fit|this base needs"):
            load_ldm_delta(tmp_path / f"{name}.ckpt", base, CROPS)


def test_equal_pictures_with_different_tokens_have_no_layer() -> None:
    features = torch.ones(2, 3, 4)
    with pytest.raises(ValueError, match="the same"):
        linear_for(torch.tensor([[1.0, 2], [3, 4]]), features)
    weight = linear_for(torch.tensor([[1.0, 2], [1, 2]]), features)[
        "conditioner.prior_encoder.prior_block.1.weight"
    ]
    assert torch.allclose(features.flatten(1) @ weight.T, torch.tensor([[1.0, 2], [1, 2]]))
