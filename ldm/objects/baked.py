"""An object with its reference, baked: every cross-attention layer's constants, in place of weights and CLIP.

A baked file takes no other reference and cannot be learnt further. Objects whose K and V were tuned keep K
and V [n,C] of every layer, and V [C] of the unconditional context; the base's own to_q and to_out go around
them. Objects with all of the cross-attention tuned keep it folded: scores [C,heads*n], values [heads*n,C],
bias [C], and the unconditional output [C].
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
from ldm.models.context import Contexts, Folded, Layer, fold_layer
from ldm.models.cross_attention import Attention, cross_attentions
from ldm.models.inpainting_model import InpaintingModel
from ldm.models.state_dict import some
from ldm.objects.apply import apply
from ldm.objects.delta import Delta
from ldm.objects.object_context import view_of
from ldm.objects.object_file import REFERENCE, About, check_base, read_object, write_object

FIELDS = {"crossattn-kv": ("k", "v", "null"), "crossattn": ("scores", "values", "bias", "null")}
GUIDANCE = "guidance_from"  # in the recipe of a baked file: whose unconditional branch it holds
VIEW = "reference_view"  # likewise: the one few-shot token that stands for all, or 0


@dataclass(frozen=True, eq=False)
class Baked:
    """One object. `layers`: layer name => its tensors by the names in FIELDS.

    `reference` uint8 [c,P,P]: the picture that the object is shown by, where it is needed.
    """

    about: About
    layers: Mapping[str, Mapping[str, Tensor]]
    reference: Tensor | None = None


@torch.no_grad()
def bake(
    base: Base,
    about: About,
    reference: Tensor,
    nulls: Mapping[str, Tensor] | None = None,
    view: int = 0,
    keep_picture: bool = False,
) -> Baked:
    """The object that `base` carries, told of by `about`, with its reference [1,c,P,P].

    `nulls`: the layers' unconditional constants, those of the untouched base; None: the object's own.
    `view`: see `Conditioner.view`. `keep_picture`: the file holds the reference, too.
    """
    context, layers = base.context(reference, view), {}
    own = null_constants(base, about.freeze_model) if nulls is None else nulls
    for name, attn in cross_attentions(base.unet):
        k, v = attn.to_k(context), attn.to_v(context)
        kept = (k, v) if about.freeze_model == "crossattn-kv" else fold_layer(attn, k, v)
        layers[name] = dict(zip(FIELDS[about.freeze_model], (*(x[0] for x in kept), own[name]), strict=True))
    recipe = dict(about.recipe) | {GUIDANCE: "object" if nulls is None else "base"}
    shown = to_bytes(reference[0]) if keep_picture else None
    return Baked(replace(about, kind="baked", recipe=recipe), layers, shown)


@torch.no_grad()
def null_constants(base: Base, freeze_model: str) -> dict[str, Tensor]:
    """What a baked file keeps of each layer's unconditional branch, by the base's weights as they are now."""
    vector, found = base.conditioner.learnable_vector, {}
    for name, attn in cross_attentions(base.unet):
        v = attn.to_v(vector)
        found[name] = v[0, 0] if freeze_model == "crossattn-kv" else fold_layer(attn, v, v).bias[0]
    return found


def guidance_from(baked: Baked) -> str:
    """Whose unconditional branch is in it: the object's or the base's."""
    return str(baked.about.recipe.get(GUIDANCE, "object"))


def view(baked: Baked) -> int:
    """The view that was asked for, see `view_of`; 0: each few-shot token stands for itself."""
    recipe = baked.about.recipe
    return int(recipe.get(VIEW, recipe.get("view", 0)))  # "view" in files of earlier versions


def bake_delta(
    base: Base,
    delta: Delta,
    images: ObjectImages,
    reference: Tensor | None = None,
    strength: float = 1.0,
    fingerprint: str = "",
    guidance_from: str = "object",
    view: int = 0,
) -> Baked:
    """An object's file as constants, with its own reference if no other is given; `strength` stays in them.

    `guidance_from`: whose unconditional branch goes into the file, the object's or the base's. `view` and
    `images`: see `view_of`. Raises ValueError as `apply` and `Conditioner.view` do, or if there is no reference.
    """
    shown = view_of(images, delta, reference, view)
    nulls = null_constants(base, delta.about.freeze_model) if guidance_from == "base" else None
    about = replace(delta.about, recipe=dict(delta.about.recipe) | {VIEW: view})
    with apply(base, delta, strength, fingerprint):
        return bake(base, about, shown.picture.to(base.device), nulls, shown.token, images.stored)


@torch.no_grad()
def contexts(baked: Baked, model: InpaintingModel, fingerprint: str, strength: float = 1.0) -> Contexts:
    """The object as folded contexts of one sample, for a base of this fingerprint.

    Raises ValueError if it was made for another base, does not fit it, or `strength` is not 1.
    """
    check_fits(baked, model, fingerprint)
    if strength != 1:
        raise ValueError(f"strength {strength:g} needs the object's weights; a baked object has 1 only")
    conditional, unconditional = {}, {}
    for name, attn in cross_attentions(model.unet):
        kept = {key: value.to(attn.to_q.weight) for key, value in baked.layers[name].items()}
        if baked.about.freeze_model == "crossattn-kv":
            conditional[name] = fold_layer(attn, kept["k"][None], kept["v"][None])
            unconditional[name] = fold_layer(attn, kept["null"][None, None], kept["null"][None, None])
        else:
            conditional[name] = Layer(*(kept[key][None] for key in ("scores", "values", "bias")))
            empty = [kept[key][None, ..., :0] for key in ("scores", "bias")]
            unconditional[name] = Layer(empty[0], empty[0].mT, kept["null"][None])
    like = model.unet.conv_in.weight
    return Contexts(Folded(conditional).to(like), Folded(unconditional).to(like))


def picture(baked: Baked) -> Tensor | None:
    """The picture [1,c,P,P] that the object is shown by, if the file holds it."""
    return None if baked.reference is None else from_bytes(baked.reference[None])


def save(baked: Baked, path: Path, dtype: torch.dtype = torch.float16) -> None:
    """Write the object file, whole or not at all."""
    tensors = {
        f"{name}.{field}": value.to(dtype)
        for name, layer in baked.layers.items()
        for field, value in layer.items()
    }
    shown = {} if baked.reference is None else {REFERENCE: baked.reference}
    write_object(path, tensors | shown, baked.about)


def load(path: Path) -> Baked:
    """Read a baked object file; ValueError in one line if it is damaged, too new or of another kind."""
    tensors, about = read_object(Path(path), "baked")
    reference = tensors.pop(REFERENCE, None)
    layers: dict[str, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        name, _, field = key.rpartition(".")
        layers.setdefault(name, {})[field] = value.float()
    fields = FIELDS.get(about.freeze_model, ())
    if bad := [name for name, layer in layers.items() if set(layer) != set(fields)]:
        raise ValueError(f"{path}: {some(bad)} do not hold {', '.join(fields)}; bake the object again")
    return Baked(about, layers, reference)


def check_fits(baked: Baked, model: InpaintingModel, fingerprint: str) -> None:
    """ValueError unless the object was baked for a base of this fingerprint and fits into it."""
    check_base(baked.about, fingerprint, model.architecture.name)
    own = dict(cross_attentions(model.unet))
    wrong = sorted(own.keys() ^ baked.layers.keys())
    wrong += [name for name in own.keys() & baked.layers.keys() if not _fits(own[name], baked.layers[name])]
    if wrong:
        raise ValueError(f"this object does not fit the base: {some(wrong)}; bake it on this base")


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
