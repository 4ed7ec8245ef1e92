"""The object file: one .safetensors whose metadata name its kind, its base and how it was made.

Here is what all kinds of object files share; each kind's module defines its tensors.
"""

from __future__ import annotations

import json
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

from ldm.data.failure import check_file
from ldm.data.files import file_digest
from ldm.models.checkpoint import (
    check_replaceable,
    first_few,
    is_paper_file,
    read_metadata,
    read_state,
    refused,
    write_safetensors,
)
from ldm.models.weight_files import PICKLES

FORMAT = "implicit-insertion object"
# 1: whole weights; 2: some as low-rank pairs; 4: with RGBA pictures (3, no longer read: without alpha).
# A new version is for files that older programs would misread
VERSIONS = (1, 2, 4)
KINDS = ("delta", "baked", "merged")
CONTEXT = "context."  # of a merged file: prefix of its objects' contexts, before their names
JSON_TYPES = {"str": str, "int": int, "Mapping[str, Any]": dict, "Sequence[Mapping[str, str]]": list}
DEFAULTS = {"parents": "[]"}  # of fields that older files lack


@dataclass(frozen=True)
class ObjectMetadata:
    """The metadata of an object file.

    `base`: the base's fingerprint. `recipe`: the settings it was made with. `date`: ISO 8601. `few_shot`: how
    the few-shot tokens were learnt (none, linear, tokens). `parents`: the object files that this one was made
    from, see `parent_of`.
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
    parents: Sequence[Mapping[str, str]] = field(default_factory=list)


def write_object(
    path: Path, tensors: Mapping[str, Tensor], metadata: ObjectMetadata, version: int = 1
) -> None:
    """Write an object file, atomically; it replaces no file but an object file.

    ValueError if there is another one, or a tensor holds a NaN or an infinity.
    """
    _check_finite(tensors, path)
    check_replaceable(path)
    texts = {
        key: value if isinstance(value, str) else json.dumps(value) for key, value in asdict(metadata).items()
    }
    stored = packed(tensors)
    if any(stored[name] is not tensor for name, tensor in tensors.items()):
        version = VERSIONS[-1]  # older programs cannot read RGBA pictures
    write_safetensors(path, stored, {"format": FORMAT, "version": str(version)} | texts)


def read_object(path: Path, kind: str) -> tuple[dict[str, Tensor], ObjectMetadata]:
    """The tensors of an object file of this kind, on the CPU, and its metadata.

    Raises FileNotFoundError, or ValueError in one line if it is of another kind, damaged or holds a NaN.
    """
    metadata = read_object_metadata(path)
    if metadata.kind != kind:
        hint = ", the file that get_deltas.sh wrote" if kind == "delta" else ""
        raise ValueError(f"{path} is an object of kind {metadata.kind!r}; expected {kind!r}{hint}")
    tensors = read_state(path)
    _check_finite(tensors, path)
    try:
        return unpacked(tensors), metadata
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def read_object_metadata(path: Path) -> ObjectMetadata:
    """The metadata of an object file, without reading its tensors; raises as `read_object`."""
    check_file(path, "an object file", "get_deltas.sh writes one from a run of train.sh")
    if path.suffix in PICKLES:
        if not is_paper_file(path):
            raise refused(path, "object file, as get_deltas.sh makes them")
        raise ValueError(
            f"{path} is a pickled checkpoint; expected an object file (.safetensors). One of the paper's "
            "code can only be read together with the object's few-shot pictures"
        )
    texts = read_metadata(path)
    if texts.get("format") != FORMAT:
        raise refused(path, "object file, as get_deltas.sh makes them")
    if texts.get("version") not in [str(version) for version in VERSIONS]:
        raise ValueError(
            f"{path} has format version {texts.get('version')}, this program reads "
            f"{', '.join(map(str, VERSIONS))}; update it if that is newer, else learn the object again"
        )
    return _parsed(texts, path)


def check_base(metadata: ObjectMetadata, fingerprint: str, architecture: str) -> None:
    """ValueError, with both fingerprints, unless the object was made on the base of this one."""
    if metadata.base != fingerprint:
        raise ValueError(
            f"this object is for the base {metadata.base} ({metadata.architecture}), the loaded one is "
            f"{fingerprint} ({architecture}); load the base it was made on, or learn it on this one"
        )


def parent_of(path: Path, metadata: ObjectMetadata) -> dict[str, str]:
    """An entry of `parents` for this file: name, sha256, author and licence."""
    digest = file_digest(path)
    return {"name": path.stem, "sha256": digest, "author": metadata.author, "licence": metadata.licence}


def made_from(path: Path, metadata: ObjectMetadata) -> ObjectMetadata:
    """The metadata of an object made from this file alone: the file becomes its only parent."""
    return replace(metadata, parents=[parent_of(path, metadata)])


def held_out_in(recipe: Mapping[str, Any]) -> str:
    """The name of the few-shot picture that a run with these settings held out, "" if none."""
    name = str(recipe.get("train", {}).get("hold_out", ""))
    return "" if name in ("auto", "none") else name


def _parsed(stored: Mapping[str, str], path: Path) -> ObjectMetadata:
    kinds = ObjectMetadata.__dataclass_fields__
    try:
        texts = {key: (DEFAULTS | dict(stored))[key] for key in kinds}
        values: dict[str, Any] = {k: v if kinds[k].type == "str" else json.loads(v) for k, v in texts.items()}
        if wrong := [k for k, v in values.items() if not isinstance(v, JSON_TYPES[str(kinds[k].type)])]:
            raise ValueError(f"{wrong[0]} is {texts[wrong[0]]!r:.40}")
        if values["kind"] not in KINDS:
            raise ValueError(f"kind is {values['kind']!r:.40}, expected one of {', '.join(KINDS)}")
        return ObjectMetadata(**values)
    except (KeyError, ValueError) as error:
        raise ValueError(f"{path}: its metadata are damaged ({error}); write it again") from error


def _check_finite(tensors: Mapping[str, Tensor], path: Path) -> None:
    if bad := [k for k, v in tensors.items() if v.is_floating_point() and not bool(torch.isfinite(v).all())]:
        raise ValueError(
            f"{path}: NaN or infinite values in {first_few(bad)}; the training diverged, or it is damaged"
        )


REFERENCE, VIEWS = "reference", "views"  # tensor names of one picture and of several
CHANNELS = 4


def packed(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Replace cut-outs, uint8 [4,P,P] or [N,4,P,P], by the bytes [n] of one PNG, stacked vertically."""
    return {name: _png(x) if _is_cut_out(x) else x for name, x in tensors.items()}


def unpacked(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of `packed`; only VIEWS are several pictures. ValueError if the bytes are no such PNG."""
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
