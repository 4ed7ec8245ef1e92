"""Between two objects: the ends are the objects, the way is straight."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from ldm.models.base import house_state
from ldm.objects.compose import interpolate
from ldm.objects.compress import compress
from ldm.objects.delta import Delta, load, save
from ldm.objects.low_rank import dense
from tests.fixtures.objects import as_tuned, learnt
from tests.fixtures.small import small_base


def two(**more: str) -> tuple[Delta, Delta]:
    base = small_base()
    return learnt(base, 1, author="Ada", licence="CC0"), learnt(base, 2, author="Bo", licence="CC0")


@pytest.mark.parametrize("share", [0, 1])
def test_the_ends_are_the_objects(share: int) -> None:
    objects = two()
    end, mixed = objects[share], interpolate(*objects, share)
    assert all(torch.equal(mixed.weights[name], weight) for name, weight in end.weights.items())  # type: ignore[arg-type]
    assert torch.equal(mixed.tokens, end.tokens) and torch.equal(mixed.reference, end.reference)  # type: ignore[arg-type]


def test_the_way_is_straight(tmp_path: Path) -> None:
    a, b = two()
    save(interpolate(a, b, 0.3, [{"name": "a"}, {"name": "b"}]), tmp_path / "x.safetensors")
    mixed = load(tmp_path / "x.safetensors")
    for name in a.weights:
        expected = 0.7 * dense(a.weights[name]) + 0.3 * dense(b.weights[name])
        assert torch.allclose(dense(mixed.weights[name]), expected, rtol=1e-3, atol=1e-6)
    assert torch.allclose(mixed.tokens, 0.7 * a.tokens + 0.3 * b.tokens)  # type: ignore[operator, arg-type]
    about = mixed.about
    assert (about.author, about.licence, about.few_shot_count) == ("Ada; Bo", "CC0", 3)
    assert [parent["name"] for parent in about.parents] == ["a", "b"]
    assert about.recipe["interpolated"] == {"share": 0.3} and about.date


def test_low_rank_and_dense_objects_mix() -> None:
    a, b = two()
    small, _ = compress(a, energy=0.9999)
    for name, weight in interpolate(small, b, 0.5).weights.items():
        expected = (dense(small.weights[name]) + dense(b.weights[name])) / 2
        assert torch.allclose(dense(weight), expected, rtol=1e-3, atol=1e-4)


def test_a_weight_that_one_object_left_alone_counts_as_no_change() -> None:
    base = small_base()
    kv, all_of_it = learnt(base, 1), learnt(base, 2, "crossattn")
    mixed = interpolate(kv, all_of_it, 0.25)
    name = "unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_q.weight"
    expected = 0.25 * dense(all_of_it.weights[name])
    assert torch.allclose(dense(mixed.weights[name]), expected, rtol=1e-3, atol=1e-6)
    assert mixed.about.freeze_model == "crossattn"


def test_tuned_values_mix_with_their_base() -> None:
    base = small_base()
    a, b = two()
    with pytest.raises(ValueError, match="give the base"):
        interpolate(as_tuned(a, base), b, 0.5)
    mixed, expected = interpolate(as_tuned(a, base), b, 0.5, (), house_state(base)), interpolate(a, b, 0.5)
    for name in a.weights:
        assert torch.allclose(dense(mixed.weights[name]), dense(expected.weights[name]), atol=1e-4)


@pytest.mark.parametrize(
    "case, hint",
    [
        ("tokens", "3 and 2 few-shot tokens"),
        ("none", "3 and 0 few-shot"),
        ("base", "two bases"),
        ("share", "0 "),
    ],
)
def test_what_cannot_be_mixed_is_refused(case: str, hint: str) -> None:
    base = small_base()
    a, b, share = learnt(base), learnt(base, 2), 0.5
    if case == "tokens":
        b = learnt(base, 2, tokens=2)
    elif case == "none":
        b = learnt(base, 2, tokens=None)
    elif case == "base":
        b = replace(b, about=replace(b.about, base="0" * 16))
    else:
        share = 1.5
    with pytest.raises(ValueError, match=hint) as error:
        interpolate(a, b, share)
    assert "\n" not in str(error.value)
