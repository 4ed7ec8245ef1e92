"""What an object gives the UNet, and the measure of a difference."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from ldm.objects.apply import apply
from ldm.objects.effect import constants, effect
from ldm.objects.low_rank import dense
from ldm.objects.object_context import reference_of
from tests.fixtures.objects import learnt
from tests.fixtures.small import small_base, state_of

LAYER = "mid_block.attentions.0.transformer_blocks.0.attn2"


def test_an_object_does_not_differ_from_itself() -> None:
    base = small_base()
    before, delta = state_of(base), learnt(base)
    e = effect(base, delta, delta)
    assert (e.context, e.mean, e.worst, e.output) == (0, 0, 0, 0) and len(e.layers) == 2 * 7
    assert all(torch.equal(value, before[key]) for key, value in base.state_dict().items())


def test_a_layers_change_shows_in_that_layer_alone_and_in_full() -> None:
    base = small_base()
    delta = learnt(base)
    name = f"unet.{LAYER}.to_v.weight"
    with apply(base, delta):
        doubled = dense(delta.weights[name]) + base.state_dict()[name]
    other = replace(delta, weights=dict(delta.weights) | {name: doubled})
    e = effect(base, delta, other)
    assert e.context == 0 and e.layers[f"{LAYER}.to_v"] == pytest.approx(1, abs=1e-5)
    assert sum(value > 0 for value in e.layers.values()) == 1
    assert 0 < e.output < 1
    assert e.worst == e.layers[f"{LAYER}.to_v"] and e.mean == pytest.approx(e.worst / 14)


def test_a_change_beyond_k_and_v_shows_in_the_output_alone() -> None:
    base, name = small_base(), f"unet.{LAYER}.to_out.0.weight"
    delta = learnt(base, mode="crossattn")
    other = replace(delta, weights=dict(delta.weights) | {name: dense(delta.weights[name]) + 0.3})
    e = effect(base, delta, other)
    assert (e.context, e.worst) == (0, 0) and e.output > 1e-4


def test_a_change_of_the_conditioner_shows_in_the_context() -> None:
    base = small_base()
    delta = learnt(base)
    moved = dense(delta.weights["conditioner.proj_out.bias"]) + 0.5
    other = replace(delta, weights=dict(delta.weights) | {"conditioner.proj_out.bias": moved})
    context, _, _ = constants(base, delta, reference_of(delta))
    assert context.shape == (4, 16)
    assert effect(base, delta, other).context == pytest.approx(
        0.5 * 64**0.5 / float(context.norm()), rel=1e-4
    )


def test_an_object_without_a_reference_needs_one() -> None:
    base = small_base()
    delta = replace(learnt(base), reference=None)
    with pytest.raises(ValueError, match="reference"):
        effect(base, delta, delta)
    assert effect(base, delta, delta, torch.zeros(1, 3, 28, 28)).worst == 0
