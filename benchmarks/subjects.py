"""What is measured: the two bases, and the plain way to run one, with nothing of this project in it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ldm.models.architecture import Architecture, build_unet, set_position_ids
from ldm.models.base import Base, load_base
from ldm.models.cross_attention import Context, Contexts, cross_attentions
from ldm.models.diffusion import eps_of_v, unet_input
from ldm.models.inpainting_model import InpaintingModel
from ldm.models.runtime import PRECISIONS
from ldm.models.sampler import Condition, sample
from ldm.speed.onednn_packing import Packed

TOKENS = 5  # of a context: the reference and four few-shot tokens


def make_base(architecture: Architecture, weights: Path | None, device: str) -> Base:
    """The base at `weights`, or one of this size with synthetic weights."""
    if weights is not None:
        return load_base(weights, architecture, device=device)
    with torch.device("meta"):
        base = Base(architecture)
    base = base.to_empty(device=device).eval().requires_grad_(False)
    set_position_ids(base, device)
    for name, weight in base.named_parameters():
        if weight.ndim > 1:
            torch.nn.init.uniform_(weight, -0.02, 0.02)
        else:
            torch.nn.init.constant_(weight, float("norm" in name and name.endswith("weight")))
    return base


@dataclass(frozen=True)
class Scene:
    """A picture to fill: image [1,3,S,S], mask [1,1,S,S], start noise [n,4,h,w], contexts [1,1+N,d]."""

    image: Tensor
    mask: Tensor
    x_T: Tensor
    contexts: Contexts


def bytes_of(*modules: nn.Module) -> Callable[[], int]:
    """Of all their weights, a shared one once, and of those packed."""

    def count() -> int:
        weights = {w.data_ptr(): w.nbytes for m in modules for w in m.parameters() if not w.is_meta}
        forwards = [layer.forward for m in modules for layer in m.modules()]
        packed = [f.weight for f in forwards if isinstance(f, Packed) and f.weight.is_mkldnn]
        return sum(weights.values()) + sum(w.nbytes for w in packed)

    return count


def make_scene(base: Base, side: int, n: int = 1, seed: int = 0) -> Scene:
    """Noise in all places, the middle to be filled; values do not matter for time."""
    g, f = torch.Generator().manual_seed(seed), base.architecture.vae_factor
    image, mask = torch.rand(1, 3, side, side, generator=g) * 2 - 1, torch.zeros(1, 1, side, side)
    mask[..., side // 4 : -side // 4, side // 4 : -side // 4] = 1
    x_T = torch.randn(n, base.architecture.latent_channels, side // f, side // f, generator=g)
    tokens = torch.randn(1, TOKENS, base.architecture.context_width, generator=g)
    image, mask, x_T, tokens = (x.to(base.device) for x in (image, mask, x_T, tokens))
    return Scene(image, mask, x_T, Contexts(tokens, base.conditioner.unconditional(tokens).detach()))


def condition(scene: Scene, contexts: Contexts) -> Condition:
    """What a UNet sees besides x_t; the masked latents are noise."""
    n = len(scene.x_T)
    return Condition(scene.x_T, torch.ones_like(scene.x_T[:, :1]), contexts.repeat(n))


class Plain:
    """diffusers' UNet as it comes: every projection of every token at every step; all in one precision."""

    def __init__(self, base: Base, precision: str) -> None:
        self.architecture, self.dtype = base.architecture, PRECISIONS[precision]
        with torch.device("meta"):
            self.unet = build_unet(base.architecture)
        weights = {key: value.to(self.dtype) for key, value in base.unet.state_dict().items()}
        self.unet.load_state_dict(weights, assign=True)
        self.unet.eval().requires_grad_(False)

    def eps(self, x_t: Tensor, t: Tensor, masked: Tensor, mask: Tensor, context: Context) -> Tensor:
        """As `InpaintingModel.eps`; context [b,n,d]."""
        assert isinstance(context, Tensor)
        x = unet_input(x_t, masked, mask).to(self.dtype)
        out = self.unet(x, t, encoder_hidden_states=context.to(self.dtype)).sample.float()
        if self.architecture.prediction == "change":
            out = out.chunk(2, dim=1)[0]  # of mid-grey
        return out if self.architecture.prediction == "eps" else eps_of_v(out, x_t, t)


class Nothing:
    """Attention processor that costs nothing."""

    def __call__(self, attn: nn.Module, hidden_states: Tensor, **_: Any) -> Tensor:
        """Zeros [b,N,C] that take no memory."""
        return hidden_states.new_zeros(1).expand_as(hidden_states)


def without_cross_attention(plain: Plain) -> Plain:
    """What is left of it if cross-attention costs nothing: no folding can be faster."""
    for _, layer in cross_attentions(plain.unet):
        layer.set_processor(Nothing())
    return plain


def fill(model: Any, base: InpaintingModel, scene: Scene, contexts: Contexts, **options: Any) -> Tensor:
    """A whole insertion but for files: encode, sample, decode => [n,3,S,S]."""
    masked = base.encode(scene.image * (1 - scene.mask)).expand(len(scene.x_T), -1, -1, -1)
    mask = base.latent_mask(scene.mask).expand(len(scene.x_T), -1, -1, -1)
    c = Condition(masked, mask, contexts.repeat(len(scene.x_T)))
    return base.decode(sample(model, c, scene.x_T, **options))
