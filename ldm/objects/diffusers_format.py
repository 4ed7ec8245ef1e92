"""Objects for diffusers, both ways: a state dict for `UNet2DConditionModel`, the conditioner's part aside.

`NAME.safetensors` holds the tuned weights of the UNet (fp32, whole values, diffusers' keys), to be taken
with `unet.load_state_dict(load_file(path), strict=False)`. What diffusers has no place for, the conditioner's
tuned weights, tokens and reference, stand in `NAME.conditioner.safetensors`, an object file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from ldm.models.base import Base, base_fingerprint, base_state
from ldm.models.checkpoint import read_metadata, read_state, write_safetensors
from ldm.models.state_dict import fingerprint, some
from ldm.objects.apply import check_fits
from ldm.objects.delta import Delta, is_trained, load, save
from ldm.objects.low_rank import dense
from ldm.objects.object_file import About

UNET = "unet."
KIND = "implicit-insertion UNet"


def unet_state(delta: Delta, base_state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The object's tuned UNet weights, fp32, under diffusers' keys; `base_state`: its `base_state`."""
    names = [name for name in delta.weights if name.startswith(UNET)]
    return {name.removeprefix(UNET): delta.tuned(name, base_state[name]) for name in names}


def beside(path: Path) -> Path:
    """Where the conditioner's part of a diffusers file is kept."""
    return path.with_name(f"{path.stem}.conditioner.safetensors")


def save_diffusers(path: Path, base: Base, delta: Delta) -> None:
    """Write both files, each whole or not at all; neither, but a ValueError, if the object does not fit."""
    check_fits(base, delta, base_fingerprint(base))
    state = base_state(base)
    rest = [name for name in delta.weights if not name.startswith(UNET)]
    tuned = {name: delta.tuned(name, state[name]) for name in rest}
    save(replace(delta, weights=tuned, absolute=True), beside(path))
    facts = {"format": "pt", "kind": KIND, "conditioner": fingerprint(tuned)}
    write_safetensors(path, unet_state(delta, state), facts)


def load_diffusers(path: Path, base: Base) -> Delta:
    """A diffusers UNet state dict, whole or only what changed, => the object, exact: its tuned values.

    Weights that are equal to the base's are passed over. A file that `save_diffusers` wrote needs the other
    one beside it; any other one becomes an object without few-shot tokens. Raises ValueError if it does not
    fit.
    """
    state, own = read_state(path), base_state(base)
    weights = {UNET + key: value.float() for key, value in state.items()}
    if unknown := [name for name in weights if name not in own or own[name].shape != weights[name].shape]:
        raise ValueError(f"{path} does not fit the {base.architecture.name} base: {some(unknown)}")
    metadata = read_metadata(path) if path.suffix == ".safetensors" else {}
    if metadata.get("kind") == KIND:
        rest = _conditioner(beside(path), metadata)
        delta = replace(rest, weights={**rest.weights, **weights}, absolute=True)
    else:
        changed = {
            name: value for name, value in weights.items() if not torch.equal(value, own[name].float())
        }
        delta = Delta(_foreign(path, base, changed), changed, absolute=True)
    check_fits(base, delta, base_fingerprint(base))
    return delta


def _conditioner(path: Path, metadata: Mapping[str, str]) -> Delta:
    """The other half of a file that `save_diffusers` wrote."""
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: the other half of the object; write both again")
    rest = load(path)
    if fingerprint({name: dense(weight) for name, weight in rest.weights.items()}) != metadata["conditioner"]:
        raise ValueError(f"{path} belongs to another object than the file beside it; write both again")
    return rest


def _foreign(path: Path, base: Base, weights: Mapping[str, Tensor]) -> About:
    """What is known of a UNet that another program has tuned."""
    if frozen := [name for name in weights if not is_trained(name, "crossattn")]:
        raise ValueError(
            f"{path} changes more than the cross-attention ({some(frozen)}); only that belongs to an object"
        )
    if not weights:
        raise ValueError(f"{path} holds the base's own weights; give a UNet that was tuned")
    only_kv = all(is_trained(name, "crossattn-kv") for name in weights)
    return About(
        base=base_fingerprint(base),
        architecture=base.architecture.name,
        freeze_model="crossattn-kv" if only_kv else "crossattn",
        recipe={"imported": path.name},
    )
