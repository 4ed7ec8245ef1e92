"""The base model: an inpainting model and the conditioner that makes its contexts; loading and saving."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor

from ldm.models.architecture import LEGACY_DEFAULTS, Architecture, set_position_ids
from ldm.models.checkpoint import (
    SHARDS,
    load_strictly,
    read_metadata,
    read_state,
    recognised,
    weight_files,
    write_folder,
)
from ldm.models.conditioner import Conditioner
from ldm.models.cross_attention import Context, Contexts, cross_attentions
from ldm.models.inpainting_model import InpaintingModel
from ldm.models.ldm_keys import is_ldm, ldm_to_diffusers, match_clip_keys
from ldm.models.weight_files import fingerprint

PRIOR_ENCODER = "conditioner.prior_encoder."  # the paper's; belongs to an object, not to the base
UNUSED = re.compile(r"conditioner\.|.*\.attn2\.to_[kv]\.")  # by an inpainting model with folded contexts


class Base(InpaintingModel):
    """All that insertion and training need: UNet, VAE and conditioner."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__(architecture)
        self.conditioner = Conditioner(architecture)

    def context(self, reference: Tensor, view: int = 0) -> Tensor:
        """References [b,3 or 4,P,P] in [-1,1] => context [b,1+N,d]: reference, then few-shot tokens.

        `view`: see `Conditioner.tokens_of_view`.
        """
        c = self.conditioner
        return c(c.image_features(reference), c.tokens_of_view(view))

    def contexts(self, context: Tensor, null: Context | None = None) -> Contexts:
        """A context [b,n,d] and the unconditional one, both folded with the current weights.

        `null`: an unconditional context (b = 1) in place of the conditioner's, see `null`.
        """
        return self.folded(context, self.conditioner.unconditional(context) if null is None else null)

    def null(self) -> Context:
        """The unconditional context of one sample, folded with the current weights."""
        return self.fold(self.conditioner.learnable_vector)


def base_state(base: Base) -> dict[str, Tensor]:
    """The base's weights under diffusers names, without an object's few-shot part."""
    own = match_clip_keys(base.state_dict())
    return {
        k: v for k, v in own.items() if not k.startswith(PRIOR_ENCODER) and not k.endswith(".few_shot_tokens")
    }


def base_fingerprint(base: Base) -> str:
    """16 hex digits that identify the base, see `fingerprint`; object files name their base by it."""
    return fingerprint(base_state(base))


def read_base(path: Path) -> dict[str, Tensor]:
    """Paint-by-Example's `model.ckpt`, LDM safetensors or our own folder => weights under diffusers names."""
    state = read_state(path)
    state = ldm_to_diffusers(state) if is_ldm(state) else state
    return {key: value for key, value in state.items() if not key.startswith(PRIOR_ENCODER)}


def check_architecture(path: Path, architecture: Architecture) -> None:
    """ValueError if the metadata of the base at `path` differ from this architecture.

    The weights' shapes do not show heads, scales and the prediction type.
    """
    files = weight_files(path) if path.is_dir() else [path]
    if not files or files[0].suffix != ".safetensors" or not files[0].is_file():
        return  # `read_state` reports what is wrong; pickles have no metadata
    stored = read_metadata(files[0]).get("architecture")
    if stored is None:
        return
    asked, made = asdict(architecture), asdict(Architecture()) | LEGACY_DEFAULTS | json.loads(stored)
    asked, made = (json.loads(json.dumps(x)) for x in (asked, made))  # tuples become lists
    if other := [key for key in asked if made[key] != asked[key] and key not in ("name", "image_size")]:
        theirs, ours = (", ".join(f"{key} {x[key]}" for key in other) for x in (made, asked))
        raise ValueError(
            f"{path} was made with {theirs}, the config says {ours}; use the config it was made with"
        )


@contextmanager
def naming_kind(path: Path) -> Iterator[None]:
    """If weights do not fit, say what the file is, or name it in the error."""
    try:
        yield
    except ValueError as error:
        if (known := recognised(path)) and not known.startswith("a base"):
            raise ValueError(f"{path} is {known}") from error
        raise error if str(path) in str(error) else ValueError(f"{path}: {error}") from error


def load_base(
    path: Path, architecture: Architecture, what: str = "", device: torch.device | str = "cpu"
) -> Base:
    """Build the base on `device` and fill it with the weights at `path`, see `read_base`.

    `what` names the base in errors: "the base of configs/v.yaml". Raises FileNotFoundError or ValueError in
    one line if the file is missing, damaged or of another shape.
    """
    with naming_kind(path):
        check_architecture(path, architecture)
    with torch.device("meta"):  # random weights would cost memory and time
        base = Base(architecture)
    what = what or f"the {architecture.name} base"
    with naming_kind(path):
        load_strictly(base, match_clip_keys(read_base(path), base.state_dict()), what, device)
    set_position_ids(base, device)
    return base.eval().requires_grad_(False)


def load_inpainting_model(
    path: Path, architecture: Architecture, what: str = "", device: torch.device | str = "cpu"
) -> tuple[InpaintingModel, str]:
    """The base's UNet and VAE without K and V projections, for folded contexts, and its fingerprint.

    Raises as `load_base` does.
    """
    with naming_kind(path):
        check_architecture(path, architecture)
        state = read_base(path)
    with torch.device("meta"):
        model = InpaintingModel(architecture)
    for _, layer in cross_attentions(model.unet):
        layer.to_k = layer.to_v = None
    own = model.state_dict().keys()
    needed = {key: value for key, value in state.items() if key in own or not UNUSED.match(key)}
    with naming_kind(path):
        load_strictly(model, needed, what or f"the {architecture.name} base", device)
    return model.eval().requires_grad_(False), fingerprint(match_clip_keys(state))


def check_shards(folder: Path) -> None:
    """ValueError if a folder has shards that are no base of ours: a base written there would replace them."""
    for path in folder.glob(SHARDS):
        if "architecture" not in read_metadata(path):
            raise ValueError(
                f"{path} was not written by this program and would be overwritten; give another folder"
            )


def save_base(base: Base, folder: Path, dtype: torch.dtype = torch.float16) -> list[Path]:
    """Write the weights as safetensors shards of at most 16 MB, the architecture in their metadata.

    ValueError if the folder has shards of another program.
    """
    check_shards(folder)
    metadata = {"architecture": json.dumps(asdict(base.architecture)), "fingerprint": base_fingerprint(base)}
    return write_folder(folder, base_state(base), dtype=dtype, metadata=metadata)
