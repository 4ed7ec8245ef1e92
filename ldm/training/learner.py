"""A base and an object's pictures => the module that tunes one to the other, and its card."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Generator

from ldm.data.insertset import InsertSet
from ldm.data.shown import ObjectImages, paper_crops
from ldm.models.base import Base
from ldm.objects.few_shot import prepare_few_shot
from ldm.training.card import make_card
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
