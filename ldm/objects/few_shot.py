"""The few-shot part of an object: before training, and as the layer that the paper's files hold for it.

Crops are [N,3,R,R] in [-1,1], or cut-outs [N,4,P,P], N >= 1; c is CLIP's width.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from ldm.data.insertset import InsertSet
from ldm.data.object_crops import paper_crops
from ldm.models.base import PRIOR_ENCODER, Base
from ldm.models.checkpoint import first_few
from ldm.models.conditioner import FEW_SHOT, PriorEncoder, clip_normalised, raw_pixels
from ldm.objects.delta import Delta
from ldm.objects.object_file import held_out_in

FEATURES = {"clip": clip_normalised, "raw": raw_pixels}  # CLIP's input; raw: as in the paper's code


def prepare_few_shot(
    base: Base, crops: Tensor, kind: str, features: str = "clip", generator: torch.Generator | None = None
) -> None:
    """Give the base an untrained few-shot part of this kind.

    `tokens`: trainable tokens, initialised with CLIP's pooled output of each crop. `linear`: the paper's
    layer over `features`, with random weights by `generator`. `none`: no few-shot part.
    """
    if kind not in FEW_SHOT:
        raise ValueError(f"few_shot {kind!r} is unknown; choose one of {', '.join(FEW_SHOT)}")
    conditioner, crops = base.conditioner, crops.to(base.device)
    if kind == "none":
        conditioner.drop_few_shot()
    elif kind == "tokens":
        conditioner.use_tokens(conditioner.image_features(crops))
    else:
        hidden = few_shot_features(base, crops, features)
        conditioner.use_linear(hidden, drawn_encoder(hidden, generator))


def few_shot_features(base: Base, crops: Tensor, features: str) -> Tensor:
    """CLIP's last hidden state of every crop, [N,tokens,c]: the input of the prior encoder."""
    if features not in FEATURES:
        raise ValueError(f"few_shot_features {features!r} are unknown; choose one of {', '.join(FEATURES)}")
    return base.conditioner.hidden(FEATURES[features](base.conditioner.at_clip_size(crops.to(base.device))))


def drawn_encoder(features: Tensor, generator: torch.Generator | None) -> PriorEncoder:
    """A prior encoder for features [N,tokens,c] with torch's default initial weights, on the CPU."""
    with torch.device("meta"):  # so that 269 M weights are drawn once, not twice
        encoder = PriorEncoder(*features.shape[1:])
    encoder.to_empty(device="cpu")
    bound = features[0].numel() ** -0.5
    for parameter in encoder.parameters():
        nn.init.uniform_(parameter, -bound, bound, generator=generator)
    return encoder


@torch.no_grad()
def linear_tokens(weights: Mapping[str, Tensor], features: Tensor) -> Tensor:
    """The paper's layer, its weights under diffusers names, over features [N,tokens,c] => tokens [N,c]."""
    encoder = PriorEncoder(*features.shape[1:])
    encoder.load_state_dict({key.removeprefix(PRIOR_ENCODER): value for key, value in weights.items()})
    return encoder(features.float())


LINEAR = PRIOR_ENCODER + "prior_block.1."
MAX_TOKEN_ERROR = 1e-3  # relative error of the tokens that a layer fitted to them may have
PAPER, OWN = "paper", "own"  # few-shot crops: by `paper_crops`; by `ObjectImages.few_shot` in older files
PICTURES = "give the object's pictures too: --dataset-dir FOLDER"


@dataclass(frozen=True, eq=False)
class FewShotLayer:
    """The paper's few-shot layer and its inputs; `weights` under diffusers names, {} if there are no tokens.

    `features`: CLIP's input, raw or clip. `crops`: how they are cut. `pictures`: the names of the training
    pictures in the tokens' order, () if unknown. `held_out`: the picture not trained on, if any.
    """

    weights: Mapping[str, Tensor] = field(default_factory=dict)
    features: str = "raw"
    crops: str = PAPER
    pictures: tuple[str, ...] = ()
    held_out: str = ""


def learnt_from(insertset: InsertSet, layer: FewShotLayer) -> InsertSet:
    """The set with only the pictures that a file's tokens were learnt from; ValueError if one is missing."""
    known = {sample.image.stem: sample for sample in insertset.few_shot}
    names = layer.pictures or tuple(name for name in known if name != layer.held_out)
    if missing := [name for name in names if name not in known]:
        raise ValueError(
            f"{insertset.root}: no few-shot picture {first_few(missing)}, which this object was learnt from; "
            "give the folder that it was learnt from"
        )
    return replace(insertset, few_shot=tuple(known[name] for name in names))


def linear_for(tokens: Tensor, features: Tensor) -> dict[str, Tensor]:
    """Tokens t [N,c], features f [N,tokens,c] => the smallest weight W [c,tokens*c] with W f_i = t_i, bias 0.

    Raises ValueError if there is none: equal pictures with different tokens, or another number of pictures.
    """
    if len(features) != len(tokens):
        raise ValueError(
            f"this object has {len(tokens)} few-shot tokens, the folder {len(features)} pictures; give the "
            "folder with the pictures that it was learnt from, and no others"
        )
    f, t = features.flatten(1).double(), tokens.double()
    weight = (torch.linalg.pinv(f @ f.T, hermitian=True) @ t).T @ f  # normal equations: N x N, N is small
    if float((f @ weight.T - t).norm()) > MAX_TOKEN_ERROR * float(t.norm()):
        raise ValueError(
            "no prior encoder makes these few-shot tokens from these pictures: some of them are the same; "
            "give the pictures that the object was learnt from, or write --format safetensors"
        )
    return {LINEAR + "weight": weight.float(), LINEAR + "bias": torch.zeros(len(weight))}


def layer_for(delta: Delta, base: Base, insertset: InsertSet | None) -> FewShotLayer:
    """The smallest layer that computes the object's tokens from its pictures, cropped as in the paper."""
    if delta.tokens is None:
        return FewShotLayer()
    if insertset is None:
        raise ValueError(f"a .ckpt computes few-shot tokens from pictures; {PICTURES}")
    layer = FewShotLayer(held_out=held_out_in(delta.metadata.recipe))
    learnt = learnt_from(insertset, layer)
    crops = paper_crops(learnt, base.architecture.reference_size)
    weights = linear_for(delta.tokens, few_shot_features(base, crops, layer.features))
    return replace(layer, weights=weights, pictures=tuple(x.image.stem for x in learnt.few_shot))
