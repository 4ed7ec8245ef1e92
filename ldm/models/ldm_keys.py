"""Names of a base's weights: those of LDM checkpoints <=> those of diffusers, which this project uses.

Diffusers names are flat: `unet.*` and `vae.*` as in diffusers, `conditioner.clip.*` as in transformers but
always without `vision_model.`, and `conditioner.{mapper,final_ln,proj_out,learnable_vector,prior_encoder}`.
LDM names are those of Paint-by-Example's model.ckpt. Both maps are one to one, and tensors are views.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from functools import lru_cache

from torch import Tensor

from ldm.models.ldm_blocks import SD1, Blocks, diffusers_blocks, ldm_blocks, unet_pairs, vae_pairs
from ldm.models.state_dict import first_few

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


def diffusers_to_ldm(state: Mapping[str, Tensor], blocks: Blocks | None = None) -> dict[str, Tensor]:
    """Diffusers names and shapes => those of Paint-by-Example's model.ckpt (CLIP with `vision_model.`)."""
    names = _rename(state, _maps(blocks or diffusers_blocks(state))[1], "diffusers")
    return {name: _as_convolution(key, state[key]) for key, name in names.items()}


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
            "Paint-by-Example's model.ckpt, or its Blocks"
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


def _as_convolution(diffusers_key: str, weight: Tensor) -> Tensor:
    return weight[:, :, None, None] if CONVOLVED.fullmatch(diffusers_key) and weight.ndim == 2 else weight


def _without_prefix(key: str) -> str:
    return key.replace(CLIP_PREFIX, "", 1)
