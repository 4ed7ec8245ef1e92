"""Cross-attention over few tokens: its gradients, and folded contexts that give the same output."""

from __future__ import annotations

import pytest
import torch
from diffusers.models.attention_processor import Attention, AttnProcessor
from torch import Tensor

from ldm.models.base import Base
from ldm.models.cross_attention import (
    Context,
    Contexts,
    FewTokenAttention,
    Folded,
    Joined,
    cross_attentions,
    detach_reference_token,
    fold,
    join,
    use_few_token_attention,
)
from ldm.models.sampler import Condition, sample
from tests.fixtures import tiny
from tests.fixtures.small import small_base

WIDTH, CONTEXT, HEADS = 32, 48, 4


def layer(processor: object | None = None) -> Attention:
    torch.manual_seed(0)
    attention = Attention(WIDTH, CONTEXT, heads=HEADS, dim_head=WIDTH // HEADS)
    attention.set_processor(processor or FewTokenAttention())
    return attention


def inputs(n: int) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(1)
    return torch.randn(2, 16, WIDTH, generator=g), torch.randn(2, n, CONTEXT, generator=g)


def gradients(n: int) -> dict[str, Tensor]:
    attention, (x, context) = layer(), inputs(n)
    attention(x, context).square().sum().backward()
    return {name: weight.grad for name, weight in attention.named_parameters() if weight.grad is not None}


@pytest.mark.parametrize("n", [1, 2, 5])
def test_values_are_those_of_plain_attention(n: int) -> None:
    x, context = inputs(n)
    assert torch.allclose(layer()(x, context), layer(AttnProcessor())(x, context), atol=1e-6)


def test_one_token_needs_no_query() -> None:
    """softmax over one key is 1: to_q and to_k get no gradient, any x gives to_out(to_v(token))."""
    attention, (x, context) = layer(), inputs(1)
    out = attention(x, context)
    assert torch.allclose(out, attention(-3 * x, context), atol=1e-6)
    assert torch.allclose(out, attention.to_out[0](attention.to_v(context)).expand_as(out), atol=1e-6)
    grads = gradients(1)
    learnt = grads["to_v.weight"].abs().max()
    assert learnt > 1e-3 and all(grads[f"to_{x}.weight"].abs().max() < 1e-6 * learnt for x in "qk")


def test_the_first_of_several_tokens_gives_k_and_v_no_gradient() -> None:
    """A change of K and V's gradients through token 0 would show as a gradient of the token itself."""
    attention, (x, context) = layer(), inputs(4)
    context.requires_grad_()
    attention(x, context).square().sum().backward()
    assert context.grad is not None
    assert (context.grad[:, 0] == 0).all()
    assert (context.grad[:, 1:].abs().amax((0, 2)) > 0).all()
    assert all(grad.abs().max() > 0 for grad in gradients(4).values())


def test_a_single_token_is_not_detached() -> None:
    attention, (x, context) = layer(), inputs(1)
    context.requires_grad_()
    attention(x, context).square().sum().backward()
    assert context.grad is not None and context.grad.abs().max() > 0


def test_detaching_changes_no_value() -> None:
    x = torch.randn(2, 3, 4, requires_grad=True)
    assert torch.equal(detach_reference_token(x), x)
    assert detach_reference_token(x[:, :1]).requires_grad


def test_masks_are_refused() -> None:
    x, context = inputs(2)
    with pytest.raises(AssertionError, match="never masked"):
        layer()(x, context, attention_mask=torch.ones(2, 1, 2))


def test_every_cross_attention_of_the_unet_is_replaced_and_no_other() -> None:
    unet = tiny.loaded_unet()
    use_few_token_attention(unet)
    ours = {name for name, p in unet.attn_processors.items() if isinstance(p, FewTokenAttention)}
    assert ours == {name for name in unet.attn_processors if "attn2" in name}
    assert len(ours) == 16 == len(list(cross_attentions(unet)))
    assert next(name for name, _ in cross_attentions(unet)) == (
        "down_blocks.0.attentions.0.transformer_blocks.0.attn2"
    )


@torch.no_grad()
@pytest.mark.parametrize("prefix", ["unet", "unet1"])
def test_the_unet_still_meets_the_reference_values(prefix: str) -> None:
    golden, unet = tiny.golden(), tiny.loaded_unet()
    use_few_token_attention(unet)
    eps = unet(golden["unet.x"], golden["unet.t"], golden[f"{prefix}.context"]).sample
    assert (eps - golden[f"{prefix}.eps"]).abs().max() < 1e-4


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
