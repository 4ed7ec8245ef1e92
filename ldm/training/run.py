"""One training run: a base and an object's pictures => the tuned weights; a checkpoint of it => the object.

scripts/train.py adds callbacks, resuming and messages; evaluation calls `learn_to_file`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from omegaconf import OmegaConf
from torch import Generator, Tensor
from torch.utils.data import Dataset
from tqdm import tqdm

from ldm.data.files import write_file
from ldm.data.image import from_bytes, to_bytes
from ldm.data.insertset import InsertSet
from ldm.data.object_crops import ObjectImages, paper_crops
from ldm.data.pairs import SampleOptions, TrainingPairs
from ldm.data.picture import Picture
from ldm.data.picture_write import write_picture
from ldm.models.architecture import Architecture
from ldm.models.base import PRIOR_ENCODER, Base, base_fingerprint, base_state, load_base
from ldm.objects.delta import Delta, extract, is_trained, save
from ldm.objects.few_shot import FewShotLayer, few_shot_features, linear_for, linear_tokens, prepare_few_shot
from ldm.objects.object_file import ObjectMetadata, held_out_in
from ldm.training.checkpoints import CONFIG, MARK, read_checkpoint
from ldm.training.finetune import FEATURES, FILES, FineTune, Tuning
from ldm.training.samples import (
    EncodedSamples,
    FillImages,
    SampleModule,
    fill_with_grey,
)
from ldm.training.trainer import LoopOptions, Progress, build_trainer


@dataclass(frozen=True, eq=False)
class TrainingRun:
    """All that decides what a run learns from an object's pictures.

    `images`: how the base is shown the object; `shown`: what the masked region of a sample shows; `recipe`:
    the run's settings as plain data, kept in its checkpoints and in the object file.
    """

    tuning: Tuning = field(default_factory=Tuning)
    samples: SampleOptions = field(default_factory=SampleOptions)
    loop: LoopOptions = field(default_factory=LoopOptions)
    images: ObjectImages | None = None
    shown: FillImages = fill_with_grey
    recipe: Mapping[str, Any] = field(default_factory=dict)


def build_learner(base: Base, insertset: InsertSet, run: TrainingRun) -> FineTune:
    """Add the few-shot part to `base`, in place, and wrap it for training."""
    t, size = run.tuning, base.architecture.reference_size
    images = run.images or ObjectImages(size)
    crops, as_in_paper = images.few_shot(insertset), paper_crops(insertset, size)
    seen = as_in_paper if t.few_shot == "linear" else crops
    prepare_few_shot(base, seen, t.few_shot, t.few_shot_features, Generator().manual_seed(run.samples.seed))
    reference = images.reference(insertset.reference)[0]
    card = {
        "metadata": asdict(_metadata(base, crops, run)),
        "reference": to_bytes(reference),
        "crops": to_bytes(crops),
        "paper_crops": to_bytes(as_in_paper),
        FILES: insertset.digests(),
        "pictures": [sample.image.stem for sample in insertset.few_shot],
        "few_shot_pixels": t.few_shot_features,
        "stored": images.stored,
    }
    return FineTune(base, t, run.samples, shown=run.shown, card=card)


def _metadata(base: Base, crops: Tensor, run: TrainingRun) -> ObjectMetadata:
    return ObjectMetadata(
        base=base_fingerprint(base),
        architecture=base.architecture.name,
        freeze_model=run.tuning.freeze_model,
        few_shot=run.tuning.few_shot,
        few_shot_count=0 if run.tuning.few_shot == "none" else len(crops),
        recipe=run.recipe,
    )


def train(
    module: FineTune,
    insertset: InsertSet,
    run: TrainingRun,
    folder: Path,
    callbacks: Sequence[pl.Callback] = (),
    resume: Path | None = None,
    announce: Callable[[int], None] = lambda step: None,
) -> pl.Trainer:
    """Train until `max_steps`; logs go to `folder`; callbacks write checkpoints.

    `resume` is a checkpoint of the same run. `announce` is called with the first step, on one device only,
    when everything is built and before samples are encoded.
    """
    start = 0
    if resume:
        saved = read_checkpoint(resume)
        module.check_same(saved)  # before anything is written
        start = saved["global_step"]
    every = [Progress(run.loop.batch_size), *callbacks]
    trainer = build_trainer(folder, every, run.tuning.max_steps, run.loop, start)
    if start >= run.tuning.max_steps:  # nothing is left to learn
        return trainer
    if trainer.is_global_zero:
        announce(start)
    a = module.base.architecture
    samples: Dataset = TrainingPairs(insertset, a.image_size, a.reference_size, run.samples, run.images)
    if run.samples.cached_samples:
        base = module.base.to(trainer.strategy.root_device)
        hidden = not trainer.is_global_zero
        samples = EncodedSamples(
            base, samples, run.samples, run.shown, run.loop.precision,
            progress=lambda numbers: tqdm(numbers, unit="batch", desc="encoding", disable=hidden),
        )  # fmt: skip
    data = SampleModule(samples, run.loop.batch_size, run.loop.workers)
    try:
        trainer.fit(module, datamodule=data, ckpt_path=resume)
    except SystemExit as error:  # Lightning turns an interruption into exit code 1
        raise KeyboardInterrupt from error
    return trainer


def learn_to_file(
    path: Path, architecture: Architecture, insertset: InsertSet, run: TrainingRun, file: Path
) -> None:
    """Learn on a base read from `path` and write the object file; logs go into a folder beside it."""
    module = build_learner(load_base(path, architecture), insertset, run)
    trainer = train(module, insertset, run, file.with_suffix(""))
    checkpoint: dict[str, Any] = {"global_step": trainer.global_step}
    module.on_save_checkpoint(checkpoint)
    save(object_of(checkpoint, load_base(path, architecture)), file)


def write_inputs(card: Mapping[str, Any], folder: Path) -> None:
    """Write the run's settings (config.yaml) and what the base is shown (shown.png: reference and crops)."""
    write_file(folder / CONFIG, MARK + OmegaConf.to_yaml(card["metadata"]["recipe"]))
    row = torch.cat([card["reference"], *card["crops"]], dim=2)[:3]
    write_picture(folder / "shown.png", Picture(row.permute(1, 2, 0).cpu().numpy()))


TOKENS = "conditioner.few_shot_tokens"


def object_of(checkpoint: Mapping[str, Any], base: Base, dtype: torch.dtype = torch.float16) -> Delta:
    """The object at this checkpoint of a run on `base`; ValueError if the run had another base."""
    card = checkpoint["object"]
    facts = {key: value for key, value in card["metadata"].items() if key != "preview"}  # older runs have one
    metadata = ObjectMetadata(**facts)
    if metadata.base != (own := base_fingerprint(base)):
        raise ValueError(
            f"this run was made on the base {metadata.base}, the one given is {own}; give its own base"
        )
    date = card.get("date", "")  # none in runs of versions before 0.13.2
    metadata = replace(metadata, step=int(checkpoint["global_step"]), date=date)
    tuned = tuned_state(checkpoint)
    names = [name for name in tuned if is_trained(name, metadata.freeze_model)]
    tokens = few_shot_tokens(tuned, card[FEATURES])
    pictures = {"reference": card["reference"], "views": card["crops"] if card.get("stored") else None}
    return extract(base_state(base), tuned, names, metadata, tokens=tokens, dtype=dtype, **pictures)


def prior_encoder_of(checkpoint: Mapping[str, Any], base: Base) -> FewShotLayer:
    """The paper's layer for a run's few-shot tokens, and the pictures that it reads.

    A `linear` run has its own. For `tokens` it is the layer of least norm that makes them from raw pixels, as
    the paper's code passes them to CLIP. For `none` it has no weights.
    """
    tuned, card = tuned_state(checkpoint), checkpoint["object"]
    facts: dict[str, Any] = {
        "pictures": tuple(card["pictures"]),
        "held_out": held_out_in(card["metadata"]["recipe"]),
    }
    if TOKENS in tuned:
        crops = from_bytes(card["paper_crops"])
        return FewShotLayer(linear_for(tuned[TOKENS], few_shot_features(base, crops, "raw")), "raw", **facts)
    return FewShotLayer(_linear(tuned), str(card["few_shot_pixels"]), **facts)


def tuned_state(checkpoint: Mapping[str, Any]) -> dict[str, Tensor]:
    """The trained weights by name."""
    return {key.removeprefix("base."): value for key, value in checkpoint["state_dict"].items()}


def few_shot_tokens(tuned: Mapping[str, Tensor], features: Tensor | None) -> Tensor | None:
    """A run's few-shot tokens [N,c]: learnt, or computed from its features [N,tokens,c]."""
    if TOKENS in tuned:
        return tuned[TOKENS]
    return None if features is None else linear_tokens(_linear(tuned), features)


def _linear(tuned: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of the paper's few-shot layer, if the run has it."""
    return {key: value for key, value in tuned.items() if key.startswith(PRIOR_ENCODER)}
