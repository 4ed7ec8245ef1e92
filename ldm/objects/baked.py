"""A baked object: the constants of every cross-attention layer, for one object and one reference.

It needs neither CLIP nor tuned weights, but takes no other reference and cannot be trained further. If only K
and V were tuned, the file holds K and V [n,C] of every layer and V [C] of the unconditional context; the
base's to_q and to_out are used with them. If all of the cross-attention was tuned, it holds the folded layer:
scores [C,heads*n], values [heads*n,C], bias [C], and the unconditional output [C].
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from ldm.data.image import from_bytes, to_bytes
from ldm.data.object_crops import ObjectImages
from ldm.models.base import Base
from ldm.models.checkpoint import first_few
from ldm.models.cross_attention import Attention, Contexts, Folded, Layer, cross_attentions, fold_layer
from ldm.models.inpainting_model import InpaintingModel
from ldm.objects.delta import Delta, apply
from ldm.objects.object_context import view_of
from ldm.objects.object_file import REFERENCE, ObjectMetadata, check_base, read_object, write_object

FIELDS = {"crossattn-kv": ("k", "v", "null"), "crossattn": ("scores", "values", "bias", "null")}
GUIDANCE = "guidance_from"  # key in the recipe of a baked file: whose unconditional branch it holds
VIEW = "reference_view"  # likewise: the reference view, 0: all few-shot tokens


@dataclass(frozen=True, eq=False)
class Baked:
    """One object. `layers`: layer name => its tensors, named as in FIELDS.

    `reference`: the object's picture, uint8 [c,P,P], if the base needs it.
    """

    metadata: ObjectMetadata
    layers: Mapping[str, Mapping[str, Tensor]]
    reference: Tensor | None = None


@torch.no_grad()
def bake(
    base: Base,
    metadata: ObjectMetadata,
    reference: Tensor,
    nulls: Mapping[str, Tensor] | None = None,
    view: int = 0,
    keep_picture: bool = False,
) -> Baked:
    """The object that `base` carries, described by `metadata`, with its reference [1,c,P,P].

    `nulls`: the layers' unconditional constants, those of the untouched base; None: the object's own.
    `view`: see `Conditioner.tokens_of_view`. `keep_picture`: the file holds the reference, too.
    """
    context, layers = base.context(reference, view), {}
    own = null_constants(base, metadata.freeze_model) if nulls is None else nulls
    for name, attn in cross_attentions(base.unet):
        k, v = attn.to_k(context), attn.to_v(context)
        kept = (k, v) if metadata.freeze_model == "crossattn-kv" else fold_layer(attn, k, v)
        layers[name] = dict(
            zip(FIELDS[metadata.freeze_model], (*(x[0] for x in kept), own[name]), strict=True)
        )
    recipe = dict(metadata.recipe) | {GUIDANCE: "object" if nulls is None else "base"}
    shown = to_bytes(reference[0]) if keep_picture else None
    return Baked(replace(metadata, kind="baked", recipe=recipe), layers, shown)


@torch.no_grad()
def null_constants(base: Base, freeze_model: str) -> dict[str, Tensor]:
    """Each layer's constants of the unconditional branch, with the base's current weights."""
    vector, found = base.conditioner.learnable_vector, {}
    for name, attn in cross_attentions(base.unet):
        v = attn.to_v(vector)
        found[name] = v[0, 0] if freeze_model == "crossattn-kv" else fold_layer(attn, v, v).bias[0]
    return found


def guidance_from(baked: Baked) -> str:
    """Whose unconditional branch the file holds: "object" or "base"."""
    return str(baked.metadata.recipe.get(GUIDANCE, "object"))


def reference_view(baked: Baked) -> int:
    """The reference view that was baked, see `view_of`; 0: all few-shot tokens."""
    recipe = baked.metadata.recipe
    return int(recipe.get(VIEW, recipe.get("view", 0)))  # "view" in older files


def bake_delta(
    base: Base,
    delta: Delta,
    images: ObjectImages,
    reference: Tensor | None = None,
    object_scale: float = 1.0,
    fingerprint: str = "",
    guidance_from: str = "object",
    view: int = 0,
) -> Baked:
    """Apply an object to the base, bake it, and remove it; by default with its own reference.

    `guidance_from`: whose unconditional branch is baked, "object" or "base". `view`, `images`: see `view_of`.
    Raises ValueError as `apply` and `Conditioner.tokens_of_view`, or if there is no reference.
    """
    shown = view_of(images, delta, reference, view)
    nulls = null_constants(base, delta.metadata.freeze_model) if guidance_from == "base" else None
    metadata = replace(delta.metadata, recipe=dict(delta.metadata.recipe) | {VIEW: view})
    with apply(base, delta, object_scale, fingerprint):
        return bake(base, metadata, shown.picture.to(base.device), nulls, shown.token, images.stored)


@torch.no_grad()
def contexts(baked: Baked, model: InpaintingModel, fingerprint: str, object_scale: float = 1.0) -> Contexts:
    """The object as folded contexts of one sample, for a model of this fingerprint.

    Raises ValueError if it was baked for another base, does not fit, or `object_scale` is not 1.
    """
    check_fits(baked, model, fingerprint)
    if object_scale != 1:
        raise ValueError(
            f"object_scale {object_scale:g} needs the object's weights; a baked object has only 1"
        )
    conditional, unconditional = {}, {}
    for name, attn in cross_attentions(model.unet):
        kept = {key: value.to(attn.to_q.weight) for key, value in baked.layers[name].items()}
        if baked.metadata.freeze_model == "crossattn-kv":
            conditional[name] = fold_layer(attn, kept["k"][None], kept["v"][None])
            unconditional[name] = fold_layer(attn, kept["null"][None, None], kept["null"][None, None])
        else:
            conditional[name] = Layer(*(kept[key][None] for key in ("scores", "values", "bias")))
            empty = [kept[key][None, ..., :0] for key in ("scores", "bias")]
            unconditional[name] = Layer(empty[0], empty[0].mT, kept["null"][None])
    like = model.unet.conv_in.weight
    return Contexts(Folded(conditional).to(like), Folded(unconditional).to(like))


def picture(baked: Baked) -> Tensor | None:
    """The object's picture [1,c,P,P], if the file holds it."""
    return None if baked.reference is None else from_bytes(baked.reference[None])


def save(baked: Baked, path: Path, dtype: torch.dtype = torch.float16) -> None:
    """Write the object file, atomically."""
    tensors = {
        f"{name}.{field}": value.to(dtype)
        for name, layer in baked.layers.items()
        for field, value in layer.items()
    }
    shown = {} if baked.reference is None else {REFERENCE: baked.reference}
    write_object(path, tensors | shown, baked.metadata)


def load(path: Path) -> Baked:
    """Read a baked object file; ValueError in one line if it is damaged, too new or of another kind."""
    tensors, metadata = read_object(Path(path), "baked")
    reference = tensors.pop(REFERENCE, None)
    layers: dict[str, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        name, _, field = key.rpartition(".")
        layers.setdefault(name, {})[field] = value.float()
    fields = FIELDS.get(metadata.freeze_model, ())
    if bad := [name for name, layer in layers.items() if set(layer) != set(fields)]:
        raise ValueError(f"{path}: {first_few(bad)} do not hold {', '.join(fields)}; bake the object again")
    return Baked(metadata, layers, reference)


def check_fits(baked: Baked, model: InpaintingModel, fingerprint: str) -> None:
    """ValueError unless the object was baked for a base of this fingerprint and fits into it."""
    check_base(baked.metadata, fingerprint, model.architecture.name)
    own = dict(cross_attentions(model.unet))
    wrong = sorted(own.keys() ^ baked.layers.keys())
    wrong += [name for name in own.keys() & baked.layers.keys() if not _fits(own[name], baked.layers[name])]
    if wrong:
        raise ValueError(f"this object does not fit the base: {first_few(wrong)}; bake it on this base")


def _fits(attn: Attention, layer: Mapping[str, Tensor]) -> bool:
    """Whether a layer's tensors have the sizes that `attn` needs, for any number of tokens."""
    inner, width = attn.to_q.weight.shape
    shapes = {key: tuple(value.shape) for key, value in layer.items()}
    if "k" in layer:
        n = shapes["k"][0]
        return shapes == {"k": (n, inner), "v": (n, inner), "null": (inner,)}
    columns = shapes["scores"][-1]
    expected = {"scores": (width, columns), "values": (columns, width), "bias": (width,), "null": (width,)}
    return shapes == expected and columns % attn.heads == 0
