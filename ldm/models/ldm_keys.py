"""Names of a base's weights: those of LDM checkpoints <=> ours ("house"), as pure dict => dict.

House names are flat: `unet.*` and `vae.*` as in diffusers, `conditioner.clip.*` as in transformers but always
without `vision_model.`, and `conditioner.{mapper,final_ln,proj_out,learnable_vector,prior_encoder}`.
LDM names are those of Paint-by-Example's model.ckpt. Both maps are one to one, and tensors are views.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from functools import lru_cache

from torch import Tensor

from ldm.models.ldm_blocks import SD1, Blocks, diffusers_blocks, ldm_blocks, unet_pairs, vae_pairs
from ldm.models.state_dict import some

CONDITIONER = {
    "cond_stage_model.transformer.vision_model": "conditioner.clip",
    "cond_stage_model.mapper": "conditioner.mapper",
    "cond_stage_model.final_ln": "conditioner.final_ln",
    "cond_stage_model.prior_encoder": "conditioner.prior_encoder",
    "proj_out": "conditioner.proj_out",
    "learnable_vector": "conditioner.learnable_vector",
}
LDM_STARTS = ("model.diffusion_model.", "first_stage_model.", *CONDITIONER)
# what a training run leaves beside the weights: schedule buffers, counters, averages, constants of CLIP
EXTRA = re.compile(
    r"betas|alphas_cumprod(_prev)?|(sqrt|log_one_minus|posterior)_\w+|lvlb_weights|logvar|scale_factor"
    r"|global_step|epoch|model_ema\..+|.+\.position_ids"
)
CLIP_PREFIX = "vision_model."
CONVOLVED = re.compile(r"vae\..+\.attentions\.\d+\.to_(q|k|v|out\.0)\.weight")  # 1x1 convolutions in LDM


def ldm_to_diffusers(state: Mapping[str, Tensor], layout: Blocks | None = None) -> dict[str, Tensor]:
    """LDM names and shapes => house ones; extras are dropped, `layout` comes from the keys of a whole state.

    Raises ValueError for keys that belong to no base, and for two spellings of one weight.
    """
    kept = {key: value for key, value in state.items() if not is_extra(key)}
    names = _rename(kept, _maps(layout or ldm_blocks(kept))[0], "LDM")
    return {name: _as_linear(name, kept[key]) for key, name in names.items()}


def diffusers_to_ldm(state: Mapping[str, Tensor], layout: Blocks | None = None) -> dict[str, Tensor]:
    """House names and shapes => those of Paint-by-Example's model.ckpt (CLIP with `vision_model.`)."""
    names = _rename(state, _maps(layout or diffusers_blocks(state))[1], "house")
    return {name: _as_convolution(key, state[key]) for key, name in names.items()}


def diffusers_key(ldm_key: str, layout: Blocks = SD1) -> str:
    """`model.diffusion_model.input_blocks.1.1.norm.bias` => `unet.down_blocks.0.attentions.0.norm.bias`."""
    return _rename([ldm_key], _maps(layout)[0], "LDM")[ldm_key]


def ldm_key(diffusers_key: str, layout: Blocks = SD1) -> str:
    """`unet.down_blocks.0.attentions.0.norm.bias` => `model.diffusion_model.input_blocks.1.1.norm.bias`."""
    return _rename([diffusers_key], _maps(layout)[1], "house")[diffusers_key]


def is_ldm(keys: Iterable[str]) -> bool:
    """Whether these are LDM's names of a base, or of a part of it, rather than ours."""
    return any(key.startswith(LDM_STARTS) for key in keys)


def is_extra(ldm_key: str) -> bool:
    """Whether an LDM key names no weight: schedule buffers, `position_ids`, averages, counters."""
    return EXTRA.fullmatch(ldm_key) is not None


def part(state: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    """The weights below `name` ("unet", "conditioner.clip" ...), named from there."""
    start = f"{name}."
    return {key.removeprefix(start): value for key, value in state.items() if key.startswith(start)}


def spell_clip_keys(state: Mapping[str, Tensor], expected: Iterable[str] = ()) -> dict[str, Tensor]:
    """Insert or drop CLIP's `vision_model.` as the `expected` keys have it; none expected => house spelling.

    transformers 5 names CLIPVisionModel's weights without it, earlier ones and LDM checkpoints with it.
    """
    spelling = {_without_prefix(key): key for key in expected}
    house = {_without_prefix(key): value for key, value in state.items()}
    return {spelling.get(key, key): value for key, value in house.items()}


@lru_cache
def _maps(layout: Blocks) -> tuple[dict[str, str], dict[str, str]]:
    """Module names LDM => house and house => LDM."""
    pairs = [(f"model.diffusion_model.{ldm}", f"unet.{house}") for ldm, house in unet_pairs(layout)]
    pairs += [(f"first_stage_model.{ldm}", f"vae.{house}") for ldm, house in vae_pairs(layout)]
    pairs += CONDITIONER.items()
    to_ldm = {house: ldm for ldm, house in pairs}
    return dict(pairs) | {"cond_stage_model.transformer": "conditioner.clip"}, to_ldm


def _rename(keys: Iterable[str], modules: Mapping[str, str], spelling: str) -> dict[str, str]:
    """Key => its other name, by the longest module name it starts with; no two keys may get the same one."""
    names = {key: _renamed(key, modules) for key in keys}
    if unknown := [key for key, name in names.items() if not name]:
        raise ValueError(
            f"{some(unknown)}: not {spelling} names of a base's weights; give a checkpoint like "
            "Paint-by-Example's model.ckpt, or the Blocks by which its blocks are numbered"
        )
    if len(set(names.values())) < len(names):
        counts = Counter(names.values())
        twice = [key for key, name in names.items() if counts[name] > 1]
        raise ValueError(f"{some(twice)}: two spellings of one weight; give a checkpoint that has only one")
    return names


def _renamed(key: str, modules: Mapping[str, str]) -> str:
    """The key's other name, empty if it has none."""
    levels = key.split(".")
    for depth in range(len(levels), 0, -1):
        if module := modules.get(".".join(levels[:depth])):
            return ".".join([module, *levels[depth:]])
    return ""


def _as_linear(diffusers_key: str, weight: Tensor) -> Tensor:
    """The VAE's attention is 1x1 convolutions [c,c,1,1] in LDM, linear layers [c,c] in diffusers."""
    return weight.squeeze((2, 3)) if CONVOLVED.fullmatch(diffusers_key) and weight.ndim == 4 else weight


def _as_convolution(diffusers_key: str, weight: Tensor) -> Tensor:
    return weight[:, :, None, None] if CONVOLVED.fullmatch(diffusers_key) and weight.ndim == 2 else weight


def _without_prefix(key: str) -> str:
    return key.replace(CLIP_PREFIX, "", 1)
