"""Settings => a training run, its validation and previews."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from ldm.config.build import (
    COMPOSITE,
    blend_of,
    from_sections,
    make_fill,
    needs_composite,
    object_images,
    sampling_of,
    usable_precision,
)
from ldm.config.schema import Config
from ldm.data.image import from_bytes
from ldm.data.insertset import InsertSet, Sample
from ldm.data.pairs import SampleOptions
from ldm.models.base import Base
from ldm.objects.object_context import ObjectView, null_context
from ldm.training.checkpoints import Checkpoints
from ldm.training.finetune import FineTune, Tuning
from ldm.training.run import TrainingRun
from ldm.training.samples import FillImages, fill_with_grey
from ldm.training.trainer import LoopOptions, Previews, on_device
from ldm.validation.callback import Validation, ValidationPlan, plan_validation
from ldm.validation.validator import RegionFiller, Validator, place_of, validation_pictures


def training_run_of(config: Config, device: str = "") -> TrainingRun:
    """The training run that the settings describe; a `device` (cpu, cuda, cuda:N) replaces theirs."""
    t, d = config.train, config.data
    precision = usable_precision(t.precision, device or device_of(t.accelerator), "32-true")
    loop = from_sections(LoopOptions, t, d, precision=precision)
    return TrainingRun(
        tuning=from_sections(Tuning, t),
        samples=from_sections(SampleOptions, t, d),
        loop=on_device(loop, device) if device else loop,
        images=object_images(config),
        shown=shown_in_training(config),
        recipe=asdict(config),
    )


def device_of(accelerator: str) -> str:
    """The kind of device that Lightning takes for this accelerator (auto, cpu, gpu, mps)."""
    if accelerator in ("auto", "gpu"):
        return "cuda" if torch.cuda.is_available() else "cpu"
    return accelerator


def shown_in_training(config: Config) -> FillImages:
    """What the masked regions of training samples show."""
    if config.base.region_fill == COMPOSITE:
        from ldm.compositing.composite_fill import CompositesInTraining

        return from_sections(CompositesInTraining, config.train)
    if config.train.recolour:
        raise needs_composite("recolour")
    return fill_with_grey


def validation_plan_of(config: Config, insertset: InsertSet) -> tuple[Config, ValidationPlan]:
    """How the run validates itself, and the settings by which a resumed run does the same."""
    t = config.train
    plan = plan_validation(
        insertset, held_out=t.hold_out, every=t.validate_every, max_steps=t.max_steps,
        samples=t.batch_size * t.accumulate_grad_batches, guidance_scale=config.sample.guidance_scale,
    )  # fmt: skip
    return replace(config, train=replace(t, hold_out=plan.hold_out, validate_every=plan.every)), plan


def region_filler_of(
    config: Config, base: Base, card: Mapping[str, Any], pictures: Sequence[Sample]
) -> RegionFiller:
    """What inserts the object into regions of these pictures; `card` describes the object, see `FineTune`."""
    a, sampling, images = config.base.architecture, sampling_of(config), object_images(config)
    reference, crops = from_bytes(card["reference"][None]), from_bytes(card["crops"])
    tokens = 0 if config.train.few_shot == "none" else len(crops)
    view = sampling.reference_view if sampling.reference_view <= tokens else 0  # training goes on without it
    stored = crops if images.stored and tokens else None
    return RegionFiller(
        [place_of(picture, a.image_size, config.insert.roi_factor) for picture in pictures],
        ObjectView(*images.select(stored, reference, view)),
        sampling,
        blend_of(config),
        config.sample.seed,
        null_context(base, sampling.guidance_from),
        make_fill(config, detail_transfer=0.0),
    )


def training_callbacks(
    config: Config, module: FineTune, plan: ValidationPlan, folder: Path, checkpoints: Checkpoints
) -> list[Previews | Validation]:
    """Previews and validation, as far as the settings ask for them."""
    t, found = config.train, list[Previews | Validation]()
    filler = partial(region_filler_of, config, module.base, module.card)
    if t.preview_every:
        found.append(Previews(filler(plan.training.few_shot[:1]).preview, folder, t.preview_every))
    if plan.features is not None:
        fill = filler(validation_pictures(plan.training, plan.held_out))
        validator = Validator(plan.training, plan.held_out, plan.features, fill)
        found.append(Validation(validator, folder, plan.every, checkpoints, t.patience))
    return found
