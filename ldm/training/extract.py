"""A run's checkpoint => the object that it has learnt."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timezone
from typing import Any

import torch
from torch import Tensor

from ldm.data.image import from_bytes
from ldm.models.base import Base, base_fingerprint, base_state
from ldm.models.conditioner import PriorEncoder
from ldm.objects.delta import Delta, extract, is_trained
from ldm.objects.few_shot import few_shot_features
from ldm.objects.ldm_format import FewShotLayer, held_out_in, linear_for
from ldm.objects.object_file import ObjectMetadata
from ldm.training.finetune import FEATURES

LINEAR = "conditioner.prior_encoder."
TOKENS = "conditioner.few_shot_tokens"


def object_of(checkpoint: Mapping[str, Any], base: Base, dtype: torch.dtype = torch.float16) -> Delta:
    """The object at this checkpoint of a run on `base`; ValueError if the run had another base."""
    card, about = checkpoint["object"], ObjectMetadata(**checkpoint["object"]["about"])
    if about.base != (own := base_fingerprint(base)):
        raise ValueError(
            f"this run was made on the base {about.base}, the one given is {own}; give its own base"
        )
    now = datetime.now(timezone.utc).isoformat(timespec="seconds")
    about = replace(about, step=int(checkpoint["global_step"]), date=now)
    tuned = tuned_state(checkpoint)
    names = [name for name in tuned if is_trained(name, about.freeze_model)]
    tokens = few_shot_tokens(tuned, card[FEATURES])
    pictures = {"reference": card["reference"], "views": card["crops"] if card.get("stored") else None}
    return extract(base_state(base), tuned, names, about, tokens=tokens, dtype=dtype, **pictures)


def prior_encoder_of(checkpoint: Mapping[str, Any], base: Base) -> FewShotLayer:
    """The paper's layer for a run's few-shot tokens, and the pictures that it reads.

    A `linear` run has its own. For `tokens` it is the layer of least norm that makes them from raw pixels, as
    the paper's code passes them to CLIP. For `none` it has no weights.
    """
    tuned, card = tuned_state(checkpoint), checkpoint["object"]
    facts: dict[str, Any] = {
        "pictures": tuple(card["pictures"]),
        "held_out": held_out_in(card["about"]["recipe"]),
    }
    if TOKENS in tuned:
        crops = from_bytes(card["paper_crops"])
        return FewShotLayer(linear_for(tuned[TOKENS], few_shot_features(base, crops, "raw")), "raw", **facts)
    weights = {k: v for k, v in tuned.items() if k.startswith(LINEAR)}
    return FewShotLayer(weights, str(card["few_shot_pixels"]), **facts)


def tuned_state(checkpoint: Mapping[str, Any]) -> dict[str, Tensor]:
    """The trained weights by name."""
    return {key.removeprefix("base."): value for key, value in checkpoint["state_dict"].items()}


@torch.no_grad()
def few_shot_tokens(tuned: Mapping[str, Tensor], features: Tensor | None) -> Tensor | None:
    """A run's few-shot tokens [N,c]: learnt, or computed from its features [N,tokens,c]."""
    if TOKENS in tuned:
        return tuned[TOKENS]
    if features is None:
        return None
    encoder = PriorEncoder(*features.shape[1:])
    encoder.load_state_dict({k.removeprefix(LINEAR): v for k, v in tuned.items() if k.startswith(LINEAR)})
    return encoder(features.float())
