"""Names of a base's weights: those of LDM checkpoints <=> those of diffusers, which this project uses.

Diffusers names are flat: `unet.*` and `vae.*` as in diffusers, `conditioner.clip.*` as in transformers but
always without `vision_model.`, and `conditioner.{mapper,final_ln,proj_out,learnable_vector,prior_encoder}`.
LDM names are those of Paint-by-Example's model.ckpt. Both maps are one to one, and tensors are views. The two
number and name the blocks of UNet and VAE differently: `Blocks` counts them, by the keys in either naming.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache

from torch import Tensor

from ldm.models.checkpoint import first_few

NamePairs = Iterator[tuple[str, str]]  # (LDM name, diffusers name) of a module or a parameter

UNET = {
    "time_embed.0": "time_embedding.linear_1",
    "time_embed.2": "time_embedding.linear_2",
    "input_blocks.0.0": "conv_in",
    "middle_block.1": "mid_block.attentions.0",
    "out.0": "conv_norm_out",
    "out.2": "conv_out",
}
UNET_RESNET = {
    "in_layers.0": "norm1",
    "in_layers.2": "conv1",
    "emb_layers.1": "time_emb_proj",
    "out_layers.0": "norm2",
    "out_layers.3": "conv2",
    "skip_connection": "conv_shortcut",
}
VAE_ENDS = {"conv_in": "conv_in", "norm_out": "conv_norm_out", "conv_out": "conv_out"}
VAE_RESNET = {name: name for name in ("norm1", "conv1", "norm2", "conv2")} | {"nin_shortcut": "conv_shortcut"}
VAE_ATTENTION = {"norm": "group_norm", "q": "to_q", "k": "to_k", "v": "to_v", "proj_out": "to_out.0"}


@dataclass(frozen=True)
class Blocks:
    """How many levels and layers UNet and VAE have; the defaults are Stable Diffusion 1's."""

    levels: int = 4  # resolutions of the UNet
    layers: int = 2  # residual blocks per level on the UNet's way down
    plain_up_levels: frozenset[int] = frozenset({0})  # on the way up: an upsampler but no attention
    vae_levels: int = 4
    vae_layers: int = 2


SD1 = Blocks()


def ldm_blocks(keys: Collection[str]) -> Blocks:
    """Count the blocks by LDM names; an incomplete UNet or VAE counts as Stable Diffusion 1's."""
    blocks = SD1
    inputs = _numbers(r"model\.diffusion_model\.input_blocks\.(\d+)\.", keys)
    if 0 in inputs:  # the first convolution: the UNet is complete
        downsamplers = _numbers(r"model\.diffusion_model\.input_blocks\.(\d+)\.0\.op\.", keys)
        upsamplers = _numbers(r"model\.diffusion_model\.output_blocks\.(\d+)\.1\.conv\.", keys)
        per_level = min(downsamplers, default=max(inputs) + 1)
        plain = frozenset(index // per_level for index in upsamplers)
        levels = (max(inputs) + 1) // per_level
        blocks = replace(blocks, levels=levels, layers=per_level - 1, plain_up_levels=plain)
    if "first_stage_model.encoder.conv_in.weight" in keys:
        levels = len(_numbers(r"first_stage_model\.encoder\.down\.(\d+)\.", keys))
        layers = len(_numbers(r"first_stage_model\.encoder\.down\.0\.block\.(\d+)\.", keys))
        blocks = replace(blocks, vae_levels=levels, vae_layers=layers)
    return blocks


def diffusers_blocks(keys: Collection[str]) -> Blocks:
    """Count the blocks by diffusers names; an incomplete UNet or VAE counts as Stable Diffusion 1's."""
    blocks = SD1
    if "unet.conv_in.weight" in keys:  # the UNet is complete
        upsamplers = _numbers(r"unet\.up_blocks\.(\d+)\.upsamplers\.", keys)
        attended = _numbers(r"unet\.up_blocks\.(\d+)\.attentions\.", keys)
        levels = len(_numbers(r"unet\.down_blocks\.(\d+)\.", keys))
        layers = len(_numbers(r"unet\.down_blocks\.0\.resnets\.(\d+)\.", keys))
        plain = frozenset(upsamplers - attended)
        blocks = replace(blocks, levels=levels, layers=layers, plain_up_levels=plain)
    if "vae.encoder.conv_in.weight" in keys:
        levels = len(_numbers(r"vae\.encoder\.down_blocks\.(\d+)\.", keys))
        layers = len(_numbers(r"vae\.encoder\.down_blocks\.0\.resnets\.(\d+)\.", keys))
        blocks = replace(blocks, vae_levels=levels, vae_layers=layers)
    return blocks


def _numbers(pattern: str, keys: Collection[str]) -> set[int]:
    """The numbers that the pattern's one group matches in the keys."""
    return {int(match[1]) for key in keys if (match := re.match(pattern, key))}


def unet_pairs(blocks: Blocks) -> NamePairs:
    """Modules of `model.diffusion_model` and of UNet2DConditionModel."""
    yield from UNET.items()
    for index in range(2):
        yield from _inside(f"middle_block.{2 * index}", f"mid_block.resnets.{index}", UNET_RESNET)
    for level in range(blocks.levels):
        yield from _unet_level(level, blocks)


def _unet_level(level: int, blocks: Blocks) -> NamePairs:
    """LDM numbers blocks across levels, `layers` + 1 each; its input block 0 is the first convolution."""
    start = level * (blocks.layers + 1)
    down, up = f"down_blocks.{level}", f"up_blocks.{level}"
    for index in range(blocks.layers):
        yield from _unet_block(f"input_blocks.{start + 1 + index}", down, index)
    yield f"input_blocks.{start + 1 + blocks.layers}.0.op", f"{down}.downsamplers.0.conv"
    for index in range(blocks.layers + 1):
        yield from _unet_block(f"output_blocks.{start + index}", up, index)
    place = 1 if level in blocks.plain_up_levels else 2  # after the last block's attention, if it has one
    yield f"output_blocks.{start + blocks.layers}.{place}.conv", f"{up}.upsamplers.0.conv"


def _unet_block(ldm: str, ours: str, index: int) -> NamePairs:
    yield from _inside(f"{ldm}.0", f"{ours}.resnets.{index}", UNET_RESNET)
    yield f"{ldm}.1", f"{ours}.attentions.{index}"


def vae_pairs(blocks: Blocks) -> NamePairs:
    """Modules of `first_stage_model` and of AutoencoderKL; LDM numbers the decoder's levels backwards."""
    yield from {"quant_conv": "quant_conv", "post_quant_conv": "post_quant_conv"}.items()
    for half in ("encoder", "decoder"):
        yield from _inside(half, half, VAE_ENDS)
        yield from _inside(f"{half}.mid.attn_1", f"{half}.mid_block.attentions.0", VAE_ATTENTION)
        for index in range(2):
            block, resnet = f"{half}.mid.block_{index + 1}", f"{half}.mid_block.resnets.{index}"
            yield from _inside(block, resnet, VAE_RESNET)
    for level in range(blocks.vae_levels):
        down, up = f"encoder.down_blocks.{level}", f"decoder.up_blocks.{blocks.vae_levels - 1 - level}"
        yield from _vae_level(f"encoder.down.{level}", down, blocks.vae_layers)
        yield from _vae_level(f"decoder.up.{level}", up, blocks.vae_layers + 1)
        yield f"encoder.down.{level}.downsample.conv", f"{down}.downsamplers.0.conv"
        yield f"decoder.up.{level}.upsample.conv", f"{up}.upsamplers.0.conv"


def _vae_level(ldm: str, ours: str, layers: int) -> NamePairs:
    for index in range(layers):
        yield from _inside(f"{ldm}.block.{index}", f"{ours}.resnets.{index}", VAE_RESNET)
        yield from _inside(f"{ldm}.attn.{index}", f"{ours}.attentions.{index}", VAE_ATTENTION)


def _inside(ldm: str, ours: str, modules: Mapping[str, str]) -> NamePairs:
    return ((f"{ldm}.{theirs}", f"{ours}.{inner}") for theirs, inner in modules.items())


CONDITIONER = {
    "cond_stage_model.transformer.vision_model": "conditioner.clip",
    "cond_stage_model.mapper": "conditioner.mapper",
    "cond_stage_model.final_ln": "conditioner.final_ln",
    "cond_stage_model.prior_encoder": "conditioner.prior_encoder",
    "proj_out": "conditioner.proj_out",
    "learnable_vector": "conditioner.learnable_vector",
}
LDM_STARTS = ("model.diffusion_model.", "first_stage_model.", *CONDITIONER)
# what a training checkpoint holds beside the weights: schedule buffers, counters, averages, CLIP's constants
EXTRA = re.compile(
    r"betas|alphas_cumprod(_prev)?|(sqrt|log_one_minus|posterior)_\w+|lvlb_weights|logvar|scale_factor"
    r"|global_step|epoch|model_ema\..+|.+\.position_ids"
)
CLIP_PREFIX = "vision_model."
CONVOLVED = re.compile(r"vae\..+\.attentions\.\d+\.to_(q|k|v|out\.0)\.weight")  # 1x1 convolutions in LDM


def ldm_to_diffusers(state: Mapping[str, Tensor], blocks: Blocks | None = None) -> dict[str, Tensor]:
    """LDM names and shapes => diffusers ones, without extras; `blocks` are counted if the state is complete.

    Raises ValueError for keys that belong to no base, and for two names of one weight.
    """
    kept = {key: value for key, value in state.items() if not is_extra(key)}
    names = _rename(kept, _maps(blocks or ldm_blocks(kept))[0], "LDM")
    return {name: _as_linear(name, kept[key]) for key, name in names.items()}


def diffusers_key(ldm_key: str, blocks: Blocks = SD1) -> str:
    """`model.diffusion_model.input_blocks.1.1.norm.bias` => `unet.down_blocks.0.attentions.0.norm.bias`."""
    return _rename([ldm_key], _maps(blocks)[0], "LDM")[ldm_key]


def ldm_key(diffusers_key: str, blocks: Blocks = SD1) -> str:
    """`unet.down_blocks.0.attentions.0.norm.bias` => `model.diffusion_model.input_blocks.1.1.norm.bias`."""
    return _rename([diffusers_key], _maps(blocks)[1], "diffusers")[diffusers_key]


def is_ldm(keys: Iterable[str]) -> bool:
    """Whether these are LDM names of a base, or of a part of it."""
    return any(key.startswith(LDM_STARTS) for key in keys)


def is_extra(ldm_key: str) -> bool:
    """Whether an LDM key names no weight: schedule buffers, `position_ids`, averages, counters."""
    return EXTRA.fullmatch(ldm_key) is not None


def match_clip_keys(state: Mapping[str, Tensor], expected: Iterable[str] = ()) -> dict[str, Tensor]:
    """Insert or drop CLIP's `vision_model.` as in the `expected` keys; without these it is dropped.

    transformers 5 names CLIPVisionModel's weights without it, earlier ones and LDM checkpoints with it.
    """
    prefixed = {_without_prefix(key): key for key in expected}
    ours = {_without_prefix(key): value for key, value in state.items()}
    return {prefixed.get(key, key): value for key, value in ours.items()}


@lru_cache
def _maps(blocks: Blocks) -> tuple[dict[str, str], dict[str, str]]:
    """Module names LDM => diffusers and diffusers => LDM."""
    pairs = [(f"model.diffusion_model.{ldm}", f"unet.{ours}") for ldm, ours in unet_pairs(blocks)]
    pairs += [(f"first_stage_model.{ldm}", f"vae.{ours}") for ldm, ours in vae_pairs(blocks)]
    pairs += CONDITIONER.items()
    to_ldm = {ours: ldm for ldm, ours in pairs}
    return dict(pairs) | {"cond_stage_model.transformer": "conditioner.clip"}, to_ldm


def _rename(keys: Iterable[str], modules: Mapping[str, str], naming: str) -> dict[str, str]:
    """Key => its name in the other naming, by the longest module prefix; names must stay unique."""
    names = {key: _renamed(key, modules) for key in keys}
    if unknown := [key for key, name in names.items() if not name]:
        raise ValueError(
            f"{first_few(unknown)}: not {naming} names of a base's weights; give a checkpoint like "
            "Paint-by-Example's model.ckpt"
        )
    if len(set(names.values())) < len(names):
        counts = Counter(names.values())
        twice = [key for key, name in names.items() if counts[name] > 1]
        raise ValueError(f"{first_few(twice)}: two names of one weight; give a checkpoint that has only one")
    return names


def _renamed(key: str, modules: Mapping[str, str]) -> str:
    """The key's name in the other naming, empty if it has none."""
    levels = key.split(".")
    for depth in range(len(levels), 0, -1):
        if module := modules.get(".".join(levels[:depth])):
            return ".".join([module, *levels[depth:]])
    return ""


def _as_linear(diffusers_key: str, weight: Tensor) -> Tensor:
    """The VAE's attention is 1x1 convolutions [c,c,1,1] in LDM, linear layers [c,c] in diffusers."""
    return weight.squeeze((2, 3)) if CONVOLVED.fullmatch(diffusers_key) and weight.ndim == 4 else weight


def _without_prefix(key: str) -> str:
    return key.replace(CLIP_PREFIX, "", 1)
