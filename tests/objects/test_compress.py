"""Compression keeps what it promises, says what it lost, and never loses silently."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from ldm.models.base import base_state
from ldm.objects.compress import compress, low_rank
from ldm.objects.delta import LowRank, apply, dense, load, save
from tests.fixtures.objects import as_tuned, learnt
from tests.fixtures.small import small_base, state_of

ENERGIES = [0.5, 0.9, 0.99]
ROUNDING = 1e-5  # of energy: what fp16 halves may cost


@pytest.mark.parametrize("energy", ENERGIES)
def test_every_matrix_keeps_its_share_by_the_lowest_rank(energy: float) -> None:
    delta = learnt(small_base(), mode="crossattn")
    small, losses = compress(delta, energy=energy)
    cut = [loss for loss in losses.layers if loss.rank is not None]
    assert len(cut) > 20
    for loss in cut:
        values = torch.linalg.svdvals(dense(delta.weights[loss.name]).double()) ** 2
        assert loss.error**2 <= 1 - energy + ROUNDING, loss.name
        assert loss.rank is not None and values[: loss.rank - 1].sum() < energy * values.sum(), loss.name
        assert small.weights[loss.name].shape == delta.weights[loss.name].shape
    assert losses.error**2 <= 1 - energy + ROUNDING


def test_what_is_no_matrix_or_would_not_be_smaller_stays_bit_equal() -> None:
    delta = learnt(small_base())
    full = torch.randn(16, 16, generator=torch.Generator().manual_seed(0)).half()
    delta = replace(delta, weights=dict(delta.weights) | {"conditioner.proj_out.weight": full})
    small, losses = compress(delta, energy=0.99)
    whole = [loss.name for loss in losses.layers if loss.rank is None]
    assert "conditioner.proj_out.weight" in whole and "conditioner.learnable_vector" in whole
    for name in whole:
        assert torch.equal(small.weights[name], delta.weights[name])  # type: ignore[arg-type]
    for loss in losses.layers:
        weight = small.weights[loss.name]
        if isinstance(weight, LowRank):
            assert weight.up.numel() + weight.down.numel() < weight.shape[0] * weight.shape[1]


def test_the_reported_losses_are_those_of_the_file(tmp_path: Path) -> None:
    delta = learnt(small_base())
    small, losses = compress(delta, 0.9)
    save(small, tmp_path / "x.safetensors")
    again, lost, total = load(tmp_path / "x.safetensors"), 0.0, 0.0
    for loss in losses.layers:
        old, new = (dense(each.weights[loss.name]) for each in (delta, again))
        assert loss.error == pytest.approx(float((new - old).norm() / old.norm()), abs=2e-6)
        lost, total = lost + float((new - old).norm()) ** 2, total + float(old.norm()) ** 2
    assert losses.error == pytest.approx((lost / total) ** 0.5, abs=2e-6) and losses.error > 0.001
    record = again.metadata.recipe["compressed"][-1]
    assert again.metadata.recipe["lr"] == 0.5 and record["energy"] == 0.9
    assert record["error"] == losses.error
    assert record["layers"] == {
        x.name: [x.rank, x.error] for x in losses.layers if x.rank is not None or x.error
    }


def test_a_matrix_becomes_whole_only_after_all_its_low_ranks() -> None:
    cut = low_rank(torch.eye(8), 0.3, whole=64)  # rank 3 takes 48 numbers, all of the rest just 16 more
    assert cut is not None and cut.rank == 3 and low_rank(torch.eye(8), 0.5, whole=64) is None


def test_a_matrix_without_change_takes_nothing(tmp_path: Path) -> None:
    delta = learnt(small_base())
    name = "conditioner.proj_out.weight"
    delta = replace(delta, weights=dict(delta.weights) | {name: torch.zeros(16, 16).half()})
    small, losses = compress(delta, energy=0.9)
    assert {x.name: (x.rank, x.error) for x in losses.layers}[name] == (0, 0.0)
    save(small, tmp_path / "x.safetensors")
    assert float(dense(load(tmp_path / "x.safetensors").weights[name]).norm()) == 0


def test_the_cut_is_the_svds() -> None:
    matrix = torch.randn(6, 9, generator=torch.Generator().manual_seed(5))
    values = torch.linalg.svdvals(matrix)
    shares = (values**2).cumsum(0) / (values**2).sum()
    for rank, share in enumerate(shares.tolist(), start=1):
        cut = low_rank(matrix, share - 1e-4, whole=1000)
        assert cut is not None and cut.rank == rank
        error = (dense(cut) - matrix).norm()
        assert float(error) == pytest.approx(float((values[rank:] ** 2).sum().sqrt()), abs=5e-3)


def test_compressing_twice_records_both_and_never_grows(tmp_path: Path) -> None:
    once, _ = compress(learnt(small_base()), energy=0.9)
    twice, losses = compress(once, energy=1)
    assert [record["energy"] for record in twice.metadata.recipe["compressed"]] == [0.9, 1]
    for name, weight in once.weights.items():
        if isinstance(weight, LowRank):
            again = twice.weights[name]
            assert isinstance(again, LowRank) and again.rank <= weight.rank
    assert losses.error < 1e-3


def test_tuned_values_are_compressed_as_differences() -> None:
    base = small_base()
    delta = learnt(base)
    tuned = as_tuned(delta, base)
    with pytest.raises(ValueError, match="give the base it was made on"):
        compress(tuned, energy=0.9)
    with pytest.raises(ValueError, match="own base"):
        compress(tuned, energy=0.9, base_state=base_state(small_base(seed=1)))
    small, losses = compress(tuned, energy=0.9, base_state=base_state(base))
    assert not small.absolute
    expected, same = compress(delta, energy=0.9)
    assert [x.rank for x in losses.layers] == [x.rank for x in same.layers]
    for name in delta.weights:
        assert torch.allclose(dense(small.weights[name]), dense(expected.weights[name]), atol=1e-3)


def test_rounding_to_fp16_is_reported() -> None:
    base = small_base()
    tuned, bias = as_tuned(learnt(base), base), "conditioner.proj_out.bias"
    moved = dense(tuned.weights[bias]) + torch.linspace(0.01, 0.02, 16)
    tuned = replace(tuned, weights=dict(tuned.weights) | {bias: moved})
    small, losses = compress(tuned, energy=0.9, base_state=base_state(base))
    change = moved - base_state(base)[bias]
    error = float((dense(small.weights[bias]) - change).norm() / change.norm())
    assert 0 < error < 1e-3
    assert {x.name: x.error for x in losses.layers}[bias] == pytest.approx(error, abs=1e-6)
    assert bias in small.metadata.recipe["compressed"][0]["layers"]


def test_it_is_applied_and_removed_like_any_object() -> None:
    base = small_base()
    before, (small, _) = state_of(base), compress(learnt(base), energy=0.9)
    with apply(base, small, object_scale=0.5):
        for name, weight in small.weights.items():
            assert torch.allclose(base.state_dict()[name], before[name] + 0.5 * dense(weight)), name
    assert all(torch.equal(value, before[key]) for key, value in base.state_dict().items())


@pytest.mark.parametrize("energy", [0.0, -1.0, 99.0, float("nan")])
def test_shares_that_make_no_sense(energy: float) -> None:
    with pytest.raises(ValueError, match=f"energy {energy:g}: expected a share above 0, up to 1"):
        compress(learnt(small_base()), energy)
