"""How LDM and diffusers number and name the same blocks of a UNet and a VAE.

In: the keys of a base, in either naming. Out: its `Blocks`, and from these the pairs of module names.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace

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
    return ((f"{ldm}.{inner}", f"{ours}.{ours}") for inner, ours in modules.items())
