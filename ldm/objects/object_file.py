"""The object file: one .safetensors whose metadata say what it is, for which base, and how it was made.

This is what all kinds of object files share; what the tensors of a kind mean is said in that kind's module.
"""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from einops import rearrange
from PIL import Image
from torch import Tensor

from ldm.data.files import file_digest
from ldm.models.checkpoint import read_metadata, read_state, write_safetensors
from ldm.models.pickle_reader import PICKLES
from ldm.models.state_dict import some

FORMAT = "implicit-insertion object"
# 1: weights as they are; 2: some as low-rank pairs; 4: with pictures of four channels (3: without alpha).
# Counted up when an older reader would misread
VERSION, OPAQUE = 4, 3
KINDS = ("delta", "baked", "merged")
CONTEXT = "context."  # of a merged file: prefix of its objects' contexts, before their names
PLAIN = {
    "str": str,
    "int": int,
    "Mapping[str, Any]": dict,
    "Sequence[Mapping[str, str]]": list,
}  # JSON's types
LATER = {"parents": "[]"}  # fields that older files do not have
PREVIEW_BYTES = 10_000  # of base64
PREVIEW_SIDES = (160, 128, 96, 64, 32)  # pixels; the largest that fits is taken


@dataclass(frozen=True)
class About:
    """What an object file says about itself.

    `base` is the base's fingerprint, `recipe` the settings it was made with, `date` ISO 8601, `preview` a
    JPEG in base64; `few_shot` says how the few-shot tokens were learnt (none, linear, tokens); `parents` are
    the object files that this one was made from, as `parent_of` tells of them.
    """

    base: str
    architecture: str
    kind: str = "delta"
    freeze_model: str = ""
    few_shot: str = "none"
    few_shot_count: int = 0
    step: int = 0
    recipe: Mapping[str, Any] = field(default_factory=dict)
    date: str = ""
    author: str = ""
    licence: str = ""
    preview: str = ""
    parents: Sequence[Mapping[str, str]] = field(default_factory=list)


def write_object(path: Path, tensors: Mapping[str, Tensor], about: About, version: int = 1) -> None:
    """Write an object file, whole or not at all; ValueError if a tensor holds a NaN or an infinity."""
    _check_finite(tensors, path)
    texts = {
        key: value if isinstance(value, str) else json.dumps(value) for key, value in asdict(about).items()
    }
    stored = packed(tensors)
    if any(stored[name] is not tensor for name, tensor in tensors.items()):
        version = VERSION  # older readers know no cut-outs
    write_safetensors(path, stored, {"format": FORMAT, "version": str(version)} | texts)


def read_object(path: Path, kind: str) -> tuple[dict[str, Tensor], About]:
    """The tensors of an object file of this kind, on the CPU, and what it says about itself.

    Raises FileNotFoundError, or ValueError in one line if it is another kind of file, damaged or holds a NaN.
    """
    about = read_about(path)
    if about.kind != kind:
        raise ValueError(f"{path} is an object of kind {about.kind!r}; expected {kind!r}")
    tensors = read_state(path)
    _check_finite(tensors, path)
    try:
        return unpacked(tensors), about
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def read_about(path: Path) -> About:
    """What an object file says about itself, without reading its tensors."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such object file; get_deltas.sh makes one from a run")
    if path.suffix in PICKLES:
        raise ValueError(
            f"{path} is a pickled checkpoint; expected an object file (.safetensors). One of the paper's "
            "code can only be read together with the object's few-shot pictures"
        )
    metadata = read_metadata(path)
    if metadata.get("format") != FORMAT:
        raise ValueError(
            f"{path} is no object file (its format is {metadata.get('format')!r}); get_deltas.sh makes one"
        )
    if metadata.get("version") == str(OPAQUE):
        raise ValueError(f"{path} has format version {OPAQUE}, with pictures that lack alpha; learn it again")
    if metadata.get("version") not in [str(version) for version in range(1, VERSION + 1)]:
        raise ValueError(
            f"{path} has format version {metadata.get('version')}, this program reads up to {VERSION}; "
            "update it"
        )
    return _about(metadata, path)


def check_base(about: About, fingerprint: str, architecture: str) -> None:
    """ValueError, with both fingerprints, unless the object was made on the base of this one."""
    if about.base != fingerprint:
        raise ValueError(
            f"this object is for the base {about.base} ({about.architecture}), the loaded one is "
            f"{fingerprint} ({architecture}); load the base it was made on, or learn it on this one"
        )


def parent_of(path: Path, about: About) -> dict[str, str]:
    """What a file that is made from this one says about it: name, sha256 of the file, author and licence."""
    digest = file_digest(path)
    return {"name": path.stem, "sha256": digest, "author": about.author, "licence": about.licence}


def made_from(path: Path, about: About) -> About:
    """The same of an object that is made from this file alone."""
    return replace(about, parents=[parent_of(path, about)])


def preview_of(path: Path) -> str:
    """A picture file => a small JPEG in base64, at most `PREVIEW_BYTES` long."""
    with Image.open(path) as file:
        picture = file.convert("RGB")
    for side in PREVIEW_SIDES:
        picture.thumbnail((side, side))
        out = BytesIO()
        picture.save(out, "JPEG", quality=80)
        text = b64encode(out.getvalue()).decode()
        if len(text) <= PREVIEW_BYTES:
            return text
    raise AssertionError("a picture of 32 pixels fits")


def _about(metadata: Mapping[str, str], path: Path) -> About:
    kinds = About.__dataclass_fields__
    try:
        texts = {key: (LATER | dict(metadata))[key] for key in kinds}
        values: dict[str, Any] = {k: v if kinds[k].type == "str" else json.loads(v) for k, v in texts.items()}
        if wrong := [k for k, v in values.items() if not isinstance(v, PLAIN[str(kinds[k].type)])]:
            raise ValueError(f"{wrong[0]} is {texts[wrong[0]]!r:.40}")
        if values["kind"] not in KINDS:
            raise ValueError(f"kind is {values['kind']!r:.40}, expected one of {', '.join(KINDS)}")
        return About(**values)
    except (KeyError, ValueError) as error:
        raise ValueError(f"{path}: its metadata are damaged ({error}); write it again") from error


def _check_finite(tensors: Mapping[str, Tensor], path: Path) -> None:
    if bad := [k for k, v in tensors.items() if v.is_floating_point() and not bool(torch.isfinite(v).all())]:
        raise ValueError(
            f"{path}: NaN or infinite values in {some(bad)}; the training diverged, or it is damaged"
        )


REFERENCE, VIEWS = "reference", "views"  # names of one picture, and of several
CHANNELS = 4


def packed(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Cut-outs, uint8 [4,P,P] or [N,4,P,P], become the bytes [n] of one PNG, one below the other."""
    return {name: _png(x) if _is_cut_out(x) else x for name, x in tensors.items()}


def unpacked(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The inverse: only VIEWS are several pictures. ValueError if the bytes are no such PNG."""
    found = {name: _pictures(x, name) if _is_png(x) else x for name, x in tensors.items()}
    return {name: x[0] if _is_png(tensors[name]) and name != VIEWS else x for name, x in found.items()}


def _is_cut_out(x: Tensor) -> bool:
    return x.dtype == torch.uint8 and x.ndim > 2 and x.shape[-3] == CHANNELS


def _is_png(x: Tensor) -> bool:
    return x.dtype == torch.uint8 and x.ndim == 1


def _png(pictures: Tensor) -> Tensor:
    stacked = pictures.reshape(-1, *pictures.shape[-3:])
    pixels = rearrange(stacked.cpu(), "n c h w -> (n h) w c").contiguous().numpy()
    out = BytesIO()
    Image.fromarray(pixels, "RGBA").save(out, "PNG", optimize=True)
    return torch.frombuffer(bytearray(out.getvalue()), dtype=torch.uint8)


def _pictures(stored: Tensor, name: str) -> Tensor:
    try:
        with Image.open(BytesIO(stored.numpy().tobytes())) as file:
            pixels = torch.from_numpy(np.array(file.convert("RGBA")))
        return rearrange(pixels, "(n h) w c -> n c h w", h=pixels.shape[1]).contiguous()
    except (OSError, SyntaxError, ValueError, RuntimeError) as error:
        raise ValueError(f"its {name} is no PNG of square pictures; write it again") from error
