"""What a run knows about its object besides the weights: a card that its checkpoints carry to get_deltas."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from torch import Tensor

from ldm.data.image import to_bytes
from ldm.data.insertset import InsertSet
from ldm.data.shown import ObjectImages
from ldm.models.base import Base, base_fingerprint
from ldm.objects.file import About, preview_of


def make_card(
    base: Base,
    insertset: InsertSet,
    crops: Tensor,
    cut: Tensor,
    recipe: Mapping[str, Any],
    images: ObjectImages,
    *,
    freeze_model: str,
    few_shot: str,
    few_shot_pixels: str,
) -> dict[str, Any]:
    """Plain data and uint8 tensors: "about" (see `About`), the reference [c,P,P], few-shot crops [N,c,P,P].

    `cut` [N,3,R,R] are the crops as the paper's code cuts them, kept for a file that it reads; "stored":
    whether the object's file keeps the crops. `recipe` are the run's settings, `few_shot_pixels` how CLIP
    sees the crops for kind `linear`.
    """
    about = About(
        base=base_fingerprint(base),
        architecture=base.architecture.name,
        freeze_model=freeze_model,
        few_shot=few_shot,
        few_shot_count=0 if few_shot == "none" else len(crops),
        recipe=recipe,
        preview=preview_of(insertset.reference),
    )
    reference = images.own_reference(insertset, crops)[0]
    return {
        "about": asdict(about),
        "reference": to_bytes(reference),
        "crops": to_bytes(crops),
        "paper_crops": to_bytes(cut),
        "pictures": [sample.image.stem for sample in insertset.few_shot],
        "few_shot_pixels": few_shot_pixels,
        "stored": images.stored,
    }
