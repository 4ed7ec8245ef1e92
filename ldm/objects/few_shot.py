"""The few-shot part of an object before training, from crops of its pictures.

Crops are [N,3,R,R] in [-1,1], or cut-outs [N,4,P,P], N >= 1; c is CLIP's width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ldm.models.base import Base
from ldm.models.conditioner import FEW_SHOT, PriorEncoder, clip_normalised, raw_pixels

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
