"""Folded contexts: the same algebra as projecting K and V, for one object or many in a batch."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ldm.models.base import Base
from ldm.models.context import Context, Contexts, Folded, Joined, fold, join
from ldm.models.cross_attention import cross_attentions
from ldm.models.sampler import Condition, sample
from tests.fixtures import tiny
from tests.fixtures.small import small_base


def noise(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def eps(base: Base, context: Context) -> Tensor:
    b, dtype = len(context), base.unet.dtype
    x = noise(1, 9, 16, 16, seed=1, dtype=dtype).expand(b, -1, -1, -1)
    return base.eps(x[:, :4], torch.tensor(300), x[:, 4:8], x[:, 8:], context)


def folded(base: Base, context: Tensor) -> Folded:
    return fold(dict(cross_attentions(base.unet)), context)


@pytest.fixture(scope="module")
def base() -> Base:
    return small_base()


@pytest.mark.parametrize("n", [1, 2, 6])
def test_folding_is_exact_algebra(n: int) -> None:
    base = small_base().double()
    context = noise(3, n, 16, dtype=torch.float64)
    assert torch.allclose(eps(base, folded(base, context)), eps(base, context), rtol=0, atol=1e-12)


def test_equal_tokens_leave_a_constant(base: Base) -> None:
    context = noise(2, 1, 16).expand(-1, 5, -1)
    constant = folded(base, context)
    assert constant.columns == 0
    assert torch.allclose(eps(base, constant), eps(base, context), atol=1e-5)


def test_a_trajectory_is_that_of_the_projections() -> None:
    base, golden = tiny.loaded_base(), tiny.golden()
    context, keep = golden["cond.context"], golden["sample.mask"]
    c = Condition(golden["sample.masked_latents"], 1 - keep, base.contexts(context))
    x_0 = sample(base, c, golden["sample.x_T"], sampler="plms", steps=10, guidance_scale=5)
    expected = golden["sample.plms10"]
    assert (x_0 - expected).norm() < 1e-4 * expected.norm()


def test_samples_of_a_batch_may_carry_other_objects(base: Base) -> None:
    """Of any number of tokens, also none; each is what it would be alone."""
    contexts = [noise(1, n, 16, seed=n) for n in (4, 4, 1, 2, 2)]
    batch = join([folded(base, c) for c in contexts])
    assert isinstance(batch, Joined) and [len(piece) for piece in batch.pieces] == [2, 1, 2]
    for one, c in zip(eps(base, batch), contexts, strict=True):
        assert torch.allclose(one, eps(base, c)[0], atol=1e-5)


def test_objects_of_one_size_share_their_products(base: Base) -> None:
    batch = join([folded(base, noise(1, 4, 16, seed=seed)) for seed in range(8)])
    assert isinstance(batch, Folded) and len(batch) == 8


def test_repeating_keeps_a_samples_copies_together(base: Base) -> None:
    two = Contexts(join([folded(base, noise(1, 3, 16, seed=s)) for s in (0, 1)]), noise(2, 3, 16))
    repeated = two.repeat(3)
    assert len(repeated.conditional) == len(repeated.unconditional) == 6
    out = eps(base, repeated.conditional)
    assert torch.allclose(out[0], out[2], atol=1e-6) and not torch.allclose(out[2], out[3], atol=1e-4)


def test_constants_outlive_the_weights_they_were_made_of() -> None:
    base = small_base()
    constants = folded(base, noise(1, 3, 16))
    before = eps(base, constants)
    for _, layer in cross_attentions(base.unet):
        for weight in layer.parameters():
            weight.data.fill_(7)
    assert torch.equal(eps(base, constants), before)
