"""A file of several objects: each of them makes the same of its tokens as its own file did."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from ldm.data.image import to_bytes
from ldm.insertion.inpaint import Sampling
from ldm.insertion.insert import InsertOptions
from ldm.insertion.object_source import ObjectSource
from ldm.insertion.session import Session
from ldm.merge.merge import merge, merge_input
from ldm.merge.merged_file import Merged, apply_merged, load_merged, open_merged, save_merged
from ldm.models.base import Base
from ldm.models.checkpoint import read_metadata
from ldm.models.cross_attention import cross_attentions
from ldm.objects.delta import Delta, apply
from ldm.objects.object_context import reference_of
from tests.fixtures.objects import learnt
from tests.fixtures.small import SMALL, SMALL_IMAGES, state_of


def wide_base() -> Base:
    """The small base with a context as wide as Paint-by-Example's."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Base(replace(SMALL, name="wide", context_width=768)).eval().requires_grad_(False)


def made(base: Base) -> tuple[dict[str, Delta], Merged]:
    """Three objects with other numbers of tokens, alone and merged."""
    objects = {
        name: learnt(base, i, tokens=i or None, author=name, size=0.2)
        for i, name in enumerate(["a", "b.1", "c d"])
    }
    members = [
        merge_input(base, delta, name, SMALL_IMAGES, {"name": name, "author": name})
        for name, delta in objects.items()
    ]
    return objects, merge(members)[0]


def test_every_object_inserts_what_it_did_alone(tmp_path: Path) -> None:
    base = wide_base()
    before = state_of(base)
    objects, merged = made(base)
    save_merged(merged, tmp_path / "all.safetensors")
    merged = load_merged(tmp_path / "all.safetensors")
    for name, delta in objects.items():
        with apply(base, delta):
            context = base.context(reference_of(delta))[0]
            layers = {
                key: (layer.to_k(context), layer.to_v(context)) for key, layer in cross_attentions(base.unet)
            }
            null = base.conditioner.learnable_vector[0, 0].clone()
            own = {key: layer.to_v(null) for key, layer in cross_attentions(base.unet)}
        with apply_merged(base, merged):
            mine, unconditional = merged.contexts(name)
            assert torch.equal(mine[0], context) and unconditional.shape == mine.shape
            assert torch.equal(unconditional[0, -1], null)
            for key, layer in cross_attentions(base.unet):
                for kept, now in (
                    (layers[key][0], layer.to_k(mine[0])),
                    (layers[key][1], layer.to_v(mine[0])),
                    (own[key], layer.to_v(unconditional[0, 0])),
                ):
                    assert float((now - kept).norm() / kept.norm()) < 1e-3
    assert all(torch.equal(value, before[key]) for key, value in base.state_dict().items())


def test_the_file_names_its_objects(tmp_path: Path) -> None:
    _, merged = made(wide_base())
    save_merged(merged, tmp_path / "all.safetensors")
    again = load_merged(tmp_path / "all.safetensors")
    assert (
        again.metadata == merged.metadata
        and again.metadata.kind == "merged"
        and again.names == ["a", "b.1", "c d"]
    )
    assert again.metadata.author == "a; b.1; c d"
    assert [parent["name"] for parent in again.metadata.parents] == again.names
    assert set(again.metadata.recipe["merged"]["residual"]) == set(again.names)
    for part in ("weights", "context", "unconditional"):
        assert all(torch.equal(getattr(again, part)[k], v) for k, v in getattr(merged, part).items())


def test_an_unknown_name_is_refused() -> None:
    _, merged = made(wide_base())
    with pytest.raises(ValueError, match=r"no object x in this file; there are a, b\.1, c d"):
        merged.contexts("x")


def test_object_scale_scales_the_change_of_the_weights() -> None:
    base = wide_base()
    before = state_of(base)
    _, merged = made(base)
    with apply_merged(base, merged, object_scale=0.5):
        for name, change in merged.weights.items():
            assert torch.allclose(base.state_dict()[name], before[name] + 0.5 * change.float())


def test_an_opened_object_has_its_own_reference_and_takes_no_other(tmp_path: Path) -> None:
    base, file = wide_base(), tmp_path / "all.safetensors"
    pictures = {"a": torch.randint(256, (3, 28, 28), dtype=torch.uint8)}
    save_merged(replace(made(base)[1], references=pictures), file)
    session = Session(
        base, InsertOptions(Sampling("ddim", 2, 5.0)), images=SMALL_IMAGES, loaders={"merged": open_merged}
    )
    assert torch.equal(to_bytes(session.reference(ObjectSource(file, pick="a"))[0]), pictures["a"])
    session.zero_shot(ObjectSource(file, pick="a"))
    with pytest.raises(ValueError, match=r"no reference picture of its own; give one: --dataset-dir FOLDER"):
        session.reference(ObjectSource(file, pick="b.1"))
    with pytest.raises(ValueError, match=r"takes? no other reference; leave .*r\.png out"):
        session.load_object(ObjectSource(file, tmp_path / "r.png", pick="a"))


def test_a_wrong_base_is_refused_and_left_alone() -> None:
    base = wide_base()
    _, merged = made(base)
    before = state_of(base)
    for wrong, hint in (
        (replace(merged, metadata=replace(merged.metadata, base="0" * 16)), "0000000000000000"),
        (replace(merged, context={"a": torch.zeros(2, 5)}), "width 768"),
        (replace(merged, weights={"unet.conv_in.bias": torch.zeros(32)}), r"conv_in\.bias"),
    ):
        with pytest.raises(ValueError, match=hint):
            apply_merged(base, wrong)
    assert all(torch.equal(value, before[key]) for key, value in base.state_dict().items())


@pytest.mark.parametrize("damage", ["missing", "surprise", "shape", "none", "version", "truncated", "nan"])
def test_damaged_files_are_one_line(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "all.safetensors"
    save_merged(made(wide_base())[1], path)
    tensors, metadata = load_file(path), read_metadata(path)
    if damage == "missing":
        del tensors["unconditional.a"]
    elif damage == "surprise":
        tensors["surprise"] = torch.zeros(1)
    elif damage == "shape":
        tensors["context.a"] = torch.zeros(3)
    elif damage == "none":
        tensors = {key: value for key, value in tensors.items() if key.startswith("delta.")}
    elif damage == "nan":
        tensors["context.a"][0, 0] = torch.nan
    metadata |= {"version": "5"} if damage == "version" else {}
    save_file(tensors, path, metadata)
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"all\.safetensors") as error:
        load_merged(path)
    assert "\n" not in str(error.value)
