"""Convert objects between formats: object file, the .ckpt of the paper's code, a state dict for diffusers.

For diffusers, `NAME.safetensors` holds the tuned weights of the UNet (fp32 values under diffusers' keys), to
load with `unet.load_state_dict(load_file(path), strict=False)`. `NAME.conditioner.safetensors`, an object
file, holds what diffusers has no place for: the conditioner's tuned weights, tokens and reference.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from ldm.data.failure import check_file
from ldm.data.insertset import InsertSet
from ldm.data.object_crops import ObjectImages
from ldm.models.base import Base, base_fingerprint, base_state
from ldm.models.checkpoint import (
    check_replaceable,
    first_few,
    read_metadata,
    read_state,
    recognised,
    write_safetensors,
)
from ldm.models.weight_files import PICKLES, fingerprint
from ldm.objects.delta import Delta, check_fits, dense, differences, is_trained, load, save
from ldm.objects.few_shot import layer_for
from ldm.objects.object_file import FORMAT, ObjectMetadata
from ldm.objects.paper_file import read_with_pictures, write_paper_file

SUFFIX = {"object": ".safetensors", "ldm": ".ckpt", "diffusers": ".safetensors"}  # by format
UNET = "unet."
CONDITIONER = ".conditioner.safetensors"  # ends the name of the second file
KIND = "implicit-insertion UNet"


def read_any(
    path: Path,
    base: Base,
    images: ObjectImages,
    pictures: InsertSet | None = None,
) -> Delta:
    """Read a file of any format. A .ckpt needs the object's `pictures`; `images`: how the base is shown them.

    Raises FileNotFoundError, or ValueError in one line if the file is of no known format, damaged, or does
    not fit the base.
    """
    check_file(path, "a file", "give an object file, a .ckpt or a diffusers state dict")
    if path.suffix in PICKLES:
        delta = read_with_pictures(path, base, pictures, images)
    elif read_metadata(path).get("format") == FORMAT:
        delta = load(path)
        if path.name.endswith(CONDITIONER):
            whole = path.with_name(path.name.removesuffix(CONDITIONER) + SUFFIX["diffusers"])
            raise ValueError(f"{path} is only the conditioner of an object; give {whole}; both are read")
    else:
        delta = load_diffusers(path, base)
    check_fits(base, delta, base_fingerprint(base))
    return delta


def write_any(path: Path, delta: Delta, to: str, base: Base, pictures: InsertSet | None = None) -> None:
    """Write the object in a format of `SUFFIX`; for a .ckpt, few-shot tokens need the object's `pictures`."""
    if to == "object":
        save(delta, path)
    elif to == "diffusers":
        save_diffusers(path, base, delta)
    else:
        write_paper_file(path, base, delta, layer_for(delta, base, pictures))


def halved(delta: Delta, base: Base) -> Delta:
    """An object of tuned values (fp32) as fp16 differences, half the size; others unchanged."""
    if not delta.absolute:
        return delta
    changes = differences(delta, base_state(base))
    return replace(delta, weights={k: v.to(torch.float16) for k, v in changes.items()}, absolute=False)


def unet_state(delta: Delta, base_state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The object's tuned UNet weights, fp32, under diffusers' keys; `base_state`: its `base_state`."""
    names = [name for name in delta.weights if name.startswith(UNET)]
    return {name.removeprefix(UNET): delta.tuned(name, base_state[name]) for name in names}


def conditioner_file(path: Path) -> Path:
    """The file of the conditioner's part, beside the diffusers file `path`."""
    return path.with_name(path.stem + CONDITIONER)


def save_diffusers(path: Path, base: Base, delta: Delta) -> None:
    """Write both files, each atomically; ValueError, and neither file, if the object does not fit."""
    check_fits(base, delta, base_fingerprint(base))
    check_replaceable(path)
    state = base_state(base)
    rest = [name for name in delta.weights if not name.startswith(UNET)]
    tuned = {name: delta.tuned(name, state[name]) for name in rest}
    save(replace(delta, weights=tuned, absolute=True), conditioner_file(path))
    facts = {"format": "pt", "kind": KIND, "conditioner": fingerprint(tuned)}
    write_safetensors(path, unet_state(delta, state), facts)


def load_diffusers(path: Path, base: Base) -> Delta:
    """A diffusers UNet state dict, complete or only changed weights => the object, as tuned values.

    Weights equal to the base's are skipped. A file written by `save_diffusers` needs its conditioner file;
    any other becomes an object without few-shot tokens. Raises ValueError if it does not fit.
    """
    state, own = read_state(path), base_state(base)
    weights = {UNET + key: value.float() for key, value in state.items()}
    if unknown := [name for name in weights if name not in own or own[name].shape != weights[name].shape]:
        known = recognised(path)
        if known and "for diffusers; turn" not in known:
            raise ValueError(f"{path} is {known}")
        raise ValueError(
            f"{path} does not fit the {base.architecture.name} base: {first_few(unknown)}; "
            "give its own base: --config, --base"
        )
    metadata = read_metadata(path) if path.suffix == ".safetensors" else {}
    if metadata.get("kind") == KIND:
        rest = _conditioner(conditioner_file(path), metadata)
        delta = replace(rest, weights={**rest.weights, **weights}, absolute=True)
    else:
        changed = {
            name: value for name, value in weights.items() if not torch.equal(value, own[name].float())
        }
        delta = Delta(_foreign(path, base, changed), changed, absolute=True)
    check_fits(base, delta, base_fingerprint(base))
    return delta


def _conditioner(path: Path, metadata: Mapping[str, str]) -> Delta:
    """The conditioner's part of a file written by `save_diffusers`."""
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: the second file of this object; write both again")
    rest = load(path)
    if fingerprint({name: dense(weight) for name, weight in rest.weights.items()}) != metadata["conditioner"]:
        raise ValueError(f"{path} belongs to another object than the file beside it; write both again")
    return rest


def _foreign(path: Path, base: Base, weights: Mapping[str, Tensor]) -> ObjectMetadata:
    """The metadata of a UNet that another program has tuned."""
    if frozen := [name for name in weights if not is_trained(name, "crossattn")]:
        raise ValueError(
            f"{path} changes more than the cross-attention ({first_few(frozen)}); an object changes only that"
        )
    if not weights:
        raise ValueError(f"{path} holds the base's own weights; give a UNet that was tuned")
    only_kv = all(is_trained(name, "crossattn-kv") for name in weights)
    return ObjectMetadata(
        base=base_fingerprint(base),
        architecture=base.architecture.name,
        freeze_model="crossattn-kv" if only_kv else "crossattn",
        recipe={"imported": path.name},
    )
