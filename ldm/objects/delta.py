"""An object as what tuning changed: which weights, and how a file keeps them.

A `Delta` holds differences to the base (fp16: small; matrices may be of low rank) or the tuned values
themselves (fp32: bit-exact, which differences are not: base + (tuned - base) may round). House names;
few-shot tokens are kept as they are.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import torch
from torch import Tensor

from ldm.models.base import Base
from ldm.models.state_dict import fingerprint, some
from ldm.objects.low_rank import DOWN, UP, LowRank, Weight, dense, pack, unpack
from ldm.objects.object_file import REFERENCE, VIEWS, About, read_object, write_object

FreezeModel = Literal["crossattn-kv", "crossattn"]
FREEZE_MODELS = get_args(FreezeModel)
PARTS = ("mapper", "final_ln", "proj_out", "learnable_vector")  # of the conditioner, always tuned
FEW_SHOT = ("conditioner.prior_encoder.", "conditioner.few_shot_tokens")
DIFFERENCE, TUNED = "delta.", "tuned."  # prefixes of the file's tensors
TOKENS = "few_shot_tokens"


def trained_names(base: Base, freeze_model: str) -> list[str]:
    """The weights that learning an object changes, in the base's order, its few-shot part included.

    `crossattn-kv`: K and V of all cross-attentions, `crossattn`: all of them; and the conditioner but CLIP.
    """
    return [name for name, _ in base.named_parameters() if is_trained(name, freeze_model)]


def is_trained(name: str, freeze_model: str) -> bool:
    """Whether learning an object changes the weight of this house name."""
    if freeze_model not in FREEZE_MODELS:
        raise ValueError(
            f"freeze_model {freeze_model!r} is unknown; choose one of {', '.join(FREEZE_MODELS)}"
        )
    levels = name.split(".")
    if levels[0] == "unet" and "attn2" in levels:
        return freeze_model == "crossattn" or levels[levels.index("attn2") + 1] in ("to_k", "to_v")
    return levels[0] == "conditioner" and (levels[1] in PARTS or name.startswith(FEW_SHOT))


@dataclass(frozen=True, eq=False)
class Delta:
    """One object. `weights`: house name => difference to the base, or the tuned value if `absolute`.

    `tokens` [N,c] are the few-shot tokens before the mapper, `reference` uint8 [c,P,P] the object's picture;
    `views` uint8 [N,c,P,P] its few-shot pictures, kept where the base needs them.
    """

    about: About
    weights: Mapping[str, Weight]
    absolute: bool = False
    tokens: Tensor | None = None
    reference: Tensor | None = None
    views: Tensor | None = None

    def tuned(self, name: str, base_value: Tensor, strength: float = 1.0) -> Tensor:
        """The tuned weight, fp32, for the base's one; `strength` scales the difference."""
        if self.absolute and strength == 1:
            return dense(self.weights[name]).to(base_value.device)
        return base_value.detach().float() + strength * self.difference(name, base_value)

    def difference(self, name: str, base_value: Tensor) -> Tensor:
        """The tuned weight minus the base's one, fp32."""
        weight = dense(self.weights[name]).to(base_value.device)
        return weight - base_value.detach().float() if self.absolute else weight


def extract(
    base_state: Mapping[str, Tensor],
    tuned_state: Mapping[str, Tensor],
    names: Collection[str],
    about: About,
    *,
    tokens: Tensor | None = None,
    reference: Tensor | None = None,
    views: Tensor | None = None,
    dtype: torch.dtype = torch.float16,
) -> Delta:
    """Two states in house names => what differs in `names`, as fp16 differences or (fp32) the tuned values.

    Names of the few-shot part are passed over: its outputs, `tokens`, stand for it.
    """
    names = [name for name in names if not name.startswith(FEW_SHOT)]
    if missing := [name for name in names if name not in base_state or name not in tuned_state]:
        raise ValueError(f"{some(missing)}: not in both states; give the base and a run that was made on it")
    absolute = dtype == torch.float32
    weights = {name: tuned_state[name].detach().float() for name in names}
    if not absolute:
        weights = {name: (value - base_state[name].float()).to(dtype) for name, value in weights.items()}
    tokens = None if tokens is None else tokens.detach().float()
    return Delta(about, weights, absolute, tokens, reference, views)


def differences(delta: Delta, base_state: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
    """Tuned minus base of every weight, fp32. An object of tuned values needs the base's `base_state`."""
    if not delta.absolute:
        return {name: dense(weight) for name, weight in delta.weights.items()}
    if base_state is None:
        raise ValueError("this object holds tuned fp32 values, not differences: give the base it was made on")
    if (given := fingerprint(base_state)) != delta.about.base:
        raise ValueError(f"this object is for the base {delta.about.base}, not {given}; give its own base")
    return {name: delta.difference(name, base_state[name]) for name in delta.weights}


def save(delta: Delta, path: Path) -> None:
    """Write the object file, whole or not at all."""
    tensors = pack(delta.weights, TUNED if delta.absolute else DIFFERENCE)
    extra = {TOKENS: delta.tokens, REFERENCE: delta.reference, VIEWS: delta.views}
    low_rank = any(isinstance(weight, LowRank) for weight in delta.weights.values())
    version = 2 if low_rank else 1
    kept = {key: value for key, value in extra.items() if value is not None}
    write_object(path, tensors | kept, delta.about, version)


def load(path: Path) -> Delta:
    """Read an object file; ValueError in one line if it is damaged, too new or of another kind."""
    tensors, about = read_object(Path(path), "delta")
    tokens, reference, views = (tensors.pop(key, None) for key in (TOKENS, REFERENCE, VIEWS))
    absolute = any(key.startswith(TUNED) for key in tensors)
    prefixes = (TUNED,) if absolute else (DIFFERENCE, UP, DOWN)
    if strange := [key for key in tensors if not key.startswith(prefixes)]:
        raise ValueError(f"{path}: {some(strange)} do not belong into an object file; write it again")
    if (0 if tokens is None else len(tokens)) != about.few_shot_count:
        raise ValueError(
            f"{path}: it does not hold its {about.few_shot_count} few-shot tokens; write it again"
        )
    return Delta(about, unpack(tensors, prefixes[0], path), absolute, tokens, reference, views)
