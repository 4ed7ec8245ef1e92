"""Cross-attention of the UNet over its context: tokens [b,n,d], or each layer's constants folded from them.

Which of the weights of an `attn2` layer (K, V or all) learning an object trains:
`ldm.objects.delta.is_trained`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import NamedTuple, Protocol, TypeAlias

import torch
import torch.nn.functional as F
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import Attention
from einops import rearrange
from torch import Tensor, einsum, nn

Share = tuple[float, float, float, float]  # y0, x0, y1, x1 of a box, as fractions of the picture's sides


class Layer(NamedTuple):
    """One layer's constants for b samples: scores [b,C,heads*n], values [b,heads*n,C], bias [b,C].

    With n = 0 the layer's output is `bias` for any hidden states.
    """

    scores: Tensor
    values: Tensor
    bias: Tensor


def fold_layer(attn: Attention, k: Tensor, v: Tensor) -> Layer:
    """K and V [b,n,heads*c] of a layer => its constants, in fp32 or better."""
    precise = torch.promote_types(torch.float32, k.dtype)
    w_o = attn.to_out[0].weight.to(precise)
    bias = (
        attn.to_out[0].bias.to(precise).repeat(len(k), 1)
    )  # a copy: another object may be applied to the base
    k, v = k.to(precise), v.to(precise)
    if k.shape[1] == 1:
        constant = bias + v[:, 0] @ w_o.T
        width = constant.shape[1]
        return Layer(constant.new_empty(len(k), width, 0), constant.new_empty(len(k), 0, width), constant)
    k, v = (rearrange(x, "b n (h c) -> b h n c", h=attn.heads) for x in (k, v))
    w_q = rearrange(attn.to_q.weight.to(precise), "(h c) C -> h c C", h=attn.heads)
    w_o = rearrange(w_o, "C (h c) -> h c C", h=attn.heads)
    scores = einsum("bhnc,hcC->bhnC", k, w_q) * k.shape[-1] ** -0.5
    values = einsum("bhnc,hcC->bhnC", v, w_o)
    return Layer(rearrange(scores, "b h n C -> b C (h n)"), rearrange(values, "b h n C -> b (h n) C"), bias)


def attend(x: Tensor, layer: Layer, heads: int) -> Tensor:
    """Hidden states [b,N,C] => the layer's output [b,N,C]."""
    bias = layer.bias[:, None]
    if layer.scores.shape[-1] == 0:
        return bias.expand_as(x)
    scores = rearrange(torch.bmm(layer.scores.mT, x.mT), "b (h n) N -> b h n N", h=heads)
    precise = torch.promote_types(torch.float32, x.dtype)
    p = F.softmax(
        scores, dim=2, dtype=precise
    )  # positions last: softmax over a short last axis takes three times as long
    return torch.baddbmm(bias, rearrange(p, "b h n N -> b N (h n)").to(x), layer.values)


class Constants(Protocol):
    """A context of b samples that replaces tokens [b,n,d]: it computes each cross-attention's output."""

    def __len__(self) -> int: ...

    def attend(self, name: str, x: Tensor, heads: int) -> Tensor:
        """The output of the layer `name` for hidden states [b,N,C]."""

    def within(self, box: Share) -> Constants:
        """The context of a part of the picture."""

    def repeat(self, n: int) -> Constants:
        """Every sample n times, side by side."""

    def to(self, like: Tensor) -> Constants:
        """On the device and in the dtype of `like`."""


@dataclass(frozen=True, eq=False)
class Folded:
    """Folded contexts of b samples with the same number of tokens: constants by layer name."""

    layers: Mapping[str, Layer]

    def __len__(self) -> int:
        return len(next(iter(self.layers.values())).bias)

    @property
    def columns(self) -> int:
        """heads * n; samples with equal columns can be stacked."""
        return next(iter(self.layers.values())).scores.shape[-1]

    @property
    def device(self) -> torch.device:
        """Where the constants are."""
        return next(iter(self.layers.values())).bias.device

    def attend(self, name: str, x: Tensor, heads: int) -> Tensor:
        return attend(x, self.layers[name], heads)

    def within(self, box: Share) -> Folded:
        return self  # it is the same everywhere

    def repeat(self, n: int) -> Folded:
        return Folded({k: Layer(*(x.repeat_interleave(n, 0) for x in v)) for k, v in self.layers.items()})

    def to(self, like: Tensor) -> Folded:
        return Folded({k: Layer(*(x.to(like) for x in v)) for k, v in self.layers.items()})


@torch.no_grad()
def fold(layers: Mapping[str, Attention], context: Tensor) -> Folded:
    """A context [b,n,d] => constants of the UNet's cross-attentions, in their dtype and device."""
    if bool((context == context[:, :1]).all()):
        context = context[:, :1]
    like = next(iter(layers.values())).to_out[0].weight
    folded = {name: fold_layer(a, a.to_k(context), a.to_v(context)) for name, a in layers.items()}
    return Folded(folded).to(like)


@dataclass(frozen=True, eq=False)
class Joined:
    """Contexts of consecutive samples of a batch, of any kind and number of tokens."""

    pieces: Sequence[Constants]

    def __len__(self) -> int:
        return sum(map(len, self.pieces))

    def attend(self, name: str, x: Tensor, heads: int) -> Tensor:
        xs = x.split([len(piece) for piece in self.pieces])
        return torch.cat([piece.attend(name, x, heads) for piece, x in zip(self.pieces, xs, strict=True)])

    def within(self, box: Share) -> Joined:
        return Joined([piece.within(box) for piece in self.pieces])

    def repeat(self, n: int) -> Joined:
        return Joined([piece.repeat(n) for piece in self.pieces])

    def to(self, like: Tensor) -> Joined:
        return Joined([piece.to(like) for piece in self.pieces])


# tokens [b,n,d], or constants of b samples
Context: TypeAlias = Tensor | Constants


class Contexts(NamedTuple):
    """The two contexts of classifier-free guidance."""

    conditional: Context
    unconditional: Context

    def repeat(self, n: int) -> Contexts:
        """Every sample n times, side by side."""
        a, b = (c.repeat_interleave(n, 0) if isinstance(c, Tensor) else c.repeat(n) for c in self)
        return Contexts(a, b)

    def to(self, like: Tensor) -> Contexts:
        """On the device and in the dtype of `like`."""
        return Contexts(self.conditional.to(like), self.unconditional.to(like))


def join(contexts: Sequence[Context]) -> Context:
    """One context for a batch of all samples; neighbours of equal kind and size are stacked."""
    tensors = [c for c in contexts if isinstance(c, Tensor)]
    if len(tensors) == len(contexts):
        return torch.cat(tensors)
    assert not tensors, "a batch of tensors and constants"
    flat = [piece for c in contexts for piece in (c.pieces if isinstance(c, Joined) else [c])]
    pieces = [piece for _, run in groupby(flat, key=_columns) for piece in _stacked(list(run))]
    return pieces[0] if len(pieces) == 1 else Joined(pieces)


def _columns(piece: Constants) -> int:
    return piece.columns if isinstance(piece, Folded) else -1


def _stacked(run: Sequence[Constants]) -> Sequence[Constants]:
    """Folded neighbours of equal columns as one; other kinds stay as they are."""
    same = [piece for piece in run if isinstance(piece, Folded)]
    if len(same) < 2:
        return run
    rows = {name: zip(*(piece.layers[name] for piece in same), strict=True) for name in same[0].layers}
    return [Folded({name: Layer(*map(torch.cat, row)) for name, row in rows.items()})]


def cross_attentions(unet: nn.Module) -> Iterator[tuple[str, Attention]]:
    """(name, layer) of every cross-attention, in the UNet's order."""
    for name, module in unet.named_modules():
        if isinstance(module, Attention) and name.endswith("attn2"):
            yield name, module


def detach_reference_token(x: Tensor) -> Tensor:
    """Tokens [b,n,d] without gradient through token 0, the reference; a single token keeps its gradient.

    As in Custom Diffusion: K and V learn from the few-shot tokens only.
    """
    return torch.cat([x[:, :1].detach(), x[:, 1:]], dim=1) if x.shape[1] > 1 else x


class FewTokenAttention:
    """Attention processor of the layer `name`: scaled dot-product attention, or that of a folded context.

    Token 0, the reference, gives K and V no gradient unless `all_learn`.
    """

    def __init__(self, name: str = "", all_learn: bool = False) -> None:
        self.name, self.all_learn = name, all_learn

    def __call__(
        self,
        attn: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: Context,
        attention_mask: Tensor | None = None,
    ) -> Tensor:
        """Hidden states [b,h*w,c], context [b,n,d] or folded => [b,h*w,c]."""
        assert attention_mask is None, "context tokens are never masked"
        if not isinstance(encoder_hidden_states, Tensor):
            return encoder_hidden_states.attend(self.name, hidden_states, attn.heads)
        k, v = attn.to_k(encoder_hidden_states), attn.to_v(encoder_hidden_states)
        if not self.all_learn:
            k, v = detach_reference_token(k), detach_reference_token(v)
        q, k, v = (
            rearrange(x, "b n (heads c) -> b heads n c", heads=attn.heads)
            for x in (attn.to_q(hidden_states), k, v)
        )
        out = F.scaled_dot_product_attention(q, k, v)
        out = rearrange(out, "b heads n c -> b n (heads c)")
        return attn.to_out[1](attn.to_out[0](out))


def use_few_token_attention(unet: UNet2DConditionModel, all_learn: bool = False) -> None:
    """Set `FewTokenAttention` as the processor of every cross-attention of the UNet.

    `all_learn`: gradients through every token, to train a base; learning an object needs the default.
    """
    for name, layer in cross_attentions(unet):
        layer.set_processor(FewTokenAttention(name, all_learn))
