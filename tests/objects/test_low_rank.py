"""Low-rank weights: a delta with them means the same as the dense one, in memory and through a file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from ldm.models.checkpoint import read_metadata
from ldm.objects.delta import Delta, LowRank, apply, dense, load, save
from tests.fixtures.objects import learnt
from tests.fixtures.small import small_base, state_of

NAME = "conditioner.proj_out.weight"


def with_low_rank(rank: int = 2) -> tuple[Delta, Delta]:
    """An object with one low-rank matrix, and the same with that matrix dense."""
    delta = learnt(small_base())
    g = torch.Generator().manual_seed(3)
    pair = LowRank(torch.randn(16, rank, generator=g).half(), torch.randn(rank, 16, generator=g).half())
    low, full = (
        replace(delta, weights=dict(delta.weights) | {NAME: x})
        for x in (pair, pair.up.float() @ pair.down.float())
    )
    return low, full


@pytest.mark.parametrize("rank", [0, 1, 3])
def test_it_means_the_product_in_memory_and_through_a_file(tmp_path: Path, rank: int) -> None:
    base = small_base()
    before = state_of(base)
    low, full = with_low_rank(rank)
    save(low, tmp_path / "low.safetensors")
    states = []
    for delta in (full, low, load(tmp_path / "low.safetensors")):
        with apply(base, delta, object_scale=0.7):
            states.append(state_of(base))
    assert all(torch.equal(states[0][key], state[key]) for state in states[1:] for key in states[0])
    assert (rank == 0) == torch.equal(states[0][NAME], before[NAME])
    assert all(torch.equal(value, before[key]) for key, value in base.state_dict().items())


def test_only_files_with_low_rank_have_version_2(tmp_path: Path) -> None:
    low, full = with_low_rank()
    for delta, version in ((low, "2"), (full, "1")):
        save(delta, tmp_path / "x.safetensors")
        assert read_metadata(tmp_path / "x.safetensors")["version"] == version
        assert load(tmp_path / "x.safetensors").metadata == delta.metadata


def test_files_from_before_there_were_parents_still_load(tmp_path: Path) -> None:
    path, delta = tmp_path / "x.safetensors", learnt(small_base())
    save(delta, path)
    metadata = {key: value for key, value in read_metadata(path).items() if key != "parents"}
    save_file(load_file(path), path, metadata)
    again = load(path)
    assert again.metadata == delta.metadata
    assert all(torch.equal(dense(again.weights[name]), dense(value)) for name, value in delta.weights.items())


@pytest.mark.parametrize("damage", ["half", "inner", "twice", "vector"])
def test_halves_that_do_not_match_are_refused(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "x.safetensors"
    save(with_low_rank()[0], path)
    tensors, metadata = load_file(path), read_metadata(path)
    if damage == "half":
        del tensors[f"up.{NAME}"]
    elif damage == "inner":
        tensors[f"up.{NAME}"] = torch.zeros(16, 5)
    elif damage == "twice":
        tensors[f"delta.{NAME}"] = torch.zeros(16, 16)
    else:
        tensors[f"down.{NAME}"] = torch.zeros(2)
    save_file(tensors, path, metadata)
    with pytest.raises(ValueError, match=rf"x\.safetensors.*{NAME}.*do not match"):
        load(path)


def test_a_low_rank_weight_of_another_shape_does_not_fit() -> None:
    base = small_base()
    delta = learnt(base)
    pair = LowRank(torch.zeros(16, 1), torch.zeros(1, 17))
    with pytest.raises(ValueError, match=NAME):
        apply(base, replace(delta, weights=dict(delta.weights) | {NAME: pair}))


@pytest.mark.parametrize("field, text", [("recipe", "[]"), ("step", '"7"'), ("parents", "{}")])
def test_metadata_of_another_type_are_damaged(tmp_path: Path, field: str, text: str) -> None:
    path = tmp_path / "x.safetensors"
    save(learnt(small_base()), path)
    save_file(load_file(path), path, read_metadata(path) | {field: text})
    with pytest.raises(ValueError, match=f"metadata are damaged.*{field}"):
        load(path)
