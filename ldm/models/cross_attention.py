"""Cross-attention over a few context tokens, for the `attn2` layers of a diffusers UNet.

Which of their weights (K, V or all) learning an object trains: `ldm.objects.delta.is_trained`.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import Attention
from einops import rearrange
from torch import Tensor, nn

from ldm.models.context import Context


def cross_attentions(unet: nn.Module) -> Iterator[tuple[str, Attention]]:
    """(name, layer) of every cross-attention, in the UNet's order."""
    for name, module in unet.named_modules():
        if isinstance(module, Attention) and name.endswith("attn2"):
            yield name, module


def detach_first(x: Tensor) -> Tensor:
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
            k, v = detach_first(k), detach_first(v)
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
