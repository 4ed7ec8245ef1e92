"""Cross-attention over a few tokens: which part learns from which token, and nothing else changed."""

from __future__ import annotations

import pytest
import torch
from diffusers.models.attention_processor import Attention, AttnProcessor
from torch import Tensor

from ldm.models.cross_attention import (
    FewTokenAttention,
    cross_attentions,
    detach_first,
    use_few_token_attention,
)
from tests.fixtures import tiny

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


def test_the_first_of_several_tokens_teaches_k_and_v_nothing() -> None:
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
    assert torch.equal(detach_first(x), x)
    assert detach_first(x[:, :1]).requires_grad


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
