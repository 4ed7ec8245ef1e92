"""Learn one object in one go, in this process: no resuming, no previews. scripts/train.py has those."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ldm.data.insertset import InsertSet
from ldm.data.object_crops import ObjectImages
from ldm.models.architecture import Architecture
from ldm.models.base import Base, load_base
from ldm.objects.delta import save
from ldm.training.build import build_learner
from ldm.training.callbacks import Progress
from ldm.training.datamodule import SampleModule
from ldm.training.encoded_samples import Shown, grey, samples_of
from ldm.training.extract import object_of
from ldm.training.trainer import build_trainer


def learn_object(
    base: Base,
    insertset: InsertSet,
    folder: Path,
    *,
    freeze_model: str,
    few_shot: str = "tokens",
    few_shot_features: str = "clip",
    max_steps: int,
    batch_size: int = 1,
    accumulate_grad_batches: int = 1,
    augment: bool = True,
    augment_odds: str = "fixed",
    crop_squares: bool = True,
    mask_resize: str = "cover",
    single_view: float = 0.0,
    posterior: str = "mean",
    workers: int = 0,
    cached_samples: int = 0,
    precision: str = "32-true",
    accelerator: str = "auto",
    devices: str = "auto",
    seed: int = 0,
    recipe: Mapping[str, Any] | None = None,
    images: ObjectImages | None = None,
    shown: Shown = grey,
    **rates: Any,
) -> dict[str, Any]:
    """Tune `base` in place to an object => a checkpoint as `ldm.training.extract.object_of` takes it.

    Logs go to `folder`, `recipe` into the object file; `rates` are FineTune's learning rates and the like.
    """
    kinds = {"freeze_model": freeze_model, "few_shot": few_shot, "few_shot_features": few_shot_features}
    module = build_learner(
        base,
        insertset,
        seed=seed,
        recipe=recipe,
        max_steps=max_steps,
        posterior=posterior,
        images=images,
        shown=shown,
        **kinds,
        **rates,  # type: ignore[arg-type]
    )
    trainer = build_trainer(
        folder, [Progress(batch_size)], max_steps=max_steps, accumulate_grad_batches=accumulate_grad_batches, precision=precision,
        accelerator=accelerator, devices=devices,
    )  # fmt: skip
    samples = samples_of(
        base, insertset, trainer.strategy.root_device, seed=seed, cached_samples=cached_samples, precision=precision,
        posterior=posterior, single_view=single_view, augment=augment, augment_odds=augment_odds,
        crop_squares=crop_squares, mask_resize=mask_resize, images=images, shown=shown,
    )  # fmt: skip
    trainer.fit(module, datamodule=SampleModule(samples, batch_size, workers))
    checkpoint: dict[str, Any] = {"global_step": trainer.global_step}
    module.on_save_checkpoint(checkpoint)
    return checkpoint


def learn_to_file(
    path: Path, architecture: Architecture, insertset: InsertSet, file: Path, **settings: Any
) -> None:
    """Learn on a base of its own, read from `path`, and write the object file; logs go beside it.

    `settings` are those of `learn_object`.
    """
    checkpoint = learn_object(load_base(path, architecture), insertset, file.with_suffix(""), **settings)
    save(object_of(checkpoint, load_base(path, architecture)), file)
