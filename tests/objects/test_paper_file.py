"""The paper's .ckpt: its 146 tensors, and objects that come back from it as they went in."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from torch import Tensor

from ldm.data.insertset import load_insertset
from ldm.data.object_crops import ObjectImages, paper_crops
from ldm.models.base import Base, base_fingerprint, base_state
from ldm.objects.delta import Delta, apply, extract, trained_names
from ldm.objects.few_shot import FewShotLayer, few_shot_features, layer_for, linear_for
from ldm.objects.object_file import ObjectMetadata
from ldm.objects.paper_file import (
    OWN,
    PAPER,
    is_paper_training,
    load_paper_file,
    read_with_pictures,
    trim_training,
    write_paper_file,
)
from tests.fixtures import tiny
from tests.fixtures.ldm_names import diffusers_to_ldm
from tests.fixtures.objects import learnt
from tests.fixtures.small import SMALL_IMAGES, object_folder, small_base

TENSORS = re.compile(  # the keys of a file that the paper's code writes
    r"model\.diffusion_model\..+\.attn2\.|cond_stage_model\.(mapper|final_ln|prior_encoder)\.|proj_out\."
)
CROPS = torch.rand(4, 3, 56, 56, generator=torch.Generator().manual_seed(0)) * 2 - 1


def tuned(base: Base, mode: str, features: str = "raw") -> tuple[Delta, FewShotLayer]:
    """An object with tokens, and the paper's layer that makes them."""
    generator = torch.Generator().manual_seed(1)
    own = base_state(base)
    moved = {k: v + 0.1 * torch.randn(v.shape, generator=generator) for k, v in own.items()}
    tokens = torch.randn(4, 64, generator=generator)
    metadata = ObjectMetadata(
        base_fingerprint(base), "tiny", freeze_model=mode, few_shot="tokens", few_shot_count=4
    )
    names = trained_names(base, mode)
    delta = extract(own, moved, names, metadata, tokens=tokens, dtype=torch.float32)
    return delta, FewShotLayer(linear_for(tokens, few_shot_features(base, CROPS, features)), features)


@pytest.mark.parametrize("mode", ["crossattn-kv", "crossattn"])
@pytest.mark.parametrize("features", ["raw", "clip"])
def test_an_object_comes_back_from_the_papers_format(tmp_path: Path, mode: str, features: str) -> None:
    base, path = tiny.loaded_base(), tmp_path / "toy.ckpt"
    delta, layer = tuned(base, mode, features)
    write_paper_file(path, base, delta, layer)
    again = load_paper_file(path, base, CROPS)
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
    write_paper_file(path, base, *tuned(base, mode))
    state = torch.load(path, weights_only=True)["state_dict"]
    expected = {key: shape for key, shape in tiny.shapes().items() if TENSORS.match(key)}
    assert len(state) == 146
    assert {key: list(value.shape) for key, value in state.items()} == expected
    assert all(value.dtype == torch.float32 for value in state.values())


def test_a_file_of_the_papers_code_means_what_it_meant(tmp_path: Path) -> None:
    """Its context, from its weights and pixels 0-255 with swapped axes, is the reference value."""
    base, golden = tiny.loaded_base(), tiny.golden()
    state = {key: value for key, value in tiny.ldm_state().items() if TENSORS.match(key)}
    assert len(state) == 146
    torch.save({"state_dict": state}, tmp_path / "paper.ckpt")
    crops = golden["reference_code.few_shot_crops"].permute(0, 3, 1, 2).float() / 127.5 - 1
    delta = load_paper_file(tmp_path / "paper.ckpt", base, crops)
    with apply(base, delta):
        c = base.conditioner
        context = c(c.pooled(golden["cond.reference"]), c.few_shot())
    assert torch.allclose(context, golden["reference_code.context"], atol=1e-4)


def test_an_object_without_few_shot_tokens_has_no_prior_encoder(tmp_path: Path) -> None:
    base, path = tiny.loaded_base(), tmp_path / "toy.ckpt"
    delta, _ = tuned(base, "crossattn")
    write_paper_file(path, base, replace(delta, tokens=None), FewShotLayer())
    assert len(torch.load(path, weights_only=True)["state_dict"]) == 144
    again = load_paper_file(path, base, CROPS)
    assert again.tokens is None and again.metadata.few_shot_count == 0


def test_another_base_is_refused(tmp_path: Path) -> None:
    base, path = tiny.loaded_base(), tmp_path / "toy.ckpt"
    delta, layer = tuned(base, "crossattn")
    write_paper_file(path, base, replace(delta, metadata=replace(delta.metadata, base="0" * 16)), layer)
    with pytest.raises(ValueError, match="0000000000000000"):
        apply(base, load_paper_file(path, base, CROPS))


PRIOR = "cond_stage_model.prior_encoder.prior_block"


@pytest.mark.parametrize(
    "shapes",
    [
        {"model.diffusion_model.time_embed.0.bias": (128,)},
        {"proj_out.bias": (3,)},
        {"cond_stage_model.mapper.resblocks.9.ln_1.bias": (64,)},
        {f"{PRIOR}.0.bias": (64,)},
        {f"{PRIOR}.1.bias": (64,)},
        {f"{PRIOR}.1.bias": (64,), f"{PRIOR}.1.weight": (64, 9)},
    ],
)
def test_other_weights_are_refused(tmp_path: Path, shapes: dict[str, tuple[int, ...]]) -> None:
    """Frozen ones, other shapes, a deeper mapper, parts of a prior encoder, that of another CLIP."""
    state = {name: torch.zeros(shape) for name, shape in shapes.items()}
    torch.save({"state_dict": state}, tmp_path / "other.ckpt")
    with pytest.raises(ValueError, match=r"does not fit|this base needs"):
        load_paper_file(tmp_path / "other.ckpt", tiny.loaded_base(), CROPS)


def test_equal_pictures_with_different_tokens_have_no_layer() -> None:
    features = torch.ones(2, 3, 4)
    with pytest.raises(ValueError, match="the same"):
        linear_for(torch.tensor([[1.0, 2], [3, 4]]), features)
    weight = linear_for(torch.tensor([[1.0, 2], [1, 2]]), features)[
        "conditioner.prior_encoder.prior_block.1.weight"
    ]
    assert torch.allclose(features.flatten(1) @ weight.T, torch.tensor([[1.0, 2], [1, 2]]))
    with pytest.raises(ValueError, match="1 few-shot tokens, the folder 2 pictures"):
        linear_for(torch.ones(1, 2), features)


def test_a_file_of_torch_before_1_6_is_read(tmp_path: Path) -> None:
    """It is no zip and cannot be mapped."""
    base, zipped, legacy = tiny.loaded_base(), tmp_path / "toy.ckpt", tmp_path / "legacy.ckpt"
    write_paper_file(zipped, base, *tuned(base, "crossattn"))
    torch.save(torch.load(zipped, weights_only=True), legacy, _use_new_zipfile_serialization=False)
    assert legacy.read_bytes()[:2] != b"PK"
    one, other = (load_paper_file(path, base, CROPS) for path in (zipped, legacy))
    assert one.weights.keys() == other.weights.keys() and one.metadata.base == other.metadata.base
    assert all(torch.equal(value, other.weights[key]) for key, value in one.weights.items())  # type: ignore[arg-type]
    assert one.tokens is not None and other.tokens is not None and torch.equal(one.tokens, other.tokens)


def training_checkpoint(path: Path, change: float = 0.1) -> dict[str, Tensor]:
    """What the paper's code leaves beside its logs: the whole model in Lightning's file; its state dict."""
    generator = torch.Generator().manual_seed(3)
    state = {key: value.clone() for key, value in tiny.ldm_state().items()}
    for key in state:
        if TENSORS.match(key) or key == "learnable_vector":
            state[key] += change * torch.randn(state[key].shape, generator=generator)
    extra = {
        "betas": torch.zeros(1000),
        "cond_stage_model.transformer.vision_model.embeddings.position_ids": torch.arange(17)[None],
        "first_stage_model.loss.logvar": torch.zeros(()),
    }
    torch.save(
        {
            "epoch": 3,
            "global_step": 40,
            "pytorch-lightning_version": "1.4.2",
            "state_dict": state | extra,
            "callbacks": {ModelCheckpoint: {"best_model_score": None}},
            "optimizer_states": [{"state": {0: {"exp_avg": torch.zeros(5)}}, "param_groups": [{"lr": 1e-5}]}],
            "lr_schedulers": [{"base_lrs": [1e-5], "lr_lambdas": [None]}],
        },
        path,
    )
    return state


def test_a_training_checkpoint_of_the_papers_code_is_the_object_in_it(tmp_path: Path) -> None:
    base, whole, small = tiny.loaded_base(), tmp_path / "last.ckpt", tmp_path / "small.ckpt"
    state = training_checkpoint(whole)
    assert is_paper_training(whole)
    delta = load_paper_file(whole, base, CROPS)
    trim_training(whole, small)
    kept = torch.load(small, weights_only=True)["state_dict"]
    assert len(kept) == 146 and all(torch.equal(value, state[key]) for key, value in kept.items())
    assert not is_paper_training(small)
    again = load_paper_file(small, base, CROPS)
    for read in (delta, again):
        assert read.metadata.step == 40 and read.metadata.few_shot == "linear" and read.tokens is not None
        with apply(base, read):
            now = diffusers_to_ldm(base_state(base))
            assert all(torch.equal(now[key], state[key]) for key in now)
    assert torch.equal(delta.tokens, again.tokens)  # type: ignore[arg-type]


def test_a_training_checkpoint_of_another_base_and_a_base_itself_are_refused(tmp_path: Path) -> None:
    base, path = tiny.loaded_base(), tmp_path / "last.ckpt"
    training_checkpoint(path, change=0)
    with pytest.raises(ValueError, match="holds nothing learnt"):
        load_paper_file(path, base, CROPS)
    training_checkpoint(path)
    with pytest.raises(ValueError, match="is a training checkpoint; extract it"):
        load_paper_file(path, base, CROPS, fingerprint=base_fingerprint(base))
    with torch.no_grad():
        base.unet.conv_in.weight += 1
    with pytest.raises(ValueError, match=r"does not fit the tiny base: unet\.conv_in\.weight differ"):
        load_paper_file(path, base, CROPS)
    with pytest.raises(ValueError, match="no training checkpoint of the paper's code"):
        torch.save({"state_dict": {"proj_out.bias": torch.zeros(48)}}, path)
        trim_training(path, tmp_path / "out.ckpt")


def test_a_file_names_the_pictures_that_it_was_learnt_from(tmp_path: Path) -> None:
    base, path = small_base(), tmp_path / "toy.ckpt"
    insertset = load_insertset(object_folder(tmp_path / "toy", few_shot=4))
    delta = learnt(base)
    delta = replace(delta, metadata=replace(delta.metadata, recipe={"train": {"hold_out": "1"}}))
    layer = layer_for(delta, base, insertset)
    assert (layer.pictures, layer.held_out) == (("0", "2", "3"), "1")
    write_paper_file(path, base, delta, layer)
    again = read_with_pictures(path, base, insertset, SMALL_IMAGES)
    assert delta.tokens is not None and again.tokens is not None
    assert torch.allclose(again.tokens, delta.tokens, atol=1e-3 * float(delta.tokens.abs().max()))
    assert layer_for(again, base, insertset).pictures == layer.pictures, "an imported one knows it too"
    fewer = load_insertset(object_folder(tmp_path / "fewer", few_shot=3))
    with pytest.raises(ValueError, match="no few-shot picture 3, which this object was learnt from"):
        read_with_pictures(path, base, fewer, SMALL_IMAGES)
    with pytest.raises(ValueError, match="--dataset-dir"):
        read_with_pictures(path, base, None, SMALL_IMAGES)


def test_files_of_the_papers_code_read_its_crops_and_our_earlier_ones_their_own(tmp_path: Path) -> None:
    base = small_base()
    insertset = load_insertset(object_folder(tmp_path / "toy"))
    crops = {PAPER: paper_crops(insertset, 28), OWN: ObjectImages(28).few_shot(insertset)}
    delta = learnt(base)
    assert delta.tokens is not None
    for cut, keys in ((PAPER, ()), (OWN, ("few_shot_features",))):
        layer = FewShotLayer(linear_for(delta.tokens, few_shot_features(base, crops[cut], "raw")))
        (tmp_path / "x.ckpt").unlink(missing_ok=True)
        write_paper_file(tmp_path / "x.ckpt", base, delta, layer)
        file = torch.load(tmp_path / "x.ckpt", weights_only=True)
        torch.save({key: file[key] for key in ("state_dict", *keys)}, tmp_path / "x.ckpt")
        tokens = read_with_pictures(tmp_path / "x.ckpt", base, insertset, SMALL_IMAGES).tokens
        assert tokens is not None and float((tokens - delta.tokens).norm() / delta.tokens.norm()) < 1e-3, cut
