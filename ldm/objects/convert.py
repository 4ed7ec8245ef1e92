"""Convert objects between formats: object file, the .ckpt of the paper's code, a state dict for diffusers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from ldm.data.insertset import InsertSet
from ldm.data.object_crops import ObjectImages
from ldm.models.base import Base, base_fingerprint, base_state
from ldm.models.checkpoint import read_metadata
from ldm.models.pickle_reader import PICKLES
from ldm.objects.apply import check_fits
from ldm.objects.delta import Delta, differences, load, save
from ldm.objects.diffusers_format import load_diffusers, save_diffusers
from ldm.objects.ldm_format import layer_for, read_with_pictures, save_ldm_delta
from ldm.objects.object_file import FORMAT

SUFFIX = {"object": ".safetensors", "ldm": ".ckpt", "diffusers": ".safetensors"}  # by format


def read_any(
    path: Path,
    base: Base,
    images: ObjectImages,
    pictures: InsertSet | None = None,
    features: str = "raw",
) -> Delta:
    """Read a file of any format. A .ckpt needs the object's `pictures`; `images`: how the base is shown them.

    `features`: CLIP's input for them, raw or clip, if the .ckpt does not name it. Raises FileNotFoundError,
    or ValueError in one line if the file is of no known format, damaged, or does not fit the base.
    """
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: no such file; give an object file, a .ckpt or a diffusers state dict"
        )
    if path.suffix in PICKLES:
        delta = read_with_pictures(path, base, pictures, images, features)
    elif read_metadata(path).get("format") == FORMAT:
        delta = load(path)
    else:
        delta = load_diffusers(path, base)
    check_fits(base, delta, base_fingerprint(base))
    return delta


def write_any(
    path: Path, delta: Delta, to: str, base: Base, pictures: InsertSet | None = None, features: str = "raw"
) -> None:
    """Write the object in a format of `SUFFIX`; for a .ckpt, few-shot tokens need the object's `pictures`."""
    if to == "object":
        save(delta, path)
    elif to == "diffusers":
        save_diffusers(path, base, delta)
    else:
        save_ldm_delta(path, base, delta, layer_for(delta, base, pictures, features))


def halved(delta: Delta, base: Base) -> Delta:
    """An object of tuned values (fp32) as fp16 differences, half the size; others unchanged."""
    if not delta.absolute:
        return delta
    changes = differences(delta, base_state(base))
    return replace(delta, weights={k: v.to(torch.float16) for k, v in changes.items()}, absolute=False)
