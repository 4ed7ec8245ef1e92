"""Objects in the format of the paper's code, both ways: {"state_dict": 146 tuned fp32 tensors in LDM names}.

That file has no few-shot tokens but the layer that makes them from CLIP's features of the few-shot pictures,
so that reading or writing one takes these. A few plain keys stand beside "state_dict", where the paper's code
does not look: what it has no name for.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor

from ldm.data.image import to_bytes
from ldm.models.base import Base, base_fingerprint, house_state
from ldm.models.checkpoint import write_ckpt
from ldm.models.conditioner import PriorEncoder
from ldm.models.ldm_keys import ldm_key, ldm_to_house
from ldm.models.ldm_layout import house_layout
from ldm.models.pickles import read_pickle
from ldm.models.weights import some
from ldm.objects.delta import Delta, is_trained
from ldm.objects.few_shot import few_shot_features
from ldm.objects.file import About

LINEAR = "conditioner.prior_encoder.prior_block.1."
VECTOR = "conditioner.learnable_vector"
EXACT = 1e-3  # relative error of the tokens, beyond which a layer does not stand for them


def linear_for(tokens: Tensor, features: Tensor) -> dict[str, Tensor]:
    """Tokens t [N,c], features f [N,tokens,c] => the smallest weight W [c,tokens*c] with W f_i = t_i, bias 0.

    Raises ValueError if there is none: two equal pictures with different tokens.
    """
    f, t = features.flatten(1).double(), tokens.double()
    weight = (torch.linalg.pinv(f @ f.T, hermitian=True) @ t).T @ f  # normal equations: N x N, N is small
    if float((f @ weight.T - t).norm()) > EXACT * float(t.norm()):
        raise ValueError(
            "no prior encoder makes these few-shot tokens from these pictures: some of them are the same; "
            "give the pictures that the object was learnt from, or write --format safetensors"
        )
    return {LINEAR + "weight": weight.float(), LINEAR + "bias": torch.zeros(len(weight))}


def save_ldm_delta(path: Path, base: Base, delta: Delta, linear: Mapping[str, Tensor], features: str) -> None:
    """Write the paper's .ckpt: all of the cross-attention, mapper, final_ln, proj_out, and the prior encoder.

    `linear`: its weight and bias under house names, {} for an object without few-shot tokens; `features` says
    what it reads: CLIP's view of clip or raw pixels.
    """
    own = house_state(base)
    names = [name for name in own if is_trained(name, "crossattn")]
    tuned = {n: delta.tuned(n, own[n]) if n in delta.weights else own[n].float() for n in names}
    vector = tuned.pop(VECTOR)
    layout = house_layout(own)
    state = {ldm_key(name, layout): value.cpu() for name, value in (tuned | dict(linear)).items()}
    beside = {"learnable_vector": vector.cpu(), "few_shot_features": features, "base": delta.about.base}
    write_ckpt(path, {"state_dict": {k: v.contiguous() for k, v in state.items()}} | beside)


def load_ldm_delta(
    path: Path,
    base: Base,
    crops: Tensor,
    features: str = "raw",
    fingerprint: str = "",
    keep_pictures: bool = False,
) -> Delta:
    """The paper's .ckpt and the object's few-shot crops [N,c,P,P] in [-1,1] => the object, exact.

    `features` is how the prior encoder's features were made: `raw` by the paper's own code. The file does not
    name its base; ours do, in which case `apply` compares it. `fingerprint`: the base's, if it is known;
    `keep_pictures`: the object keeps the crops.
    Raises ValueError if it does not fit `base`.
    """
    own = house_state(base)
    weights = ldm_to_house(read_pickle(path), house_layout(own))
    linear = {key: weights.pop(key) for key in list(weights) if key.startswith(LINEAR)}
    beside = _beside(path)
    if VECTOR not in weights and isinstance(beside.get("learnable_vector"), Tensor):
        weights[VECTOR] = beside["learnable_vector"]
    if wrong := [k for k, v in weights.items() if not is_trained(k, "crossattn") or own[k].shape != v.shape]:
        raise ValueError(f"{path} does not fit the {base.architecture.name} base: {some(wrong)}")
    tokens = _tokens(base, linear, crops, str(beside.get("few_shot_features", features))) if linear else None
    about = About(
        base=str(beside.get("base") or fingerprint or base_fingerprint(base)),
        architecture=base.architecture.name,
        freeze_model="crossattn",
        few_shot="linear" if linear else "none",
        few_shot_count=len(tokens) if tokens is not None else 0,
        recipe={"imported": Path(path).name},
    )
    views = to_bytes(crops) if keep_pictures else None
    return Delta(about, {name: value.float() for name, value in weights.items()}, True, tokens, views=views)


@torch.no_grad()
def _tokens(base: Base, linear: Mapping[str, Tensor], crops: Tensor, features: str) -> Tensor:
    """What the prior encoder makes of the crops: [N,c]."""
    hidden = few_shot_features(base, crops, features).cpu()
    encoder = PriorEncoder(*hidden.shape[1:])
    weight = encoder.prior_block[1].weight
    if linear[LINEAR + "weight"].shape != weight.shape:
        shapes = list(linear[LINEAR + "weight"].shape), list(weight.shape)
        raise ValueError(
            f"the prior encoder's weight is {shapes[0]}, this base needs {shapes[1]}; take its own base"
        )
    encoder.load_state_dict({key.removeprefix("conditioner.prior_encoder."): v for key, v in linear.items()})
    return encoder(hidden)


def _beside(path: Path) -> dict[str, Any]:
    """What stands beside the weights; {} in the paper's own files, whose other objects are not looked at."""
    try:
        checkpoint = torch.load(path, map_location="cpu", mmap=True, weights_only=True)
    except UnpicklingError:  # something beside the weights that would need code: not ours
        return {}
    return {key: value for key, value in checkpoint.items() if key != "state_dict"}
