"""Read and write objects in the paper's format: {"state_dict": 146 tuned fp32 tensors under LDM names}.

Such a file holds no few-shot tokens but the layer that computes them from CLIP's features of the few-shot
pictures, so that reading and writing need these pictures. What the format has no name for is kept under other
keys beside "state_dict", which the paper's code ignores. A training checkpoint of that code, which holds the
same tensors within the whole model, is read as well.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ldm.data.image import to_bytes
from ldm.data.insertset import InsertSet
from ldm.data.object_crops import ObjectImages, paper_crops
from ldm.models.base import Base, base_fingerprint, base_state
from ldm.models.checkpoint import OWN as SOFTWARE_NAME
from ldm.models.checkpoint import SOFTWARE, check_replaceable, first_few, write_ckpt
from ldm.models.ldm_keys import diffusers_blocks, is_extra, ldm_key, ldm_to_diffusers
from ldm.models.weight_files import check_sums, load_pickle, named, nested_names, tensors_of
from ldm.models.weight_files import fingerprint as fingerprint_of
from ldm.objects.delta import Delta, is_trained
from ldm.objects.few_shot import (
    LINEAR,
    OWN,
    PAPER,
    PICTURES,
    FewShotLayer,
    few_shot_features,
    learnt_from,
    linear_tokens,
)
from ldm.objects.object_file import ObjectMetadata

VECTOR, LDM_VECTOR = "conditioner.learnable_vector", "learnable_vector"
UNET = "model.diffusion_model."
TUNED = re.compile(  # LDM names of the 146 tensors
    r"model\.diffusion_model\..+\.attn2\..+|cond_stage_model\.(mapper|final_ln|prior_encoder)\..+|proj_out\..+"
)


@dataclass(frozen=True, eq=False)
class PaperFile:
    """A .ckpt of the paper's code under LDM names: the `tuned` 146 tensors, the `rest`, and `extra` keys.

    `is_training`: it is a training checkpoint, whose `rest` is the whole model.
    """

    path: Path
    tuned: Mapping[str, Tensor]
    rest: Mapping[str, Tensor]
    extra: Mapping[str, Any]

    @property
    def is_training(self) -> bool:
        return any(key.startswith(UNET) for key in self.rest)

    @property
    def layer(self) -> FewShotLayer:
        """The file's few-shot layer, without its weights."""
        extra = self.extra
        ours = "few_shot_features" in extra  # files of the paper's code have no such key
        return FewShotLayer(
            features=str(extra.get("few_shot_features", "raw")),  # as in the paper's code
            crops=str(extra.get("few_shot_crops", OWN if ours else PAPER)),
            pictures=tuple(map(str, extra.get("few_shot_pictures", ()))),
            held_out=str(extra.get("held_out", "")),
        )


def read_paper_file(path: Path) -> PaperFile:
    """Read a .ckpt of 146 tensors or a training checkpoint of the paper's code, if possible memory-mapped."""
    checkpoint = load_pickle(path)
    check_sums(path)
    file = _sorted(checkpoint, path)
    known = named(nested_names(checkpoint), path)
    if known and not file.is_training and file.rest:
        raise ValueError(f"{path} is {known}")
    return file


def _sorted(checkpoint: Any, path: Path) -> PaperFile:
    """A pickle's tensors, sorted into tuned weights, other weights and extra keys."""
    state = tensors_of(checkpoint, path)
    wrapped = isinstance(checkpoint, Mapping) and "state_dict" in checkpoint
    extra = {key: value for key, value in checkpoint.items() if key != "state_dict"} if wrapped else {}
    if LDM_VECTOR in state:
        extra[LDM_VECTOR] = state.pop(LDM_VECTOR)
    tuned = {key: value for key, value in state.items() if TUNED.fullmatch(key)}
    rest = {key: value for key, value in state.items() if key not in tuned and not is_extra(key)}
    return PaperFile(path, tuned, rest, extra)


def is_paper_training(path: Path) -> bool:
    """Whether a file is a training checkpoint of the paper's code and not one of this project."""
    checkpoint = load_pickle(path)
    if not isinstance(checkpoint, Mapping) or "object" in checkpoint:
        return False
    if (known := named(nested_names(checkpoint), path)) and not known.startswith("a base"):
        return False
    return _sorted(checkpoint, path).is_training


def write_paper_file(path: Path, base: Base, delta: Delta, layer: FewShotLayer) -> None:
    """Write the paper's .ckpt: all cross-attention, mapper, final_ln, proj_out, and the prior encoder."""
    check_replaceable(path)
    own = base_state(base)
    names = [name for name in own if is_trained(name, "crossattn")]
    tuned = {n: delta.tuned(n, own[n]) if n in delta.weights else own[n].float() for n in names}
    vector = tuned.pop(VECTOR)
    blocks = diffusers_blocks(own)
    state = {ldm_key(name, blocks): value.cpu() for name, value in (tuned | dict(layer.weights)).items()}
    extra = {
        SOFTWARE: SOFTWARE_NAME,
        LDM_VECTOR: vector.cpu(),
        "base": delta.metadata.base,
        "few_shot_features": layer.features,
        "few_shot_crops": layer.crops,
        "few_shot_pictures": list(layer.pictures),
        "held_out": layer.held_out,
    }
    write_ckpt(path, {"state_dict": {k: v.contiguous() for k, v in state.items()}} | extra)


def trim_training(path: Path, target: Path) -> None:
    """A training checkpoint of the paper's code => the .ckpt of 146 tensors that its own extraction writes.

    The learnable vector, which that extraction drops, is kept as an extra key. ValueError if `path` is none.
    """
    file = read_paper_file(path)
    if not file.is_training or not file.tuned:
        raise ValueError(
            f"{path} is no training checkpoint of the paper's code; give one with the whole model"
        )
    kept = {key: file.extra[key] for key in (LDM_VECTOR, "global_step") if key in file.extra}
    state = {key: value.float().clone() for key, value in file.tuned.items()}
    check_replaceable(target)
    write_ckpt(target, {"state_dict": state, SOFTWARE: SOFTWARE_NAME} | kept)


def read_with_pictures(
    path: Path,
    base: Base,
    insertset: InsertSet | None,
    images: ObjectImages,
    fingerprint: str = "",
) -> Delta:
    """The paper's .ckpt and its object's folder => the object.

    The pictures are those that the file names (if this project wrote it), else all of the folder. `images`:
    how the base is shown the object. Raises as `load_paper_file`.
    """
    file, size = read_paper_file(path), base.architecture.reference_size
    if insertset is None:
        raise ValueError(f"{path} is the paper's format; {PICTURES}")
    learnt = learnt_from(insertset, file.layer)
    shown = images.few_shot(learnt) if images.stored or file.layer.crops == OWN else None
    crops = shown if shown is not None and file.layer.crops == OWN else paper_crops(learnt, size)
    return load_paper_file(file, base, crops, fingerprint, shown if images.stored else None)


def load_paper_file(
    file: Path | PaperFile,
    base: Base,
    crops: Tensor,
    fingerprint: str = "",
    shown: Tensor | None = None,
) -> Delta:
    """The paper's .ckpt and the object's few-shot crops [N,c,P,P] in [-1,1] => the object, exact.

    The paper's files do not name their base; files of this project do, and `apply` compares it.
    `fingerprint`: the base's, needed if its weights are packed. `shown`: the few-shot pictures to keep, if
    the base needs them. Raises ValueError if the file does not fit `base`, or is a training checkpoint of
    another base.
    """
    file = file if isinstance(file, PaperFile) else read_paper_file(file)
    own, blocks = base_state(base), diffusers_blocks(base_state(base))
    if file.is_training:
        if fingerprint:
            word = shlex.quote(str(file.path))
            raise ValueError(
                f"{file.path} is a training checkpoint; extract it: bash get_deltas.sh --path {word}"
            )
        _check_frozen(file, own, base.architecture.name)
    elif file.rest:
        raise _unfit(file, base, list(file.rest))
    weights = ldm_to_diffusers(file.tuned, blocks)
    linear = {key: weights.pop(key) for key in list(weights) if key.startswith(LINEAR)}
    if isinstance(file.extra.get(LDM_VECTOR), Tensor):
        weights[VECTOR] = file.extra[LDM_VECTOR]
    trained = {name: value.shape for name, value in own.items() if is_trained(name, "crossattn")}
    if wrong := [name for name, value in weights.items() if trained.get(name) != value.shape]:
        raise _unfit(file, base, wrong)
    tokens = _tokens(base, linear, crops, file.layer.features) if linear else None
    metadata = _metadata(file, base, "linear" if linear else "none", 0 if tokens is None else len(tokens))
    metadata = replace(metadata, base=metadata.base or fingerprint or base_fingerprint(base))
    views = None if shown is None else to_bytes(shown)
    return Delta(
        metadata, {name: value.float() for name, value in weights.items()}, True, tokens, views=views
    )


def _unfit(file: PaperFile, base: Base, names: Sequence[str]) -> ValueError:
    """The error for a file with weights that the base does not have."""
    return ValueError(
        f"{file.path} does not fit the {base.architecture.name} base: {first_few(names)}; "
        "give its own base: --config, --base"
    )


def _metadata(file: PaperFile, base: Base, few_shot: str, count: int) -> ObjectMetadata:
    """What the file says about its object; `base` is "" in files of the paper's code."""
    step, held_out = file.extra.get("global_step", 0), file.layer.held_out
    held = {"train": {"hold_out": held_out}} if held_out else {}
    return ObjectMetadata(
        base=str(file.extra.get("base") or ""),
        architecture=base.architecture.name,
        freeze_model="crossattn",
        few_shot=few_shot,
        few_shot_count=count,
        step=step if isinstance(step, int) else 0,
        recipe={"imported": file.path.name} | held,
    )


def _check_frozen(file: PaperFile, own: Mapping[str, Tensor], name: str) -> None:
    """ValueError unless the UNet's frozen weights equal the base's and others differ."""
    blocks = diffusers_blocks(own)
    frozen = ldm_to_diffusers({k: v for k, v in file.rest.items() if k.startswith(UNET)}, blocks)
    strange = [key for key in frozen if key not in own]
    other = strange or [k for k, v in frozen.items() if fingerprint_of({k: v}) != fingerprint_of({k: own[k]})]
    if other:
        raise ValueError(
            f"{file.path} does not fit the {name} base: {first_few(other)} differ; give the base "
            "that it was trained from: --base"
        )
    tuned = {k: v for k, v in ldm_to_diffusers(file.tuned, blocks).items() if not k.startswith(LINEAR)}
    if not any(key not in own or not torch.equal(v.float(), own[key].float()) for key, v in tuned.items()):
        raise ValueError(
            f"{file.path} holds nothing learnt: its weights equal the base's; give a training checkpoint"
        )


def _tokens(base: Base, linear: Mapping[str, Tensor], crops: Tensor, features: str) -> Tensor:
    """The prior encoder's tokens [N,c] for the crops."""
    hidden = few_shot_features(base, crops, features).cpu()
    width, inputs = hidden.shape[2], hidden[0].numel()
    shapes = {name.removeprefix(LINEAR): list(value.shape) for name, value in linear.items()}
    needed = {"weight": [width, inputs], "bias": [width]}
    if shapes != needed:
        raise ValueError(f"the prior encoder has {shapes}, this base needs {needed}; give its own base")
    return linear_tokens(linear, hidden)
