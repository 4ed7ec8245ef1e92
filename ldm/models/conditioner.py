"""Reference and few-shot images => context: the tokens of the UNet's cross-attention.

The names of the weights are those of Paint-by-Example's checkpoint. Widths: c is CLIP's, d the context's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, get_args

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn.functional import interpolate, scaled_dot_product_attention

from ldm.models.architecture import Architecture, build_clip

if TYPE_CHECKING:
    from transformers import CLIPVisionModel


FewShot = Literal["none", "linear", "tokens"]
FEW_SHOT = get_args(FewShot)
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


def clip_normalised(image: Tensor) -> Tensor:
    """Image [b,3,R,R] in [-1,1] => normalised by CLIP's mean and standard deviation."""
    mean, std = (torch.tensor(x).to(image)[:, None, None] for x in (CLIP_MEAN, CLIP_STD))
    return ((image + 1) / 2 - mean) / std


def raw_pixels(image: Tensor) -> Tensor:
    """Image [b,3,R,R] in [-1,1] => CLIP's input in the paper's code: 0-255, height and width swapped."""
    return rearrange((image * 127.5 + 127.5).round(), "b c H W -> b c W H")


class MapperAttention(nn.Module):
    """Multi-head self-attention with one matrix for q, k, v, interleaved per head as in the checkpoint."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.c_qkv = nn.Linear(width, 3 * width)
        self.c_proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        qkv = rearrange(self.c_qkv(x), "b n (heads c) -> b heads n c", heads=self.heads)
        out = scaled_dot_product_attention(*qkv.chunk(3, dim=-1))
        return self.c_proj(rearrange(out, "b heads n c -> b n (heads c)"))


class MapperMlp(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.c_fc = nn.Linear(width, 4 * width)
        self.c_proj = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.c_proj(nn.functional.gelu(self.c_fc(x)))


class MapperBlock(nn.Module):
    """Pre-norm transformer block."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attn = MapperAttention(width, heads)
        self.ln_1 = nn.LayerNorm(width)
        self.mlp = MapperMlp(width)
        self.ln_2 = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.ln_1(x))
        return x + self.mlp(self.ln_2(x))


class Mapper(nn.Module):
    """A stack of blocks, [b,n,c] => [b,n,c]."""

    def __init__(self, width: int, layers: int, heads: int) -> None:
        super().__init__()
        self.resblocks = nn.ModuleList([MapperBlock(width, heads) for _ in range(layers)])

    def forward(self, x: Tensor) -> Tensor:
        for block in self.resblocks:
            x = block(x)
        return x


class PriorEncoder(nn.Module):
    """The paper's few-shot tokens: CLIP's last hidden state of every crop, through one linear layer."""

    def __init__(self, tokens: int, width: int) -> None:
        super().__init__()
        self.prior_block = nn.Sequential(nn.Flatten(), nn.Linear(tokens * width, width))

    def forward(self, features: Tensor) -> Tensor:
        """[N,tokens,c] => [N,c]."""
        return self.prior_block(features)


class Conditioner(nn.Module):
    """CLIP, mapper, final_ln, proj_out and learnable_vector, and the few-shot part of an object, if any.

    The few-shot part is a `prior_encoder` over constant `few_shot_features` (kind `linear`), or
    `few_shot_tokens` themselves (kind `tokens`), or neither (`none`: Paint-by-Example).
    """

    few_shot_features: Tensor | None

    def __init__(self, a: Architecture) -> None:
        super().__init__()
        self.reference_size = a.reference_size
        self.clip: CLIPVisionModel = build_clip(a)
        self.mapper = Mapper(a.clip_width, a.mapper_layers, a.mapper_heads)
        self.final_ln = nn.LayerNorm(a.clip_width)
        self.proj_out = nn.Linear(a.clip_width, a.context_width)
        self.learnable_vector = nn.Parameter(torch.randn(1, 1, a.context_width) * 0.02)
        self.prior_encoder: PriorEncoder | None = None
        self.few_shot_tokens: nn.Parameter | None = None
        self.register_buffer("few_shot_features", None, persistent=False)

    def at_clip_size(self, images: Tensor) -> Tensor:
        """Images [b,3,P,P] in [-1,1], or cut-outs [b,4,P,P] over mid-grey => [b,3,R,R], CLIP's input size."""
        rgb, size = images[:, :3], self.reference_size
        if rgb.shape[-1] == size:
            return rgb
        return interpolate(rgb, size=(size, size), mode="bilinear", antialias=True)

    def image_features(self, images: Tensor) -> Tensor:
        """Images or cut-outs, see `at_clip_size` => CLIP's pooled output [b,c]."""
        return self.pooled(clip_normalised(self.at_clip_size(images)))

    @torch.no_grad()
    def pooled(self, normalised: Tensor) -> Tensor:
        """CLIP-normalised images [b,3,R,R] => CLIP's pooled output [b,c]."""
        return self.clip(pixel_values=normalised).pooler_output

    @torch.no_grad()
    def hidden(self, pixels: Tensor) -> Tensor:
        """CLIP's input [N,3,R,R], normalised or raw => its last hidden state [N,tokens,c]."""
        return self.clip(pixel_values=pixels).last_hidden_state

    def use_tokens(self, tokens: Tensor) -> None:
        """Few-shot kind `tokens`: [N,c] trainable vectors, N >= 1."""
        self.drop_few_shot()
        self.few_shot_tokens = nn.Parameter(tokens.detach().clone())

    def use_linear(self, features: Tensor, encoder: PriorEncoder | None = None) -> None:
        """Few-shot kind `linear`: constant features [N,tokens,c] and their encoder, by default a new one."""
        self.drop_few_shot()
        self.prior_encoder = (encoder or PriorEncoder(*features.shape[1:])).to(features)
        self.few_shot_features = features.detach()

    def drop_few_shot(self) -> None:
        """Back to Paint-by-Example's single token."""
        self.prior_encoder = self.few_shot_tokens = self.few_shot_features = None

    def few_shot(self) -> Tensor | None:
        """The object's tokens [N,c] before the mapper, None for kind `none`."""
        if self.few_shot_tokens is not None:
            return self.few_shot_tokens
        if self.prior_encoder is not None:
            return self.prior_encoder(self.few_shot_features)
        return None

    def tokens_of_view(self, number: int) -> Tensor | None:
        """The few-shot tokens [N,c]; with a `number` from 1, that picture's token in place of all N.

        ValueError if the object has fewer.
        """
        tokens = self.few_shot()
        if not number:
            return tokens
        count = 0 if tokens is None else len(tokens)
        if tokens is None or not 1 <= number <= count:
            hint = f"give 1 to {count}, or 0 for all" if count else "leave it out"
            raise ValueError(f"reference_view {number}: this object has {count} few-shot tokens; {hint}")
        return tokens[number - 1].expand_as(tokens)

    def few_shot_by_sample(self, view: Tensor) -> Tensor | None:
        """Tokens [b,N,c] for b samples: by `view` [b], from 0, one token in all N places; -1: all tokens."""
        tokens = self.few_shot()
        if tokens is None:
            return None
        single = tokens[view.clamp_min(0)][:, None]
        return torch.where((view >= 0)[:, None, None], single, tokens)

    def forward(self, reference: Tensor, few_shot: Tensor | None = None) -> Tensor:
        """Pooled reference [b,c] and few-shot tokens [N,c] or [b,N,c] => context [b,1+N,d]."""
        x = reference[:, None]
        if few_shot is not None:
            x = torch.cat([x, few_shot.expand(len(x), -1, -1)], dim=1)
        return self.proj_out(self.final_ln(self.mapper(x)))

    def unconditional(self, context: Tensor) -> Tensor:
        """The learnable vector in every position of `context` [b,n,d]."""
        return self.learnable_vector.expand_as(context)
