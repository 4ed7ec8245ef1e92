"""Names of a base's weights: those of LDM checkpoints => those of diffusers, which this project uses.

Diffusers names are flat: `unet.*` and `vae.*` as in diffusers, `conditioner.clip.*` as in transformers but
always without `vision_model.`, and `conditioner.{mapper,final_ln,proj_out,learnable_vector,prior_encoder}`.
LDM names are those of Paint-by-Example's model.ckpt. The map is one to one, and tensors are views. LDM
numbers the UNet's blocks across levels, `layers` + 1 a level: `layers` residual blocks on the way down.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from torch import Tensor

from ldm.models.checkpoint import first_few

UNET, VAE = "model.diffusion_model.", "first_stage_model."
WHOLE_UNET = UNET + "out.0.bias"  # a key that parts of a UNet lack
CONDITIONER = {
    "cond_stage_model.transformer": "conditioner.clip",
    "cond_stage_model.mapper": "conditioner.mapper",
    "cond_stage_model.final_ln": "conditioner.final_ln",
    "cond_stage_model.prior_encoder": "conditioner.prior_encoder",
    "proj_out": "conditioner.proj_out",
    "learnable_vector": "conditioner.learnable_vector",
}
LDM_STARTS = (UNET, VAE, *CONDITIONER)
OURS = re.compile(r"unet\.(down|mid|up)_blocks?\.(?:(\d+)\.)?attentions\.(\d+)\.(.+)")  # in a transformer
THEIRS = re.compile(re.escape(UNET) + r"(input|middle|output)_blocks?\.(?:(\d+)\.)?1\.(.+)")  # likewise
# what a training checkpoint holds beside the weights: schedule buffers, counters, averages, CLIP's constants
EXTRA = re.compile(
    r"betas|alphas_cumprod(_prev)?|(sqrt|log_one_minus|posterior)_\w+|lvlb_weights|logvar|scale_factor"
    r"|global_step|epoch|model_ema\..+|.+\.position_ids"
)
CLIP_PREFIX = "vision_model."
UNKNOWN = "not LDM names of a base's weights; give a checkpoint like Paint-by-Example's model.ckpt"


def ldm_to_diffusers(state: Mapping[str, Tensor], layers: int = 0) -> dict[str, Tensor]:
    """LDM names and shapes => diffusers ones, without extras; of an incomplete UNet only its transformers.

    `layers`: 0 counts them by the names of a whole UNet, else they are 2. Raises ValueError for keys that
    belong to no base, and for two names of one weight.
    """
    from diffusers.loaders import single_file_utils as diffusers  # slow to import; only for LDM checkpoints

    kept = {key: value for key, value in state.items() if not is_extra(key)}
    layers = layers or min(_numbers(UNET + r"input_blocks\.(\d+)\.0\.op\.", kept), default=3) - 1
    levels = range(1 + max(_numbers(VAE + r"(?:encoder\.down|decoder\.up)\.(\d+)\.", kept), default=3))
    unet = {k: v for k, v in kept.items() if k.startswith(UNET)} if WHOLE_UNET in kept else {}
    vae = {k: v for k, v in kept.items() if k.startswith(VAE)}
    found = _converted("unet", unet, diffusers.convert_ldm_unet_checkpoint, {"layers_per_block": layers})
    sizes = {"down_block_types": levels, "up_block_types": levels}
    found |= _converted("vae", vae, diffusers.convert_ldm_vae_checkpoint, sizes)
    names = {key: _diffusers_name(key, layers) for key in kept if key not in unet and key not in vae}
    if unknown := [key for key, name in names.items() if not name]:
        raise ValueError(f"{first_few(unknown)}: {UNKNOWN}")
    counts = Counter(names.values())
    if twice := [key for key, name in names.items() if counts[name] > 1]:
        raise ValueError(f"{first_few(twice)}: two names of one weight; give a checkpoint that has only one")
    return found | {name: kept[key] for key, name in names.items()}


def ldm_key(name: str, layers: int) -> str:
    """The LDM name of a weight in the UNet's transformers or the conditioner.

    `unet.down_blocks.0.attentions.0.norm.bias` => `model.diffusion_model.input_blocks.1.1.norm.bias`.
    """
    if found := OURS.fullmatch(name):
        side, level, layer, rest = found.groups()
        index = int(level or 0) * (layers + 1) + int(layer)
        blocks = {"down": f"input_blocks.{index + 1}", "mid": "middle_block", "up": f"output_blocks.{index}"}
        return f"{UNET}{blocks[side]}.1.{rest}"
    if key := _renamed(name, {ours: ldm for ldm, ours in CONDITIONER.items()}):
        return key
    raise ValueError(f"{name} has no name in the paper's format; give a weight that learning an object tunes")


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


def _converted(
    part: str, state: Mapping[str, Tensor], convert: Callable[..., dict[str, Tensor]], sizes: dict[str, Any]
) -> dict[str, Tensor]:
    """A whole UNet or VAE by diffusers' own conversion, which leaves out what it does not know."""
    found = convert(state, sizes)
    if len(found) < len(state):
        known = set(map(id, found.values()))
        lost = [key for key, value in state.items() if id(value) not in known and ".attn_" not in key]
        raise ValueError(f"{first_few(lost or list(state))}: {UNKNOWN}")
    return {f"{part}.{key}": value for key, value in found.items()}


def _diffusers_name(key: str, layers: int) -> str:
    """The diffusers name of an LDM key in the UNet's transformers or the conditioner, "" if it is none."""
    if not (found := THEIRS.fullmatch(key)):
        return _without_prefix(_renamed(key, CONDITIONER))
    way, index, rest = found.groups()
    level, layer = divmod(int(index or 0) - (way == "input"), layers + 1)
    blocks = {"input": f"down_blocks.{level}", "middle": "mid_block", "output": f"up_blocks.{level}"}
    return f"unet.{blocks[way]}.attentions.{layer}.{rest}"


def _renamed(key: str, modules: Mapping[str, str]) -> str:
    """The key with the module that it begins with renamed; "" if that is none of `modules`."""
    for old, new in modules.items():
        if key == old or key.startswith(f"{old}."):
            return new + key.removeprefix(old)
    return ""


def _numbers(pattern: str, keys: Iterable[str]) -> set[int]:
    """The numbers that the pattern's one group matches in the keys."""
    return {int(match[1]) for key in keys if (match := re.match(pattern, key))}


def _without_prefix(key: str) -> str:
    return key.replace(CLIP_PREFIX, "", 1)
