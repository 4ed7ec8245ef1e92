"""The merge: exact on every object's tokens, the smallest such change, honest where it cannot be."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from ldm.merge.merge import MergeInput, merge, merge_input, right_inverse
from ldm.models.base import base_state
from ldm.objects.compress import compress
from ldm.objects.delta import apply, dense
from ldm.objects.object_context import reference_of
from ldm.objects.object_file import ObjectMetadata
from tests.fixtures.objects import as_tuned, learnt
from tests.fixtures.small import SMALL_IMAGES, small_base

D, OUT = 768, 24  # the width of Paint-by-Example's context, and few outputs: rows of W do not know each other
BASES = {
    name: torch.randn(OUT, D, generator=torch.Generator().manual_seed(i)) for i, name in enumerate(["k", "v"])
}


def random_member(
    seed: int, tokens: int = 6, context: Tensor | None = None
) -> tuple[MergeInput, dict[str, Tensor]]:
    """An object of random tokens and a random change of every weight; and these changes."""
    g = torch.Generator().manual_seed(100 + seed)
    drawn = torch.randn(tokens + 1, D, generator=g)
    context = drawn[:-1] if context is None else context
    changes = {name: 0.1 * torch.randn(OUT, D, generator=g) for name in BASES}
    rows = torch.cat([context, drawn[-1:]]).double()
    change = {name: rows @ x.double().T for name, x in changes.items()}
    wanted = {name: change[name] + rows @ base.double().T for name, base in BASES.items()}
    size = sum(float(x.double().norm()) ** 2 for x in changes.values()) ** 0.5
    made = MergeInput(
        f"object {seed}", ObjectMetadata("0" * 16, "x"), {}, context, drawn[-1], wanted, change, size
    )
    return made, changes


def stacked(members: list[MergeInput]) -> np.ndarray:
    return torch.cat([each.tokens for each in members]).numpy()


@pytest.mark.parametrize("count", [2, 8, 100])
def test_every_object_keeps_its_keys_and_values(count: int) -> None:
    """W c = W_i c for 2, 8 and 100 objects of 6 context tokens and an unconditional one, 768 wide."""
    members = [random_member(i)[0] for i in range(count)]
    merged, report = merge(members)
    assert report.rank == report.tokens == 7 * count
    for each in members:
        worst = 0.0
        for name, base in BASES.items():
            values = each.tokens @ (base.double() + merged.weights[name].double()).T
            worst = max(worst, float((values - each.wanted[name]).norm() / each.wanted[name].norm()))
        assert report.residual[each.name] == pytest.approx(worst, rel=1e-3) and worst < 1e-3
        assert report.lost[each.name] <= 1e-3
    exact, precise = merge(members, dtype=torch.float32)
    assert max(precise.lost.values()) < 1e-5 and exact.weights["k"].dtype == torch.float32


@pytest.mark.parametrize("count", [2, 8, 100])
def test_other_tokens_are_disturbed_less_than_by_the_sum_of_all_changes(count: int) -> None:
    made = [random_member(i) for i in range(count)]
    merged, _ = merge([each for each, _ in made])
    others = torch.randn(50, D, generator=torch.Generator().manual_seed(9))
    for name in BASES:
        naive = sum(changes[name] for _, changes in made)
        assert (others @ merged.weights[name].float().T).norm() < 0.8 * (others @ naive.T).norm()  # type: ignore[union-attr]


@pytest.mark.parametrize("count", [2, 8, 100])
def test_it_is_the_smallest_change(count: int) -> None:
    """Against numpy's pseudo-inverse."""
    members = [random_member(i)[0] for i in range(count)]
    merged, _ = merge(members, dtype=torch.float64)
    for name in BASES:
        change = torch.cat([each.change[name] for each in members]).numpy()
        expected = (np.linalg.pinv(stacked(members)) @ change).T
        assert np.allclose(merged.weights[name].numpy(), expected, atol=1e-10)


def test_the_right_inverse_is_one() -> None:
    tokens = torch.randn(5, 9, generator=torch.Generator().manual_seed(0)).double()
    plain, rank = right_inverse(tokens)
    assert rank == 5 and torch.allclose(tokens @ plain, torch.eye(5).double(), atol=1e-12)


def test_order_does_not_matter() -> None:
    members = [random_member(i)[0] for i in range(8)]
    one, two = (merge(each, dtype=torch.float64)[0] for each in (members, members[::-1]))
    for name in BASES:
        assert torch.allclose(one.weights[name], two.weights[name], atol=1e-12)
    assert one.names == two.names == sorted(each.name for each in members)


def test_the_same_object_twice_breaks_nothing() -> None:
    (a, _), (b, _) = random_member(0), random_member(1)
    noise = 1e-7 * torch.randn(a.context.shape, generator=torch.Generator().manual_seed(0))
    again = replace(a, name="again", context=a.context + noise)
    once, _ = merge([a, b], dtype=torch.float64)
    twice, report = merge([a, replace(a, name="a copy"), again, b], dtype=torch.float64)
    assert report.rank == 14 and report.tokens == 28
    assert max(report.lost.values()) < 1e-5
    for name in BASES:
        assert torch.allclose(once.weights[name], twice.weights[name], atol=1e-4)


def test_contradicting_objects_are_reported() -> None:
    """One context, two wishes: the nearest is their mean, and both residuals say so."""
    a, _ = random_member(0)
    b, _ = random_member(1, context=a.context)
    merged, report = merge([a, b])
    values = a.context.double() @ merged.weights["k"].double().T
    mean = (a.change["k"][:-1] + b.change["k"][:-1]) / 2
    assert torch.allclose(values, mean, atol=1e-2)
    assert all(0.3 < lost < 1 for lost in report.lost.values())
    assert all(residual > 0.02 for residual in report.residual.values())
    assert merged.metadata.recipe["merged"]["lost"] == report.lost


def test_more_tokens_than_the_width_leave_a_residual() -> None:
    _, report = merge([random_member(i)[0] for i in range(120)])
    assert report.rank == D < report.tokens and max(report.lost.values()) > 0.01


def test_fp16_is_used_only_if_its_error_is_small() -> None:
    """Two objects almost alike in their tokens, with other wishes: a large change, and fp16 would lose."""
    a, _ = random_member(0)
    near = a.context + 1e-3 * torch.randn(a.context.shape, generator=torch.Generator().manual_seed(1))
    b, _ = random_member(1, context=near)
    merged, report = merge([a, b])
    _, halves = merge([a, b], dtype=torch.float16)
    assert merged.weights["k"].dtype == torch.float32 and max(report.lost.values()) <= 1e-3
    assert max(halves.lost.values()) > 1e-3 and report.growth > 10
    easy, report = merge([a, random_member(2)[0]])
    assert easy.weights["k"].dtype == torch.float16 and report.growth < 1


def test_a_member_is_what_its_own_object_makes() -> None:
    base = small_base()
    for delta in (learnt(base, 3), as_tuned(learnt(base, 3), base), compress(learnt(base, 3), energy=0.9)[0]):
        made = merge_input(base, delta, "toy", SMALL_IMAGES, {"name": "toy", "sha256": "1"})
        state = base_state(base)
        assert all(torch.equal(state[key], value) for key, value in base_state(small_base()).items())
        with apply(base, delta):
            context = base.context(reference_of(delta))
            assert torch.equal(made.context, context[0]) and len(made.context) == 4
            assert torch.equal(made.unconditional, base.conditioner.learnable_vector[0, 0])
            now = {key: value.double() for key, value in base_state(base).items()}
        total = 0.0
        assert len(made.change) == 2 * 7
        for name in made.change:
            assert torch.allclose(made.wanted[name], made.tokens @ now[name].T)
            assert torch.allclose(made.change[name], made.tokens @ (now[name] - state[name].double()).T)
            total += float(dense(delta.weights[name]).norm() ** 2) if not delta.absolute else 0
        assert delta.absolute or made.size == pytest.approx(total**0.5, rel=1e-4)


def test_what_cannot_be_merged_is_refused() -> None:
    base = small_base()
    with pytest.raises(ValueError, match=r"freeze_model 'crossattn'.*to_(q|out).*crossattn-kv") as error:
        merge_input(base, learnt(base, mode="crossattn"), "toy", SMALL_IMAGES)
    assert "\n" not in str(error.value)
    a, b = random_member(0)[0], random_member(1)[0]
    with pytest.raises(ValueError, match="called object 0"):
        merge([a, replace(b, name="object 0")])
    with pytest.raises(ValueError, match="different bases"):
        merge([a, replace(b, metadata=replace(b.metadata, base="1" * 16))])
    with pytest.raises(ValueError, match="two or more"):
        merge([])
