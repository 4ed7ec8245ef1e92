"""A base and an object's pictures => the module that tunes one to the other, and what its checkpoints say of the object."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from torch import Generator, Tensor

from ldm.data.image import to_bytes
from ldm.data.insertset import InsertSet
from ldm.data.object_crops import ObjectImages, paper_crops
from ldm.models.base import Base, base_fingerprint
from ldm.objects.few_shot import prepare_few_shot
from ldm.objects.object_file import ObjectMetadata, preview_of
from ldm.training.finetune import FineTune


def build_learner(
    base: Base,
    insertset: InsertSet,
    *,
    freeze_model: str,
    few_shot: str = "tokens",
    few_shot_features: str = "clip",
    seed: int = 0,
    recipe: Mapping[str, Any] | None = None,
    images: ObjectImages | None = None,
    **rates: Any,
) -> FineTune:
    """Give `base` its few-shot part (in place) and wrap it for training.

    `recipe`: the run's settings, kept in the object file; `images`: how the base is shown the object;
    `rates`: FineTune's rates and the like.
    """
    images = images or ObjectImages(base.architecture.reference_size)
    crops = images.few_shot(insertset)
    cut = paper_crops(insertset, base.architecture.reference_size)  # what the paper's layer reads
    prepare_few_shot(
        base,
        cut if few_shot == "linear" else crops,
        few_shot,
        few_shot_features,
        Generator().manual_seed(seed),
    )
    kinds = {"freeze_model": freeze_model, "few_shot": few_shot, "few_shot_pixels": few_shot_features}
    card = make_card(base, insertset, crops, cut, recipe or {}, images, **kinds)
    return FineTune(base, freeze_model, seed=seed, card=card, **rates)


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
    """Plain data and uint8 tensors: "about" (see `ObjectMetadata`), the reference [c,P,P], few-shot crops [N,c,P,P].

    `cut` [N,3,R,R] are the crops as the paper's code cuts them, kept for a file that it reads; "stored":
    whether the object's file keeps the crops. `recipe` are the run's settings, `few_shot_pixels` how CLIP
    sees the crops for kind `linear`.
    """
    about = ObjectMetadata(
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
